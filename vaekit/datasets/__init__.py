r"""Images to learn from: public data sets, downloaded once and checked, and drawn ones whose factors are known.

28x28, grey, with the number of training and test images and the licence that the source states:

- `mnist`: handwritten digits, 60,000 + 10,000. LeCun, Cortes and Burges; no licence stated.
- `fashion-mnist`: clothes, 60,000 + 10,000. Xiao et al. 2017, https://arxiv.org/abs/1708.07747; MIT.
- `kmnist`: cursive Japanese, 60,000 + 10,000. Clanuwat et al. 2018, https://arxiv.org/abs/1812.01718; CC BY-SA 4.0.
- `omniglot`: characters of 50 alphabets, 19,280 + 13,180. Lake et al. 2015,
  https://github.com/brendenlake/omniglot; MIT.
- `notmnist`: letters A to J in many fonts, 60,000 + 10,000. Bulatov 2011, in the format of MNIST at
  https://github.com/davidflanagan/notMNIST-to-MNIST with his permission.
- `emnist-letters`: handwritten letters, 124,800 + 5,200. Cohen et al. 2017, https://arxiv.org/abs/1702.05373; none
  stated.
- `cifar10-gray`: cut from `cifar10`, 2,000 + none.

3x32x32, in colour:

- `svhn`: house numbers, 73,257 + 26,032. Netzer et al. 2011, http://ufldl.stanford.edu/housenumbers; for
  non-commercial use.
- `cifar10`: photographs, 50,000 + 10,000. Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html; none stated.

Without any download:

- `digits`: 8x8 handwritten digits that come with scikit-learn, 1,500 + 297.
- `three-dots`, `shapes` and, in colour, `rooms`: drawn, any size, with their factors: see `render_three_dots`,
  `render_shapes` and `render_rooms`.

What `load` returns does not depend on where the files were found. Some sets are made from their originals:

- `omniglot`: 105x105 bitmaps averaged over areas to 28x28, ink bright; train is the background set, test the
  evaluation set, and no character is in both. (Not the 28x28 version of the importance-weighted auto-encoder's paper.)
- `emnist-letters`: turned upright; test is every fourth of the 20,800 test images, 200 of each letter.
- `cifar10-gray`: ITU-R BT.601 luma of the first 2,000 training images, the middle 28x28: to be out of distribution.
- `digits`: the first 1,500 images and the rest.

**Where files are looked for.** First in the folder that the environment variable `VAEKIT_DATA` names, then in the
cache (`VAEKIT_CACHE`, or the operating system's place for caches), where downloads go. Every original file must have
the digest pinned in `vaekit.datasets.sources`. A class without internet shares a folder with this layout::

    mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz       and so fashion-mnist/, kmnist/, notmnist/
    omniglot/images_background.zip, images_evaluation.zip       or omniglot/omniglot_28x28.npz
    emnist/gzip.zip                                             or, for test, emnist/emnist_letters_test_5200.npz
    svhn/train_32x32.mat, test_32x32.mat
    cifar10/cifar-10-binary.tar.gz                              or, for gray, cifar10/cifar10_gray28_2000.npz

The `.npz` files hold `images` (uint8 `[N, 28, 28]`, ink or object bright) and `labels`; that of OMNIGLOT holds `split`
(0 background, 1 evaluation) and `character` (0 to 1622) instead of `labels`, that of EMNIST counts its letters from 1;
`notmnist/notmnist_test10k.npz` may stand for the test split of notMNIST.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from vaekit import checks
from vaekit.datasets.dataset import Dataset
from vaekit.datasets.procedural import draw, render_shapes, render_three_dots
from vaekit.datasets.readers import read
from vaekit.datasets.rooms import render_rooms
from vaekit.datasets.sources import FILES

__all__ = ["NAMES", "Dataset", "binarise", "load", "render_rooms", "render_shapes", "render_three_dots"]

_DRAWN = ("three-dots", "shapes", "rooms")
_MANY = {"train": 10_000, "test": 2_000}  # drawn images, unless n is given
_SPLITS = {name: tuple(split for split in _MANY if (name, split) in FILES) for name, _ in FILES}
_SPLITS |= dict.fromkeys(("digits", *_DRAWN), tuple(_MANY))

NAMES = tuple(_SPLITS)
"""Every name that `load` knows."""


def load(
    name: str,
    split: str = "train",
    *,
    n: int | None = None,
    size: int | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Dataset:
    """Images in [0, 1] with their labels or factors.

    Args:
        name: One of `NAMES`; see the table above.
        split: "train" or "test".
        n: How many images: the first n of the split (all by default), in the order of the source, which for `omniglot`
            and for the test split of `emnist-letters` goes class by class: there, use a random choice instead,
            `data[torch.randperm(len(data))[:n]]`. Of the drawn sets, how many are drawn (by default 10,000 for train,
            2,000 for test).
        size: Height and width. Drawn sets are drawn at this size (64 by default); all others are surrounded by black up
            to it, so 32 makes a network for 32x32 fit MNIST.
        seed: For the drawn sets alone: another draw of factors than that of seed 0. The first images of a
            longer draw are those of a shorter one. Train and test of `shapes` never share a combination of factors.
        progress: Whether a bar shows the download.

    Raises:
        ValueError: Unknown name or split, `n` below 1 or above what there is, `size` below that of the images, a seed
            for images that are not drawn, or a file that is not what it should be.
        ConnectionError: A file is neither here nor to be downloaded; the message says which file goes where.

    Example:
        >>> digits = load("digits")
        >>> digits.images.shape, digits.labels[:3].tolist()
        (torch.Size([1500, 1, 8, 8]), [0, 1, 2])
        >>> dots = load("three-dots", n=100, size=32)
        >>> dots.images.shape, dots.factor_names
        (torch.Size([100, 1, 32, 32]), ('x1', 'y1', 'x2', 'y2', 'x3', 'y3'))
        >>> len(dots[:10]), dots.factors.shape
        (10, torch.Size([100, 6]))
    """
    if name not in _SPLITS:
        raise ValueError(f"name: expected one of {', '.join(NAMES)}; got {name!r}")
    if split not in _SPLITS[name]:
        raise ValueError(f"split: expected one of {', '.join(_SPLITS[name])} for {name}; got {split!r}")
    if n is not None:
        checks.count(n, 1, "n")
    if size is not None:
        checks.count(size, 1, "size")
    if seed is not None:
        checks.count(seed, 0, "seed")
    if name in _DRAWN:
        return draw(name, split, n or _MANY[split], 64 if size is None else size, seed or 0)
    if seed is not None:
        raise ValueError(f"seed: expected none, since the images of {name} are not drawn, got {seed}")
    images, labels = _digits(split) if name == "digits" else _from_files(name, split, n, progress)
    if n is not None and n > len(images):
        raise ValueError(f"n: expected at most {len(images)} images for {name} {split}, got {n}")
    return Dataset(name, split, _surrounded(images[:n], size), labels[:n])


def binarise(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Pixels drawn as coins that show 1 with the pixel's own value as probability; same shape and dtype.

    Args:
        images: `[B, *image]` in [0, 1].
        generator: Where the randomness comes from; torch's own by default.

    Raises:
        ValueError: Not a non-empty floating-point batch in [0, 1].

    Example:
        >>> binarise(torch.tensor([[0.0, 1.0, 1.0]]))
        tensor([[0., 1., 1.]])
    """
    checks.images(images, name="images", unit_range=True)
    return torch.bernoulli(images, generator=generator)


def _from_files(name: str, split: str, n: int | None, progress: bool) -> tuple[Tensor, Tensor]:
    """The first n images (or the few there are) `[n, C, H, W]` and labels `[n]`."""
    pixels, labels = read(name, split, progress=progress)
    images = torch.tensor(pixels[:n], dtype=torch.float32).div_(255)
    return images, torch.tensor(labels[:n], dtype=torch.int64)


def _digits(split: str) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits, whose pixels count from 0 to 16."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    here = slice(1500) if split == "train" else slice(1500, None)
    images = torch.tensor(pixels[here] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return images, torch.tensor(labels[here], dtype=torch.int64)


def _surrounded(images: Tensor, size: int | None) -> Tensor:
    """Images with a black border that makes them size x size."""
    height = images.shape[-1]
    if size is None or size == height:
        return images
    if size < height:
        raise ValueError(f"size: expected at least {height}, the size of the images, got {size}")
    before = (size - height) // 2
    after = size - height - before
    return pad(images, (before, after, before, after))
