"""What `load` promises, and what the real data sets hold where they are there (`VAEKIT_DATA`)."""

import ast
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from vaekit import datasets
from vaekit.datasets import NAMES, binarise, load
from vaekit.datasets.sources import DERIVED, FILES

DATA = os.environ.get("VAEKIT_DATA")

# (name, split): images, classes, and the md5 digests of the original files as torchvision publishes them
# (https://github.com/pytorch/vision/tree/main/torchvision/datasets): another source than that of the pinned digests.
REAL = {
    ("mnist", "train"): (60_000, 10, ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432")),
    ("mnist", "test"): (10_000, 10, ("9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c")),
    ("fashion-mnist", "train"): (60_000, 10, ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe")),
    ("fashion-mnist", "test"): (10_000, 10, ("bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310")),
    ("kmnist", "train"): (60_000, 10, ("bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344")),
    ("kmnist", "test"): (10_000, 10, ("5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134")),
    ("svhn", "train"): (73_257, 10, ("e26dedcc434d2e4c54c9b2d4a06d8373",)),
    ("svhn", "test"): (26_032, 10, ("eb5a983be6a315427106f1b164d9cef3",)),
    ("omniglot", "train"): (19_280, 964, ("68d2efa1b9178cc56df9314c21c6e718",)),
    ("omniglot", "test"): (13_180, 659, ("6b91aef0f799c5bb55b94e3f2daec811",)),
    ("emnist-letters", "train"): (124_800, 26, ("58c8d27c78d21e728a6bc7b3cc06412e",)),
    ("emnist-letters", "test"): (5_200, 26, ("58c8d27c78d21e728a6bc7b3cc06412e",)),
    ("notmnist", "test"): (10_000, 10, ()),
    ("cifar10-gray", "train"): (2_000, 10, ()),
}


def there(key):
    """The paths of a split's files below the data folder, or None where they are not all there."""
    if not DATA:
        return None
    derived = Path(DATA, DERIVED.get(key, "-"))
    originals = [Path(DATA, file.path) for file in FILES[key]]
    if all(path.exists() for path in originals):
        return originals
    return [derived] if derived.exists() else None


@pytest.mark.parametrize("key", REAL, ids="-".join)
def test_real_data_have_their_counts_and_published_digests(key):
    paths = there(key)
    if paths is None:
        pytest.skip(f"{' '.join(key)} is not in the folder that VAEKIT_DATA names ({DATA})")
    count, classes, digests = REAL[key]
    if paths[0].suffix != ".npz" and digests:
        assert tuple(hashlib.md5(path.read_bytes()).hexdigest() for path in paths) == digests
    data = load(*key)
    channels, side = (3, 32) if key[0] in ("svhn", "cifar10") else (1, 28)
    assert data.images.shape == (count, channels, side, side)
    assert (data.images.min(), data.images.max()) == (0, 1)
    assert data.labels.shape == (count,)
    labels = data.labels.unique()
    assert len(labels) == classes
    assert labels.max() - labels.min() == classes - 1
    assert labels.min() == (964 if key == ("omniglot", "test") else 0)


def test_mnist_is_digits_bright_on_dark():
    if there(("mnist", "test")) is None:
        pytest.skip(f"mnist test is not in the folder that VAEKIT_DATA names ({DATA})")
    data = load("mnist", "test", n=1000)
    assert data.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    zero = data.images[data.labels == 0].mean(0)[0]
    assert zero[14, 14] < 0.15 < 0.5 < zero[14, 7:12].max()  # a ring: dark in the middle


def test_ready_made_omniglot_is_the_area_average_of_bitmaps():
    if not DATA or not (path := Path(DATA, DERIVED["omniglot", "train"])).exists():
        pytest.skip(f"{DERIVED['omniglot', 'train']} is not in the folder that VAEKIT_DATA names ({DATA})")
    with np.load(path, allow_pickle=False) as arrays:
        values = np.unique(arrays["images"])
    assert set(values) <= {np.floor(255 * k / 225 + 0.5) for k in range(226)}  # of 15 x 15 quarter pixels, k inked


def npz(folder, key, **arrays):
    path = folder / DERIVED[key]
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)
    return path


def test_ready_made_files_stand_for_originals(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28)).astype(np.uint8)
    images = torch.tensor(pixels[:, None] / 255, dtype=torch.float32)
    npz(tmp_path, ("omniglot", "train"), images=pixels, split=[1, 0, 1, 0], character=np.uint16([1000, 3, 1622, 9]))
    assert torch.equal(load("omniglot").images, images[[1, 3]])
    assert load("omniglot").labels.tolist() == [3, 9]
    assert torch.equal(load("omniglot", "test").images, images[[0, 2]])
    assert load("omniglot", "test").labels.tolist() == [1000, 1622]
    npz(tmp_path, ("emnist-letters", "test"), images=pixels, labels=np.uint8([1, 26, 2, 1]))
    assert load("emnist-letters", "test").labels.tolist() == [0, 25, 1, 0]
    for key in (("notmnist", "test"), ("cifar10-gray", "train")):
        npz(tmp_path, key, images=pixels, labels=np.uint8([0, 9, 2, 1]))
        assert torch.equal(load(*key).images, images)
        assert load(*key).labels.tolist() == [0, 9, 2, 1]


