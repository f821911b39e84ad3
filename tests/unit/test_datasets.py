"""Datasets: found by name or path, read strictly, decoded once, equal to the scoring side's."""

from __future__ import annotations

import gzip
import http.server
import struct
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import md5
from pathlib import Path

import datafiles
import numpy as np
import pytest
import torch
from datafiles import colour, idx_images, idx_labels
from numpy.typing import NDArray
from PIL import Image
from referee import GREY

from decloud_trainer.errors import DatasetUnavailable, TrainingError
from decloud_trainer.training.classifier_task import check_labels, normalise
from decloud_trainer.training.data import datasets
from decloud_trainer.training.data.datasets import find_format, load, prepare
from decloud_trainer.training.data.decoded import resize
from decloud_trainer.training.data.published import CLASSES
from decloud_trainer.training.data.transfer import Patience
from decloud_trainer.training.scoring import scoring_batches
from decloud_trainer.training.spec import DataSpec

# Tries as often, without waiting.
HASTY = Patience(sleep=lambda _: None)


def made(count: int, side: int = 28, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, side, side), dtype=np.uint8)
    return images, (np.arange(count) % 10).astype(np.uint8)


def write_family(folder: Path, names: str = "{}-{}-idx{}-ubyte", zipped: bool = False) -> Path:
    """A folder of the MNIST family: 20 training and 10 test images."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", 20), ("t10k", 10)):
        images, labels = made(count, seed=count)
        for what, dimensions, content in (
            ("images", 3, idx_images(images)),
            ("labels", 1, idx_labels(labels)),
        ):
            name = names.format(prefix, what, dimensions)
            data = gzip.compress(content, mtime=0) if zipped else content
            (folder / (name + ".gz" * zipped)).write_bytes(data)
    return folder


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.mark.parametrize("side", [28, 8, 32])
def test_preprocessing_equals_torchvisions_to_the_bit(side: int) -> None:
    """Our whole-batch route gives exactly what the scoring side's transforms give per image."""
    images, _ = made(60, side)
    images[0], images[1] = 0, 255
    expected = torch.stack([GREY(Image.fromarray(image)) for image in images])
    grey = torch.from_numpy(np.array(resize(images)))
    for memory_format in (torch.contiguous_format, torch.channels_last):
        found = normalise(grey, memory_format)
        assert found.is_contiguous(memory_format=memory_format)
        assert torch.equal(found, expected)


