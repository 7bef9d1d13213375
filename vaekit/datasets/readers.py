"""From files in their original formats to arrays of pixels `[N, C, H, W]` and labels `[N]`, both uint8 or wider."""

import gzip
import lzma
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaekit.datasets import downloads
from vaekit.datasets.sources import DERIVED, FILES

__all__ = ["read"]

_UNREADABLE = (  # what damaged files make their readers raise; NotImplementedError: a packing that does not exist
    ValueError, KeyError, IndexError, TypeError, EOFError, OSError, NotImplementedError, SyntaxError, RuntimeError,
    struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip

Arrays = tuple[NDArray[np.uint8], NDArray[np.integer]]


def read(name: str, split: str, *, progress: bool = True) -> Arrays:
    """Pixels `[N, C, H, W]` (uint8) and labels `[N]` of a split, from wherever its files are found.

    Raises:
        ValueError: A file has the wrong digest or cannot be read as what it should be.
        ConnectionError: A file is neither here nor to be downloaded.
    """
    folder, derived = downloads.data_folder(), DERIVED.get((name, split))
    if folder is not None and derived is not None and (path := folder / derived).exists():
        with _readable(path):
            return _checked(*_npz(path, name, split))
    paths = [downloads.find(file, progress=progress) for file in FILES[name, split]]
    with _readable(paths[0]):
        match name:
            case "omniglot":
                return _checked(*_omniglot(paths[0], split))
            case "emnist-letters":
                return _checked(*_emnist_letters(paths[0], split))
            case "svhn":
                return _checked(*_svhn(paths[0]))
            case "cifar10":
                return _checked(*_cifar10(paths[0], split))
            case "cifar10-gray":
                return _checked(*_gray(*_cifar10(paths[0], split)))
    with _readable(paths[0]), gzip.open(paths[0]) as images:
        pixels = _idx(images, ndim=3)[:, None]
    with _readable(paths[1]), gzip.open(paths[1]) as labels:
        return _checked(pixels, _idx(labels, ndim=1))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file in every error that comes from what is in it."""
    try:
        yield
    except _UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read as the data set it should be ({error})") from error


def _checked(pixels: NDArray, labels: NDArray) -> Arrays:
    """The arrays, if they are pixels `[N, C, H, W]` of one byte each and a label for each image."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] not in {(1, 28, 28), (3, 32, 32)}:
        raise ValueError(f"expected images of bytes, 28 x 28 or 3 x 32 x 32, got {pixels.dtype} {pixels.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(pixels),) or not len(labels):
        raise ValueError(f"expected a whole number for each of {len(pixels)} images, got {labels.dtype} {labels.shape}")
    return pixels, labels


def _npz(path: Path, name: str, split: str) -> Arrays:
    """A ready-made file: see `sources.DERIVED`."""
    with np.load(path, allow_pickle=False) as arrays:
        pixels = arrays["images"][:, None]
        if name == "omniglot":
            here = arrays["split"] == ("train", "test").index(split)  # [N]
            return pixels[here], arrays["character"][here]
        labels = arrays["labels"]
        return pixels, labels - labels.dtype.type(1) if name == "emnist-letters" else labels


def _idx(stream: gzip.GzipFile, ndim: int) -> NDArray[np.uint8]:
    """The IDX format: two zero bytes, the type (8: unsigned bytes), the number of axes, big-endian sizes, the data."""
    magic = stream.read(4)
    if magic != bytes([0, 0, 8, ndim]):
        raise ValueError(f"expected an IDX file of unsigned bytes with {ndim} axes, got first bytes {magic!r}")
    shape = np.frombuffer(stream.read(4 * ndim), ">u4").tolist()
    data = stream.read()
    if len(data) != math.prod(shape):
        raise ValueError(f"expected {math.prod(shape)} bytes for shape {shape}, got {len(data)}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _omniglot(path: Path, split: str) -> Arrays:
    """105x105 bitmaps, black ink on white, averaged over areas to 28x28, ink bright; label = character, 0 to 1622.

    A pixel of the result covers 3.75 x 3.75 of the original: in quarters of a pixel, 15 x 15 of 420 x 420.
    """
    from PIL import Image

    quarters = np.eye(28, dtype=np.float32).repeat(15, axis=1).reshape(28, 105, 4).sum(2)  # [28, 105], rows sum to 15
    pixels, characters = [], []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png") and not name.startswith("__MACOSX"))
        for name in names:
            with archive.open(name) as stream, Image.open(stream) as image:
                ink = np.asarray(image) == 0  # [105, 105]
            covered = quarters @ ink.astype(np.float32) @ quarters.T  # [28, 28], of 225
            pixels.append(np.rint(255 / 225 * covered).astype(np.uint8))
            characters.append(name.rpartition("/")[0])
    if not pixels:
        raise ValueError("expected a zip archive with .png files, found none")
    labels = np.unique(characters, return_inverse=True)[1]
    return np.stack(pixels)[:, None], labels + (0 if split == "train" else 964)  # the 964 background characters first


def _emnist_letters(path: Path, split: str) -> Arrays:
    """Letters only, a..z = 0..25, upright (they are stored transposed); every fourth image of the test split."""
    step = 4 if split == "test" else 1
    with zipfile.ZipFile(path) as archive:
        with archive.open(f"gzip/emnist-letters-{split}-images-idx3-ubyte.gz") as packed, gzip.open(packed) as stream:
            pixels = _idx(stream, ndim=3)[::step, None]
        with archive.open(f"gzip/emnist-letters-{split}-labels-idx1-ubyte.gz") as packed, gzip.open(packed) as stream:
            return pixels.swapaxes(2, 3), _idx(stream, ndim=1)[::step] - 1


def _svhn(path: Path) -> Arrays:
    """Cropped house numbers: MATLAB's `X [32, 32, 3, N]`, and `y [N, 1]` in which 10 stands for the digit 0."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        arrays = loadmat(path, variable_names=("X", "y"))
    except MatReadError as error:
        raise ValueError(str(error)) from error
    return arrays["X"].transpose(3, 2, 0, 1), arrays["y"].ravel() % 10


def _cifar10(path: Path, split: str) -> Arrays:
    """The binary version: records of one label and 3 x 32 x 32 pixels; only the named members are read."""
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    wanted = {f"cifar-10-batches-bin/{name}" for name in files}
    found: dict[str, bytes] = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.name in wanted and (stream := archive.extractfile(member)) is not None:
                found[member.name] = stream.read()
    records = np.frombuffer(b"".join(found[name] for name in sorted(wanted)), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _gray(pixels: NDArray[np.uint8], labels: NDArray[np.integer]) -> Arrays:
    """The first 2,000 images in ITU-R BT.601 luma, the middle 28x28 of each."""
    luma = np.array([0.299, 0.587, 0.114]) @ pixels[:2000].reshape(-1, 3, 32 * 32)  # [N, 1024]
    return np.rint(luma).astype(np.uint8).reshape(-1, 1, 32, 32)[:, :, 2:-2, 2:-2], labels[:2000]