def test_pickles_and_damaged_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path))
    path = npz(tmp_path, ("notmnist", "test"), images=np.array([{}], dtype=object), labels=np.zeros(1))
    with pytest.raises(ValueError, match=r"notmnist_test10k\.npz.*allow_pickle"):
        load("notmnist", "test")
    for damaged in (path.read_bytes()[:-100], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"notmnist_test10k\.npz: cannot be read"):
            load("notmnist", "test")


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((4, 27, 28), np.uint8)},
        {"images": np.zeros((4, 784), np.uint8)},
        {"images": np.zeros((4, 28, 28, 3), np.uint8)},
        {"images": np.zeros((4, 28, 28), np.float32)},
        {"images": np.zeros((4, 28, 28), np.int64)},
        {"images": np.zeros((3, 28, 28), np.uint8)},
        {"images": np.zeros((0, 28, 28), np.uint8), "labels": np.zeros(0, np.uint8)},
        {"labels": np.zeros(5, np.uint8)},
        {"labels": np.zeros((4, 1), np.uint8)},
        {"labels": np.zeros(4)},
        {"labels": np.uint8(3)},
    ],
    ids=lambda change: " ".join(f"{k}{v.shape}{v.dtype}" for k, v in change.items()),
)
def test_ready_made_files_of_other_shapes_are_refused(tmp_path, monkeypatch, change):
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path))
    good = {"images": np.zeros((4, 28, 28), np.uint8), "labels": np.zeros(4, np.uint8)}
    for key in (("notmnist", "test"), ("emnist-letters", "test"), ("cifar10-gray", "train")):
        npz(tmp_path, key, **good | change)
        with pytest.raises(ValueError, match=rf"{key[0].partition('-')[0]}.*\.npz: .*expected (images|a whole number)"):
            load(*key)


def test_every_flipped_byte_of_a_ready_made_file_is_an_error_that_names_it_or_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path))
    path = npz(tmp_path, ("notmnist", "test"), images=np.zeros((2, 28, 28), np.uint8), labels=np.zeros(2, np.uint8))
    whole, refused = path.read_bytes(), 0
    for k in range(0, len(whole), 3):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 0xFF]) + whole[k + 1 :])
        try:
            assert load("notmnist", "test").images.shape == (2, 1, 28, 28)
        except ValueError as error:
            refused += str(path) in str(error)
    assert refused > 500


def test_digits_are_scikit_learns():
    train, test = load("digits"), load("digits", "test")
    pixels, labels = load_digits(return_X_y=True)
    assert (len(train), len(test)) == (1500, 297)
    images = torch.cat([train.images, test.images])
    assert torch.equal(images * 16, torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8))
    assert torch.cat([train.labels, test.labels]).tolist() == labels.tolist()


def test_size_surrounds_with_black():
    plain, wide = load("digits", n=7).images, load("digits", n=7, size=13).images
    assert wide.shape == (7, 1, 13, 13)
    assert torch.equal(wide[:, :, 2:10, 2:10], plain)
    assert wide.sum() == plain.sum()
    assert torch.equal(load("digits", n=7, size=8).images, plain)