def test_digits_come_with_the_package(data_dir: Path) -> None:
    """`digits` needs no download and no path: 1,347 images to train on, 450 held out."""
    info = prepare(DataSpec("Digits", None, data_dir))
    assert (info.train, info.test, info.classes) == (1347, 450, 10)
    dataset = load(DataSpec("digits", None, data_dir))
    assert len(dataset.split("train")) == 1347
    inputs, labels = next(scoring_batches(dataset.split("test")))
    assert inputs.shape == (64, 3, 32, 32)
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("where", ["", "raw", "MNIST/raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("names", ["{}-{}-idx{}-ubyte", "{}-{}.idx{}-ubyte"])
def test_idx_files_are_found_under_all_their_names(
    tmp_path: Path, data_dir: Path, where: str, zipped: bool, names: str
) -> None:
    """Plain or gzipped, with either spelling, in the folder or where torchvision puts them."""
    write_family(tmp_path / "mine" / where, names, zipped)
    dataset = load(DataSpec("fashion_mnist", tmp_path / "mine", data_dir))
    images, labels = made(20, seed=20)
    assert np.array_equal(dataset.split("train").inputs, resize(images))
    assert np.array_equal(dataset.split("train").labels, labels)
    assert len(dataset.split("test")) == 10


def test_what_a_folder_holds_is_recognised(tmp_path: Path) -> None:
    """`find_format` tells format, samples, classes and size without decoding."""
    found = find_format(write_family(tmp_path / "mine", zipped=True))
    assert (found.format, found.train, found.test) == ("idx", 20, 10)
    assert (found.classes, found.side) == (10, 28)
    with pytest.raises(
        DatasetUnavailable, match=r"Dataset not found.*holds no MNIST-family IDX files, CIFAR"
    ):
        find_format(tmp_path)
    with pytest.raises(DatasetUnavailable, match="Dataset not found"):
        find_format(tmp_path / "absent")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_data_says_how_to_add_it(tmp_path: Path, data_dir: Path, name: str) -> None:
    """Data that isn't here is called "not found", with the command that names a folder."""
    for path in (None, tmp_path):
        with pytest.raises(DatasetUnavailable, match="Dataset not found") as caught:
            load(DataSpec(name, path, data_dir))
        assert f"decloud-trainer config --add-path {name}:" in caught.value.hint


def test_a_missing_split_is_named(tmp_path: Path, data_dir: Path) -> None:
    """A folder with training files alone can be trained on, and says so when it should score."""
    folder = write_family(tmp_path / "mine")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    dataset = load(DataSpec("mnist", folder, data_dir))
    assert (dataset.info.train, dataset.info.test) == (20, 0)
    with pytest.raises(DatasetUnavailable, match="mnist has no test split") as caught:
        dataset.split("test")
    assert "t10k" in caught.value.hint


IMAGES, LABELS = made(20)
DAMAGED = {
    "empty": ("images", b""),
    "other magic": ("images", b"\x00\x00\x0d\x03" + idx_images(IMAGES)[4:]),
    "labels in place of images": ("images", idx_labels(LABELS)),
    "short header": ("images", idx_images(IMAGES)[:9]),
    "cut off": ("images", idx_images(IMAGES)[:-1]),
    "too long": ("images", idx_images(IMAGES) + b"x"),
    "nothing inside": ("labels", idx_labels(LABELS[:0])),
    "other count": ("labels", idx_labels(LABELS[:19])),
    "not square": ("images", idx_images(IMAGES[:, :20])),
    "too large": ("images", idx_images(np.zeros((1, 600, 600), np.uint8))),
    "huge claim": ("images", struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 28, 28) + bytes(100)),
    "large claim": ("images", struct.pack(">4B3I", 0, 0, 8, 3, 10**6, 28, 28) + bytes(100)),
    "label beyond": ("labels", idx_labels(LABELS + 1)),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_refused(tmp_path: Path, data_dir: Path, kind: str, zipped: bool) -> None:
    """Every file that isn't exactly what its header says is refused, and none is believed."""
    folder = write_family(tmp_path / "mine", zipped=zipped)
    what, content = DAMAGED[kind]
    name = {"images": "train-images-idx3-ubyte", "labels": "train-labels-idx1-ubyte"}[what]
    data = gzip.compress(content) if zipped else content
    (folder / (name + ".gz" * zipped)).write_bytes(data)
    with pytest.raises(DatasetUnavailable, match=r"no usable (IDX file|file of mnist)"):
        load(DataSpec("mnist", folder, data_dir))


def test_a_damaged_gzip_file_is_refused(tmp_path: Path, data_dir: Path) -> None:
    """Neither half a gzip file nor a web page with that name passes."""
    folder = write_family(tmp_path / "mine", zipped=True)
    file = folder / "train-images-idx3-ubyte.gz"
    for content in (file.read_bytes()[:-20], b"<html>not here</html>"):
        file.write_bytes(content)
        with pytest.raises(DatasetUnavailable, match="damaged"):
            load(DataSpec("mnist", folder, data_dir))


def test_labels_must_fit_the_models_head(data_dir: Path) -> None:
    """Ten digits don't fit a head of five."""
    samples = load(DataSpec("digits", None, data_dir)).split("train")
    check_labels(samples, 10, "digits")
    with pytest.raises(TrainingError, match=r"label 9.*only 5 classes"):
        check_labels(samples, 5, "digits")


def test_decoding_happens_once_and_follows_the_content(tmp_path: Path, data_dir: Path) -> None:
    """The cache is reused for equal content, made anew for other content or when damaged."""
    folder = write_family(tmp_path / "mine")
    spec = DataSpec("mnist", folder, data_dir)
    first = load(spec)
    array = next(data_dir.glob("decoded/*-train-inputs.npy"))
    written = array.stat().st_mtime_ns
    assert load(spec).info == first.info
    assert array.stat().st_mtime_ns == written

    array.write_bytes(array.read_bytes()[:1000])
    assert np.array_equal(load(spec).split("train").inputs, resize(made(20, seed=20)[0]))

    (folder / "train-images-idx3-ubyte").write_bytes(idx_images(made(20, seed=99)[0]))
    changed = load(spec)
    assert changed.info.fingerprint != first.info.fingerprint
    assert np.array_equal(changed.split("train").inputs, resize(made(20, seed=99)[0]))


def test_samples_cannot_be_changed_through_a_mapping(data_dir: Path) -> None:
    """Writing to mapped samples stays private: the shared cache keeps its content."""
    spec = DataSpec("digits", None, data_dir)
    load(spec).split("train").inputs[0] = 7
    assert load(spec).split("train").inputs[0].max() != 7


def test_parallel_preparations_are_safe(tmp_path: Path, data_dir: Path) -> None:
    """Several at once end with the same, whole dataset."""
    spec = DataSpec("mnist", write_family(tmp_path / "mine"), data_dir)
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: prepare(spec), range(6)))
    assert len({info.fingerprint for info in results}) == 1
    assert not list(data_dir.glob("decoded/.*.tmp"))


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """A loopback mirror with published files in their true form, only smaller."""
    folder = write_family(tmp_path / "mirror", zipped=True)
    datafiles.packed(datafiles.write_cifar10(tmp_path), folder / "cifar-10-python.tar.gz")
    datafiles.packed(datafiles.write_cifar100(tmp_path), folder / "cifar-100-python.tar.gz")
    for name, count in (("train", 12), ("test", 5)):
        (folder / f"{name}_32x32.mat").write_bytes(datafiles.svhn_file(*colour(count)))
    with zipfile.ZipFile(folder / "gzip.zip", "w") as packed:
        for kind, prefix in (("balanced", "train"), ("balanced", "test"), ("digits", "train")):
            images, labels = made(30 if kind == "balanced" else 9)
            balanced = f"gzip/emnist-{kind}-{prefix}"
            labels = labels + 37
            packed.writestr(f"{balanced}-images-idx3-ubyte.gz", gzip.compress(idx_images(images)))
            packed.writestr(f"{balanced}-labels-idx1-ubyte.gz", gzip.compress(idx_labels(labels)))
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_torchvisions_download_is_used_once(
    tmp_path: Path, data_dir: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`prepare` downloads through torchvision; afterwards no network is needed."""
    import torchvision

    maker = torchvision.datasets.FashionMNIST
    names = [name for name, _ in maker.resources]
    sums = [md5((tmp_path / "mirror" / name).read_bytes()).hexdigest() for name in names]
    monkeypatch.setattr(maker, "resources", list(zip(names, sums, strict=True)))
    monkeypatch.setattr(maker, "mirrors", [mirror])
    spec = DataSpec("fashionmnist", None, data_dir)
    with pytest.raises(DatasetUnavailable, match="was not downloaded"):
        load(spec)
    info = prepare(spec)
    assert (info.train, info.test) == (20, 10)
    monkeypatch.setattr(maker, "mirrors", ["http://127.0.0.1:9/"])
    assert prepare(spec) == info == load(spec).info


def known_here(folder: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's addresses and checksums, those of the mirror."""
    from torchvision.datasets import CIFAR10, CIFAR100, EMNIST, KMNIST, SVHN

    def digest(name: str) -> str:
        return md5((folder / name).read_bytes()).hexdigest()

    for maker in (CIFAR10, CIFAR100):
        monkeypatch.setattr(maker, "url", mirror + maker.filename)
        monkeypatch.setattr(maker, "tgz_md5", digest(maker.filename))
    monkeypatch.setattr(EMNIST, "url", f"{mirror}gzip.zip")
    monkeypatch.setattr(EMNIST, "md5", digest("gzip.zip"))
    monkeypatch.setattr(KMNIST, "mirrors", [mirror])
    names = [name for name, _ in KMNIST.resources]
    monkeypatch.setattr(KMNIST, "resources", [(name, digest(name)) for name in names])
    mats = {
        split: [mirror + row[1], row[1], digest(row[1]) if split != "extra" else ""]
        for split, row in SVHN.split_list.items()
    }
    monkeypatch.setattr(SVHN, "split_list", mats)


@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [
        ("cifar10", 20, 4, 10),
        ("cifar100", 20, 10, 100),
        ("kmnist", 20, 10, 10),
        ("emnist", 30, 30, 47),
        ("svhn", 12, 5, 10),
    ],
)
def test_every_published_dataset_is_downloaded(
    tmp_path: Path,
    data_dir: Path,
    mirror: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    train: int,
    test: int,
    classes: int,
) -> None:
    """Fetched in its published form, checked, unpacked; then no network is needed."""
    known_here(tmp_path / "mirror", mirror, monkeypatch)
    info = prepare(DataSpec(name, None, data_dir))
    assert (info.train, info.test, info.classes) == (train, test, classes)
    assert load(DataSpec(name, None, data_dir)).info == info
    assert not list(data_dir.rglob(".part"))
    # What torchvision keeps of it serves as the user's own folder, too.
    assert load(DataSpec(name, data_dir / "downloads", tmp_path / "other")).info == info


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("emnist", "gzip.zip"),
        ("svhn", "test_32x32.mat"),
    ],
)
def test_a_download_that_is_not_the_published_one_is_refused(
    tmp_path: Path,
    data_dir: Path,
    mirror: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    file: str,
) -> None:
    """A wrong checksum leaves nothing behind; the next try starts anew and succeeds."""
    known_here(tmp_path / "mirror", mirror, monkeypatch)
    published = tmp_path / "mirror" / file
    whole = published.read_bytes()
    published.write_bytes(whole[:-1])
    spec = DataSpec(name, None, data_dir)
    with pytest.raises(DatasetUnavailable, match="its checksum is not the published one"):
        prepare(spec, patience=HASTY)
    with pytest.raises(DatasetUnavailable, match="was not downloaded"):
        load(spec)
    published.write_bytes(whole)
    assert prepare(spec).train


