"""Downloads from a real server on this machine, which serves tiny files in the real formats, well and badly."""

import gzip
import hashlib
import io
import re
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from vaekit.datasets import load
from vaekit.datasets.downloads import fetch, find
from vaekit.datasets.readers import _gray
from vaekit.datasets.sources import FILES, File

BODY = np.random.default_rng(0).bytes(300_000)


def digest(body, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """Serves `server.bodies`, with what is wrong with each path in `server.faults`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body, fault = self.server.bodies.get(self.path), self.server.faults.get(self.path, {})
        asked = self.headers.get("Range")
        self.server.log.append((self.path, asked))
        if body is None or fault.get("missing"):
            return self.send_error(404)
        if fault.get("packs") and "gzip" in self.headers.get("Accept-Encoding", ""):
            body, fault = gzip.compress(body), {"says_gzip": True}
        start = 0
        if asked and not fault.get("ignores_range"):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if fault.get("says_gzip"):
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut_at = fault.get("cut_at", [])
        self.wfile.write(body[start : cut_at.pop(0) if cut_at else None])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.bodies, server.faults, server.log = {"/a": BODY, "/b": BODY}, {}, []
        server.base = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    monkeypatch.delenv("VAEKIT_DATA", raising=False)
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)


def file_at(server, *paths, body=BODY):
    return File("set/file.bin", digest(body), tuple(server.base + path for path in paths))


def get(file, tmp_path):
    return fetch(file, tmp_path, progress=False)


def assert_nothing_kept(tmp_path):
    assert not (tmp_path / "set/file.bin").exists()
    assert not (tmp_path / "set/file.bin.part").exists()


def test_a_whole_file_is_fetched_once(server, tmp_path):
    path = get(file_at(server, "/a", "/b"), tmp_path)
    assert path == tmp_path / "set/file.bin"
    assert path.read_bytes() == BODY
    assert get(file_at(server, "/a", "/b"), tmp_path) == path
    assert server.log == [("/a", None)]
    assert sorted(p.name for p in path.parent.iterdir()) == ["file.bin", "file.bin.lock"]


def test_the_progress_bar_counts_bytes(server, tmp_path, capsys):
    fetch(file_at(server, "/a"), tmp_path)
    assert "300k/300k" in capsys.readouterr().err


def test_a_cut_answer_is_continued(server, tmp_path):
    server.faults["/a"] = {"cut_at": [100_000, 200_000]}
    assert get(file_at(server, "/a"), tmp_path).read_bytes() == BODY
    assert server.log == [("/a", None), ("/a", "bytes=100000-"), ("/a", "bytes=200000-")]


def test_a_cut_answer_is_continued_at_another_mirror(server, tmp_path):
    server.faults["/a"] = {"cut_at": [100_000]}
    assert get(file_at(server, "/a", "/b"), tmp_path).read_bytes() == BODY
    assert server.log == [("/a", None), ("/b", "bytes=100000-")]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.faults["/a"] = {"cut_at": [100_000], "ignores_range": True}
    assert get(file_at(server, "/a"), tmp_path).read_bytes() == BODY
    assert len(server.log) == 2


def test_an_answer_that_is_always_cut_fails_and_the_next_call_goes_on(server, tmp_path):
    server.faults["/a"] = {"cut_at": [1000 * i for i in range(1, 6)]}
    with pytest.raises(ConnectionError, match=r"cut off after 5000"):
        get(file_at(server, "/a"), tmp_path)
    assert not (tmp_path / "set/file.bin").exists()
    assert (tmp_path / "set/file.bin.part").stat().st_size == 5000
    assert get(file_at(server, "/a"), tmp_path).read_bytes() == BODY
    assert server.log[-1] == ("/a", "bytes=5000-")


@pytest.mark.parametrize("left", [b"wrong" * 100, BODY + b"more"], ids=["wrong", "too long"])
def test_a_bad_remainder_of_another_day_does_no_harm(server, tmp_path, left):
    part = tmp_path / "set/file.bin.part"
    part.parent.mkdir()
    part.write_bytes(left)
    assert get(file_at(server, "/a"), tmp_path).read_bytes() == BODY
    assert not part.exists()


def test_a_wrong_file_is_refused_and_not_kept(server, tmp_path):
    server.bodies["/a"] = BODY[:-1] + b"?"
    with pytest.raises(ConnectionError, match="not the file with sha256"):
        get(file_at(server, "/a"), tmp_path)
    assert_nothing_kept(tmp_path)
    assert len(server.log) == 1


def test_a_wrong_file_is_replaced_by_the_next_mirrors(server, tmp_path):
    server.bodies["/a"] = b"<html>Please log in to the network</html>"
    assert get(file_at(server, "/a", "/b"), tmp_path).read_bytes() == BODY


def test_a_wrong_beginning_from_one_mirror_does_not_spoil_the_other(server, tmp_path):
    server.bodies["/a"] = b"?" * len(BODY)
    server.faults["/a"] = {"cut_at": [100_000]}
    assert get(file_at(server, "/a", "/b"), tmp_path).read_bytes() == BODY


def test_a_file_that_went_bad_in_the_cache_is_replaced(server, tmp_path):
    path = get(file_at(server, "/a"), tmp_path)
    path.write_bytes(BODY[:1000])
    assert get(file_at(server, "/a"), tmp_path).read_bytes() == BODY
    path.write_bytes(BODY[:1000])
    server.faults["/a"] = {"missing": True}
    with pytest.raises(ConnectionError):
        get(file_at(server, "/a"), tmp_path)
    assert_nothing_kept(tmp_path)


def test_first_mirror_down_or_without_the_file(server, tmp_path):
    closed = File("set/file.bin", digest(BODY), ("http://127.0.0.1:9/a", f"{server.base}/none", f"{server.base}/b"))
    assert get(closed, tmp_path).read_bytes() == BODY
    assert server.log == [("/none", None), ("/b", None)]


def test_bytes_are_kept_as_they_are_where_a_server_calls_them_packed(server, tmp_path):
    body = gzip.compress(BODY)
    server.bodies["/a"], server.faults["/a"] = body, {"says_gzip": True}
    assert get(file_at(server, "/a", body=body), tmp_path).read_bytes() == body


def test_no_server_is_asked_to_pack_what_it_sends(server, tmp_path):
    server.faults["/a"] = {"packs": True}
    assert get(file_at(server, "/a"), tmp_path).read_bytes() == BODY


def test_without_network_the_error_says_which_file_goes_where(tmp_path):
    file = File("set/file.bin", digest(BODY), ("http://127.0.0.1:9/a", "http://127.0.0.1:9/b"))
    with pytest.raises(ConnectionError) as raised:
        get(file, tmp_path)
    for word in (str(tmp_path / "set/file.bin"), "VAEKIT_DATA", *file.urls, file.digest):
        assert word in str(raised.value)
    assert_nothing_kept(tmp_path)


def test_a_read_only_folder_is_a_plain_error(server, tmp_path):
    (tmp_path / "set").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="set"):
        get(file_at(server, "/a"), tmp_path)
    assert server.log == []


def test_two_at_once_take_turns(server, tmp_path):
    with ThreadPoolExecutor() as pool:  # the lock is between open files, so threads meet it as processes do
        paths = list(pool.map(get, [file_at(server, "/a")] * 4, [tmp_path] * 4))
    assert [path.read_bytes() == BODY for path in paths] == [True] * 4
    assert server.log == [("/a", None)]


def test_the_data_folder_comes_first_and_is_checked(server, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    (folder / "set").mkdir(parents=True)
    monkeypatch.setenv("VAEKIT_DATA", str(folder))
    file = file_at(server, "/a")
    (folder / file.path).write_bytes(BODY)
    assert find(file) == folder / file.path
    assert server.log == []
    (folder / file.path).write_bytes(BODY[:-1])
    with pytest.raises(ValueError, match=r"file\.bin: expected sha256"):
        find(file)
    assert (folder / file.path).exists()  # it is the user's
    (folder / file.path).unlink()
    assert find(file, progress=False) == tmp_path / "cache" / file.path
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="nowhere"):
        find(file)


# --- tiny files in the real formats -----------------------------------------------------------------------------------

rng = np.random.default_rng(1)


def idx(array):
    """The IDX format of Y. LeCun: the header spelled out, then the bytes."""
    sizes = b"".join(int(s).to_bytes(4, "big") for s in array.shape)
    return gzip.compress(b"\x00\x00\x08" + bytes([array.ndim]) + sizes + array.astype(np.uint8).tobytes())


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return out.getvalue()


def serve(server, monkeypatch, name, split, *bodies):
    """Put bodies on the server and the pinned table, under the real relative paths."""
    files = []
    for i, (file, body) in enumerate(zip(FILES[name, split], bodies, strict=True)):
        server.bodies[f"/{i}"] = body
        files.append(File(file.path, digest(body, "md5" if i else "sha256"), (f"{server.base}/{i}",)))
    monkeypatch.setitem(FILES, (name, split), tuple(files))


def assert_images(data, expected):
    """Exactly these bytes, divided by 255."""
    assert data.images.dtype == torch.float32
    assert torch.equal(data.images, torch.tensor(expected / 255, dtype=torch.float32))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "notmnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_idx_pairs(server, monkeypatch, name, split):
    pixels, labels = rng.integers(0, 256, (5, 28, 28)), rng.integers(0, 10, 5)
    serve(server, monkeypatch, name, split, idx(pixels), idx(labels))
    data = load(name, split, progress=False)
    assert_images(data, pixels[:, None])
    assert data.labels.tolist() == labels.tolist()
    assert data.labels.dtype == torch.int64
    assert (data.name, data.split, len(data)) == (name, split, 5)


def omniglot_zip(folder, drawings):
    """PNGs of one bit, ink black, in the folders of the original; a foreign file beside them."""
    members = {f"{folder}/": b"", "__MACOSX/x.png": b"no image"}
    for (alphabet, character, drawer), ink in drawings.items():
        out = io.BytesIO()
        Image.fromarray(~ink).convert("1").save(out, "png")
        members[f"{folder}/{alphabet}/character{character:02}/0001_{drawer:02}.png"] = out.getvalue()
    return zipped(members)


@pytest.mark.parametrize(
    ("split", "folder", "first"), [("train", "images_background", 0), ("test", "images_evaluation", 964)]
)
def test_omniglot(server, monkeypatch, split, folder, first):
    keys = [("B_(x)", 1, 1), ("A", 2, 1), ("A", 1, 2), ("A", 1, 1)]
    drawings = {key: rng.random((105, 105)) < 0.2 for key in keys}
    serve(server, monkeypatch, "omniglot", split, omniglot_zip(folder, drawings))
    data = load("omniglot", split, progress=False)
    assert data.labels.tolist() == [first, first, first + 1, first + 2]
    for image, key in zip(data.images, sorted(drawings), strict=True):
        area = np.kron(drawings[key], np.ones((4, 4))).reshape(28, 15, 28, 15).mean((1, 3))
        assert torch.equal(image[0], torch.tensor(np.floor(255 * area + 0.5) / 255, dtype=torch.float32))


@pytest.mark.parametrize(("split", "step"), [("train", 1), ("test", 4)])
def test_emnist_letters(server, monkeypatch, split, step):
    upright, labels = rng.integers(0, 256, (9, 28, 28)), rng.integers(1, 27, 9)
    members = {
        f"gzip/emnist-letters-{split}-images-idx3-ubyte.gz": idx(upright.transpose(0, 2, 1)),
        f"gzip/emnist-letters-{split}-labels-idx1-ubyte.gz": idx(labels),
        f"gzip/emnist-digits-{split}-images-idx3-ubyte.gz": b"not to be read",
        "../../escape": b"not to be extracted",
    }
    serve(server, monkeypatch, "emnist-letters", split, zipped(members))
    data = load("emnist-letters", split, progress=False)
    assert_images(data, upright[::step, None])
    assert data.labels.tolist() == (labels[::step] - 1).tolist()


@pytest.mark.parametrize("split", ["train", "test"])
def test_svhn(server, monkeypatch, split):
    pixels, digits = rng.integers(0, 256, (3, 3, 32, 32)), np.array([0, 9, 1])
    out = io.BytesIO()
    stored = {"X": pixels.transpose(2, 3, 1, 0).astype(np.uint8), "y": np.where(digits == 0, 10, digits)[:, None]}
    savemat(out, stored, do_compression=True)
    serve(server, monkeypatch, "svhn", split, out.getvalue())
    data = load("svhn", split, progress=False)
    assert_images(data, pixels)
    assert data.labels.tolist() == digits.tolist()


def cifar_tar(records):
    """{member: (pixels [N, 3, 32, 32], labels [N])} in the binary version."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, (pixels, labels) in records.items():
            body = b"".join(bytes([y]) + x.astype(np.uint8).tobytes() for x, y in zip(pixels, labels, strict=True))
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


@pytest.mark.parametrize("name", ["cifar10", "cifar10-gray"])
def test_cifar10(server, monkeypatch, name):
    names = ["data_batch_2.bin", "test_batch.bin", *(f"data_batch_{i}.bin" for i in (1, 3, 4, 5))]  # in no order
    records = {n: (rng.integers(0, 256, (2, 3, 32, 32)), rng.integers(0, 10, 2)) for n in names}
    body = cifar_tar(records)
    serve(server, monkeypatch, name, "train", body)
    data = load(name, progress=False)
    ordered = [records[f"data_batch_{i}.bin"] for i in range(1, 6)]
    pixels = np.concatenate([r[0] for r in ordered])
    assert data.labels.tolist() == np.concatenate([r[1] for r in ordered]).tolist()
    if name == "cifar10":
        assert_images(data, pixels)
        serve(server, monkeypatch, name, "test", body)
        assert_images(load(name, "test", progress=False), records["test_batch.bin"][0])
    else:
        luma = 0.299 * pixels[:, 0] + 0.587 * pixels[:, 1] + 0.114 * pixels[:, 2]
        assert_images(data, np.rint(luma)[:, None, 2:30, 2:30])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"no gzip at all", id="not gzip"),
        pytest.param(idx(np.zeros((2, 28, 28)))[:-12], id="gzip cut off"),
        pytest.param(gzip.compress(gzip.decompress(idx(np.zeros((2, 28, 28))))[:-1]), id="a byte short"),
        pytest.param(idx(np.zeros(5)), id="labels for images"),
    ],
)
def test_unreadable_files_are_named(server, monkeypatch, body):
    serve(server, monkeypatch, "mnist", "train", body, idx(np.zeros(2)))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: cannot be read"):
        load("mnist", progress=False)


@pytest.mark.parametrize(
    ("name", "body"),
    [("omniglot", zipped({})), ("emnist-letters", zipped({})), ("svhn", b"no matlab"), ("cifar10", cifar_tar({}))],
    ids=["omniglot", "emnist-letters", "svhn", "cifar10"],
)
def test_archives_without_the_members_are_named(server, monkeypatch, name, body):
    serve(server, monkeypatch, name, "train", body)
    with pytest.raises(ValueError, match="cannot be read"):
        load(name, progress=False)


def test_two_thousand_images_turn_grey():
    pixels = rng.integers(0, 256, (2003, 3, 32, 32)).astype(np.uint8)
    grey, labels = _gray(pixels, np.arange(2003))
    assert grey.shape == (2000, 1, 28, 28) and labels.tolist() == list(range(2000))
    luma = np.array([0.299, 0.587, 0.114]) @ pixels[1999, :, 2, 29]
    assert grey[1999, 0, 0, 27] == np.rint(luma)