def test_slices_indices_and_masks_choose_images():
    data = load("shapes", n=20, size=8)
    mask = data.factors[:, 0] == 2
    for index in (slice(3, 9), torch.tensor([5, 0]), mask):
        part = data[index]
        assert torch.equal(part.images, data.images[index])
        assert torch.equal(part.labels, data.labels[index])
        assert torch.equal(part.factors, data.factors[index])
        assert part.factor_names == data.factor_names
        assert (part.name, part.split) == ("shapes", "train")
    assert load("three-dots", n=3, size=8)[:2].labels is None
    assert load("digits", n=3)[:2].factors is None
    with pytest.raises(ValueError, match=r"data\.images\[i\]"):
        data[3]


def test_what_is_unknown_or_too_much_is_refused():
    with pytest.raises(ValueError, match=r"name: expected one of mnist, .*'imagenet'"):
        load("imagenet")
    with pytest.raises(ValueError, match=r"split: expected one of train, test for digits; got 'validation'"):
        load("digits", "validation")
    with pytest.raises(ValueError, match=r"split: expected one of train for cifar10-gray"):
        load("cifar10-gray", "test")
    with pytest.raises(ValueError, match=r"n: expected at least 1, got 0"):
        load("digits", n=0)
    with pytest.raises(ValueError, match=r"n: expected at most 297 .* got 298"):
        load("digits", "test", n=298)
    with pytest.raises(ValueError, match=r"size: expected at least 8"):
        load("digits", size=7)
    with pytest.raises(ValueError, match=r"size"):
        load("shapes", size=0)
    with pytest.raises(ValueError, match=r"seed: .*digits"):
        load("digits", seed=1)


def test_binarise_draws_each_pixel_with_its_own_probability():
    p = torch.tensor([[0.0, 0.2, 0.7, 1.0]]).expand(40_000, 4)
    drawn = binarise(p, torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert drawn.dtype == p.dtype
    sd = (p[0] * (1 - p[0]) / len(p)).sqrt()
    assert ((drawn.mean(0) - p[0]).abs() <= 4 * sd).all()
    assert torch.equal(drawn, binarise(p, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="images"):
        binarise(2 * p)


def test_every_source_is_pinned():
    algorithms = {"md5": 32, "sha256": 64}
    for (name, split), files in FILES.items():
        assert name in NAMES
        assert split in ("train", "test")
        for file in files:
            algorithm, digest = file.digest.split(":")
            assert len(bytes.fromhex(digest)) * 2 == algorithms[algorithm]
            assert all(url.startswith("http") and url.endswith(Path(file.path).name) for url in file.urls)


def test_importing_is_light():
    heavy = {"pooch", "requests", "urllib3", "sklearn", "scipy", "PIL", "tqdm"}
    for source in Path(datasets.__file__).parent.glob("*.py"):
        for node in ast.parse(source.read_text(encoding="utf-8")).body:  # inside functions they are welcome
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not heavy & {name.split(".")[0] for name in names}, source.name


@pytest.mark.parametrize("name", ["three-dots", "shapes", "rooms"])
def test_ten_thousand_are_drawn_for_training_and_two_for_testing_unless_told(monkeypatch, name):
    asked = []
    monkeypatch.setattr(datasets, "draw", lambda *arguments: asked.append(arguments))
    load(name)
    load(name, "test")
    load(name, n=1, size=1, seed=3)
    assert asked == [(name, "train", 10_000, 64, 0), (name, "test", 2_000, 64, 0), (name, "train", 1, 1, 3)]


def test_a_data_set_is_itself_and_cannot_be_changed():
    data = load("digits", n=3)
    assert data == data and data != load("digits", n=3) and {data: 1}[data] == 1
    with pytest.raises(AttributeError):
        data.images = data.images[:1]


def test_the_smallest_requests():
    assert load("digits", n=1, size=8).images.shape == (1, 1, 8, 8)
    assert len(load("digits", "test", n=297)) == 297
    wide = load("digits", n=1, size=11).images  # three more: one before, two after
    assert torch.equal(wide[:, :, 1:9, 1:9], load("digits", n=1).images) and not wide[:, :, 9:].any()