def test_a_published_archive_that_is_none_says_what_to_do(
    tmp_path: Path, data_dir: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the right checksum, and unreadable all the same."""
    (tmp_path / "mirror" / "gzip.zip").write_bytes(b"PK nothing")
    known_here(tmp_path / "mirror", mirror, monkeypatch)
    with pytest.raises(DatasetUnavailable, match=r"gzip\.zip is no usable archive") as caught:
        prepare(DataSpec("emnist", None, data_dir), patience=HASTY)
    assert "--add-path emnist:" in caught.value.hint


def test_a_failed_download_is_our_error(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers: the message says what, and how to use files of one's own."""
    import torchvision

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DatasetUnavailable, match=r"ubyte\.gz could not be.*refused") as caught:
        prepare(DataSpec("mnist", None, data_dir), patience=HASTY)
    assert "--add-path mnist:" in caught.value.hint


@pytest.mark.parametrize("failure", [ImportError("no"), RuntimeError("torchvision::nms")])
def test_a_torchvision_that_does_not_fit_torch_is_our_error(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """A torchvision that breaks on import is explained, whichever way it breaks."""

    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torchvision":
                raise failure

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(DatasetUnavailable, match="needs torchvision") as caught:
        prepare(DataSpec("mnist", None, data_dir))
    assert "torchvision release" in caught.value.hint


def test_the_classes_of_unnamed_data_are_counted(tmp_path: Path, data_dir: Path) -> None:
    """Under a name of the user's own, the files say how many classes there are."""
    folder = write_family(tmp_path / "mine")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_labels(made(20)[1] + 3))
    assert load(DataSpec("letters", folder, data_dir)).info.classes == 13
    assert CLASSES["mnist"] == 10


def test_a_test_split_that_is_not_here_is_no_error(
    tmp_path: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For a preview: the test split, or nothing where it isn't known; nothing is downloaded."""
    folder = write_family(tmp_path / "mine")
    found = datasets.load_test(DataSpec("mnist", folder, data_dir))
    assert found is not None
    assert len(found.split("test")) == 10
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert datasets.load_test(DataSpec("mnist", folder, data_dir)) is None
    assert datasets.load_test(DataSpec("cifar10", None, data_dir)) is None
    assert "cifar10 isn't here: no score on it can be previewed" in caplog.text
    (folder / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DatasetUnavailable, match="no usable IDX file"):
        datasets.load_test(DataSpec("mnist", folder, data_dir))
