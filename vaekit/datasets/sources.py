"""Where each original file comes from, and the digest that it must have.

The SHA-256 digests are those that TensorFlow Datasets publishes, one file per data set in
https://github.com/tensorflow/datasets/tree/333639b37af6/tensorflow_datasets/url_checksums. The MD5 digests of notMNIST
are those that the generator of CMNIST publishes, https://github.com/swenkel/cmnist. A mirror is another place for the
same bytes: the digest decides, not the address.
"""

from typing import NamedTuple

__all__ = ["DERIVED", "FILES", "File"]


class File(NamedTuple):
    """One original file."""

    path: str
    """Where it lies below a data folder or the cache, with forward slashes."""
    digest: str
    """`algorithm:hexadecimal`."""
    urls: tuple[str, ...]
    """Places that serve it, tried in this order."""


def _pair(folder: str, prefix: str, bases: tuple[str, ...], images: str, labels: str) -> tuple[File, File]:
    """The images and the labels of one split, in MNIST's format and under MNIST's names."""
    names = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
    both = zip(names, (images, labels), strict=True)
    pair = [File(f"{folder}/{name}", digest, tuple(base + name for base in bases)) for name, digest in both]
    return pair[0], pair[1]


_MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_FASHION = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
_KMNIST = ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",)
_NOTMNIST = (
    "https://github.com/davidflanagan/notMNIST-to-MNIST/raw/master/",
    "https://raw.githubusercontent.com/davidflanagan/notMNIST-to-MNIST/master/",
)
_OMNIGLOT = (
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
    "https://github.com/brendenlake/omniglot/raw/master/python/",
)
_SVHN = "http://ufldl.stanford.edu/housenumbers/"

_emnist = File(
    "emnist/gzip.zip",
    "sha256:fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
    (
        "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
        "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip",
    ),
)
_cifar = File(
    "cifar10/cifar-10-binary.tar.gz",
    "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
    ),
)

FILES: dict[tuple[str, str], tuple[File, ...]] = {
    ("mnist", "train"): _pair(
        "mnist", "train", _MNIST,
        "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    ("mnist", "test"): _pair(
        "mnist", "t10k", _MNIST,
        "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    ("fashion-mnist", "train"): _pair(
        "fashion-mnist", "train", _FASHION,
        "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    ("fashion-mnist", "test"): _pair(
        "fashion-mnist", "t10k", _FASHION,
        "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
    ("kmnist", "train"): _pair(
        "kmnist", "train", _KMNIST,
        "sha256:51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "sha256:e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
    ),
    ("kmnist", "test"): _pair(
        "kmnist", "t10k", _KMNIST,
        "sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    ),
    ("notmnist", "train"): _pair(
        "notmnist", "train", _NOTMNIST, "md5:d916d7283fce4d08db9867c640ec0042", "md5:eab59f88903339e01dac19deed3824c0"
    ),
    ("notmnist", "test"): _pair(
        "notmnist", "t10k", _NOTMNIST, "md5:2c87c839a4ef9b238846600eec8c35b7", "md5:7ea9118cbafd0f6e3ee2ad771d782a01"
    ),
    ("omniglot", "train"): (
        File(
            "omniglot/images_background.zip",
            "sha256:ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
            tuple(base + "images_background.zip" for base in _OMNIGLOT),
        ),
    ),
    ("omniglot", "test"): (
        File(
            "omniglot/images_evaluation.zip",
            "sha256:1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
            tuple(base + "images_evaluation.zip" for base in _OMNIGLOT),
        ),
    ),
    ("emnist-letters", "train"): (_emnist,),
    ("emnist-letters", "test"): (_emnist,),
    ("svhn", "train"): (
        File(
            "svhn/train_32x32.mat",
            "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            (_SVHN + "train_32x32.mat",),
        ),
    ),
    ("svhn", "test"): (
        File(
            "svhn/test_32x32.mat",
            "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
            (_SVHN + "test_32x32.mat",),
        ),
    ),
    ("cifar10", "train"): (_cifar,),
    ("cifar10", "test"): (_cifar,),
    ("cifar10-gray", "train"): (_cifar,),
}  # fmt: skip

DERIVED = {
    ("omniglot", "train"): "omniglot/omniglot_28x28.npz",
    ("omniglot", "test"): "omniglot/omniglot_28x28.npz",
    ("notmnist", "test"): "notmnist/notmnist_test10k.npz",
    ("emnist-letters", "test"): "emnist/emnist_letters_test_5200.npz",
    ("cifar10-gray", "train"): "cifar10/cifar10_gray28_2000.npz",
}
"""Small files that may stand in a data folder in place of the originals: what `load` makes of them, ready-made."""
