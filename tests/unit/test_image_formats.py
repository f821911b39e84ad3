"""Images in every format: read as published, bit for bit as the scoring side sees them, bounded."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import datafiles
import numpy as np
import pytest
import torch
from datafiles import colour
from PIL import Image

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data import cifar, folders
from decloud_trainer.training.data.datasets import find_format, load
from decloud_trainer.training.scoring import scoring_batches
from decloud_trainer.training.spec import DataSpec


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def split_of(path: Path, data_dir: Path, which: str = "train", name: str = "mine") -> Any:
    return load(DataSpec(name, path, data_dir)).split(which)


# --- CIFAR ----------------------------------------------------------------------------------


@pytest.mark.parametrize("deeper", ["", "cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_cifar_is_found_extracted_and_packed(tmp_path: Path, data_dir: Path, deeper: str) -> None:
    """The folder, the one above it, and the archive: all give the same samples."""
    place = datafiles.write_cifar10(tmp_path / "made")
    mine = tmp_path / "mine"
    mine.mkdir()
    datafiles.packed(place, mine / "cifar-10-python.tar.gz")
    if not deeper.endswith(".gz"):
        (mine / "cifar-10-python.tar.gz").unlink()
        place.rename(mine / place.name)
    found = find_format(mine / deeper)
    assert (found.format, found.train, found.test, found.classes) == ("cifar", 20, 4, 4)
    assert found.inputs == "images of 32x32 in colour"
    samples = split_of(mine / deeper, data_dir)
    expected = [colour(4, number) for number in range(5)]
    assert np.array_equal(samples.inputs, np.concatenate([images for images, _ in expected]))
    assert np.array_equal(samples.labels, np.concatenate([labels for _, labels in expected]))


def test_of_two_datasets_the_named_one_is_taken(tmp_path: Path, data_dir: Path) -> None:
    """Beside CIFAR-10, CIFAR-100 is found by its name, with its fine labels."""
    datafiles.write_cifar10(tmp_path / "mine")
    datafiles.write_cifar100(tmp_path / "mine")
    hundred = load(DataSpec("cifar-100", tmp_path / "mine", data_dir))
    assert (hundred.info.train, hundred.info.test, hundred.info.classes) == (20, 10, 100)
    assert hundred.split("test").labels[0] == 90
    assert load(DataSpec("cifar10", tmp_path / "mine", data_dir)).info.classes == 10


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_saved_anew_is_read_too(protocol: int) -> None:
    """Batches that Python 3 wrote, in its several protocols."""
    images, labels = colour(7)
    batch = datafiles.batch_of_python_3(images, labels, "labels", protocol)
    found, numbers = cifar.read_batch(batch, "labels")
    assert np.array_equal(found, datafiles.rows(images))
    assert numbers.tolist() == labels.tolist()


def test_our_batches_are_true_pickles() -> None:
    """The test's own files are what Python itself would read from a published batch."""
    images, labels = colour(5)
    batch = pickle.loads(datafiles.batch_of_python_2(images, labels, "labels"), encoding="latin1")
    assert np.array_equal(batch["data"], datafiles.rows(images))
    assert batch["labels"] == labels.tolist()


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_the_binary_version_is_read(tmp_path: Path, data_dir: Path, label_bytes: int) -> None:
    """One label byte in CIFAR-10; in CIFAR-100 the second one is the class."""
    images, labels = colour(6)
    lead = np.full((6, label_bytes), 77, dtype=np.uint8)
    lead[:, -1] = labels
    records = np.concatenate([lead, datafiles.rows(images)], axis=1).tobytes()
    names = {1: [f"data_batch_{n}.bin" for n in range(1, 6)], 2: ["train.bin"]}[label_bytes]
    place = tmp_path / ("cifar-10-batches-bin" if label_bytes == 1 else "cifar-100-binary")
    place.mkdir()
    for name in names:
        (place / name).write_bytes(records)
    samples = split_of(place, data_dir)
    assert np.array_equal(samples.inputs[:6], images)
    assert samples.labels.tolist() == labels.tolist() * len(names)
    (place / names[0]).write_bytes(records[:-1])
    with pytest.raises(DatasetUnavailable, match="no records of"):
        find_format(place)


class Run:
    """Its pickle would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('ran')",))


GOOD = datafiles.batch_of_python_2(*colour(4), "labels")
HOSTILE = {
    "code": (pickle.dumps({"data": Run(), "labels": []}, protocol=2), "asks for"),
    "new code": (pickle.dumps({"data": Run(), "labels": []}, protocol=4), "asks for"),
    "object": (b"\x80\x02cnumpy\nndarray\n)\x81.", "uses NEWOBJ"),
    "cut off": (GOOD[:-2000], "CIFAR batch"),
    "nothing": (b"", "CIFAR batch"),
    "a page": (b"<html>no</html>", "CIFAR batch"),
    "huge string": (b"\x80\x02T\xff\xff\xff\x7fabc.", "CIFAR batch"),
    "huge memo": (b"\x80\x02}r\xff\xff\xff\x7f.", "lacks 'data'"),
    "other labels": (datafiles.batch_of_python_2(*colour(4), "fine"), "lacks 'labels'"),
    "fewer labels": (
        datafiles.batch_of_python_2(colour(4)[0], colour(3)[1], "labels"),
        "3 labels for 4",
    ),
    "negative": (datafiles.batch_of_python_2(colour(4)[0], colour(4)[1] - 1, "labels"), "numbers"),
    "floats": (
        pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]}, protocol=2),
        "not bytes",
    ),
    "shape": (
        pickle.dumps({"data": np.zeros((2, 1536), np.uint8), "labels": [1]}, protocol=2),
        "shape",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_batch_is_never_unpickled(tmp_path: Path, kind: str) -> None:
    """Code is named and not run; damage and false claims are refused."""
    content, message = HOSTILE[kind]
    place = datafiles.write_cifar10(tmp_path)
    (place / "data_batch_3").write_bytes(content)
    with pytest.raises(DatasetUnavailable, match=message):
        find_format(place)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    """Four of five batches are not quietly taken for all."""
    place = datafiles.write_cifar10(tmp_path)
    (place / "data_batch_4").unlink()
    with pytest.raises(DatasetUnavailable, match="lacks data_batch_4"):
        find_format(place)


def test_archives_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an archive, one without the batches, and one that unpacks to too much are refused."""
    archive = tmp_path / "cifar-10-python.tar.gz"
    datafiles.packed(datafiles.write_cifar10(tmp_path / "made"), archive)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetUnavailable, match="damaged"):
        find_format(tmp_path)
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"short"))
    with pytest.raises(DatasetUnavailable, match="lacks cifar-10-batches-py/data_batch_1"):
        find_format(tmp_path)
    archive.write_bytes(whole)
    monkeypatch.setattr(cifar, "MAX_ARCHIVE_BYTES", 20_000)
    with pytest.raises(DatasetUnavailable, match="unpacks to over"):
        find_format(tmp_path)


# --- SVHN -----------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_svhn_is_read_without_scipy(tmp_path: Path, data_dir: Path, zipped: bool) -> None:
    """Images in their order of axes; the digit called 10 is class 0."""
    for name, count in (("train", 12), ("test", 5)):
        content = datafiles.svhn_file(*colour(count, count), zipped)
        (tmp_path / f"{name}_32x32.mat").write_bytes(content)
    found = find_format(tmp_path)
    assert (found.format, found.train, found.test, found.classes) == ("mat", 12, 5, 10)
    samples = split_of(tmp_path, data_dir, name="svhn")
    images, labels = colour(12, 12)
    assert np.array_equal(samples.inputs, images)
    assert samples.labels.tolist() == labels.tolist()


SVHN = datafiles.svhn_file(*colour(12))
PLAIN = datafiles.svhn_file(*colour(12), zipped=False)
X = datafiles.mat_variable("X", (32, 32, 3, 12), bytes(36864))
BAD_MAT = {
    "nothing": b"",
    "a page": b"<html>not here</html>" * 20,
    "cut off": SVHN[:-3],
    "cut inside": PLAIN[:20_000],
    "no labels": datafiles.MAT_HEADER + X,
    "labels": datafiles.MAT_HEADER + X + datafiles.mat_variable("y", (11, 1), bytes(11)),
    "label values": datafiles.MAT_HEADER + X + datafiles.mat_variable("y", (12, 1), b"\x63" * 12),
    "no images": datafiles.MAT_HEADER + datafiles.mat_variable("X", (32, 32), bytes(1024)),
    "huge": datafiles.MAT_HEADER
    + datafiles.mat_variable("X", (32, 32, 3, 2**30), bytes(9))
    + datafiles.mat_variable("y", (2**30, 1), bytes(9)),
    "damaged": SVHN[:200] + bytes(99) + SVHN[299:],
}


@pytest.mark.parametrize("kind", BAD_MAT)
def test_a_damaged_mat_file_is_refused(tmp_path: Path, data_dir: Path, kind: str) -> None:
    """Neither damage nor claimed sizes pass."""
    (tmp_path / "train_32x32.mat").write_bytes(BAD_MAT[kind])
    with pytest.raises(DatasetUnavailable, match="no usable SVHN file"):
        split_of(tmp_path, data_dir)


# --- arrays ---------------------------------------------------------------------------------


def test_arrays_are_found_under_their_usual_names(tmp_path: Path, data_dir: Path) -> None:
    """One .npz as Keras and MedMNIST have it, one per split, and pairs of .npy."""
    images, labels = colour(6, side=28)
    grey = images[..., 0]
    (tmp_path / "one").mkdir()
    np.savez_compressed(
        tmp_path / "one" / "mnist.npz", x_train=grey, y_train=labels, x_test=grey, y_test=labels
    )
    (tmp_path / "medical").mkdir()
    np.savez(
        tmp_path / "medical" / "path.npz",
        train_images=images,
        train_labels=labels[:, None],
        val_images=images[:2],
        val_labels=labels[:2, None],
    )
    (tmp_path / "two").mkdir()
    np.savez(tmp_path / "two" / "train.npz", images=grey[..., None], labels=labels)
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "X_train.npy").write_bytes(datafiles.npy(np.asfortranarray(images)))
    (tmp_path / "pairs" / "y_train.npy").write_bytes(datafiles.npy(labels.astype(np.uint8)))
    for folder, test, channels in (
        ("one", 6, 1),
        ("medical", 2, 3),
        ("two", 0, 1),
        ("pairs", 0, 3),
    ):
        found = find_format(tmp_path / folder)
        assert (found.format, found.train, found.test) == ("numpy", 6, test), folder
        assert (found.side, found.channels, found.classes) == (28, channels, 6)
        samples = split_of(tmp_path / folder, data_dir)
        small = Image.fromarray(images[3] if channels == 3 else grey[3])
        expected = small.resize((32, 32), Image.Resampling.BILINEAR)
        assert np.array_equal(samples.inputs[3], np.asarray(expected))
        assert samples.labels.tolist() == labels.tolist()
    assert find_format(tmp_path / "one" / "mnist.npz").train == 6


def with_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


def header_only(shape: tuple[int, ...]) -> bytes:
    return with_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}")


OBJECTS = np.array([Run()], dtype=object)
BAD_ARRAYS = {
    "objects": (datafiles.npy(OBJECTS), "no plain array"),
    "floats": (datafiles.npy(np.zeros((4, 8, 8))), "not uint8"),
    "not square": (datafiles.npy(np.zeros((4, 8, 9), np.uint8)), "not uint8"),
    "cut off": (datafiles.npy(np.zeros((4, 8, 8), np.uint8))[:-1], "its bytes are not"),
    "too long": (datafiles.npy(np.zeros((4, 8, 8), np.uint8)) + b"x", "its bytes are not"),
    "large claim": (header_only((4, 512, 512)), "its bytes are not"),
    "huge claim": (header_only((2**40, 8, 8)), "claims more than"),
    "other count": (datafiles.npy(np.zeros((5, 8, 8), np.uint8)), "not 5 whole numbers"),
    "a page": (b"<html>no</html>", "damaged"),
    "open header": (with_header("{'descr': ("), "damaged"),
    "open text": (with_header("'''"), "damaged"),
    "deep header": (with_header("-" * 9000 + "1"), "damaged"),
    "no literal": (with_header("exec('1')"), "damaged"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_arrays_are_refused(
    tmp_path: Path, data_dir: Path, kind: str, zipped: bool
) -> None:
    """Objects are never unpickled; a stated size is believed as far as there are bytes."""
    content, message = BAD_ARRAYS[kind]
    pair = {"train_images": content, "train_labels": datafiles.npy(np.arange(4))}
    if zipped:
        with zipfile.ZipFile(tmp_path / "mine.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in pair.items():
                archive.writestr(f"{name}.npy", data)
    else:
        for name, data in pair.items():
            (tmp_path / f"{name}.npy").write_bytes(data)
    with pytest.raises(DatasetUnavailable, match=message):
        split_of(tmp_path, data_dir)


def test_an_npz_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """A web page by that name."""
    (tmp_path / "train.npz").write_bytes(b"<html>")
    with pytest.raises(DatasetUnavailable, match=r"no usable .npz file: damaged"):
        find_format(tmp_path)


# --- folders of images ----------------------------------------------------------------------


def write_folders(folder: Path, test: str = "test") -> Path:
    images, _ = colour(6, side=40)
    for split, count in (("train", 3), (test, 2)):
        for number, name in enumerate(("cat", "dog")):
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(count):
                picture = Image.fromarray(images[index + 2 * number][: 40 - index])
                picture.save(place / f"{index}.png")
    return folder


@pytest.mark.parametrize("test", ["test", "val"])
def test_folders_equal_torchvisions_to_the_bit(tmp_path: Path, data_dir: Path, test: str) -> None:
    """Classes, order and pixels are ImageFolder's after Resize, ToTensor and Normalize."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    mine = write_folders(tmp_path / "mine", test)
    grey = Image.fromarray(colour(1, 9, 50)[0][0][..., 1])
    grey.save(mine / "train" / "dog" / "grey.png")
    half = (0.5, 0.5, 0.5)
    steps = [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize(half, half)]
    theirs = ImageFolder(str(mine / "train"), transforms.Compose(steps))
    found = find_format(mine)
    assert (found.format, found.train, found.test, found.classes) == ("folders", 7, 4, 2)
    assert found.inputs == "images of any size in colour"
    inputs, labels = next(scoring_batches(split_of(mine, data_dir)))
    assert torch.equal(inputs, torch.stack([image for image, _ in theirs]))
    assert labels.tolist() == [label for _, label in theirs]


def test_odd_folders_are_refused(tmp_path: Path) -> None:
    """A class without images, or one that is only tested, is named."""
    mine = write_folders(tmp_path / "mine")
    (mine / "train" / "bird").mkdir()
    with pytest.raises(DatasetUnavailable, match=r"bird.*holds no images"):
        find_format(mine)
    (mine / "train" / "bird").rename(mine / "test" / "bird")
    with pytest.raises(DatasetUnavailable, match="no such class"):
        find_format(mine)


@pytest.mark.parametrize("kind", ["bomb", "cut off", "a page", "not an image's name"])
def test_hostile_images_are_refused(
    tmp_path: Path, data_dir: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image's size is checked before it is decoded; damage is named with its file."""
    mine = write_folders(tmp_path / "mine")
    victim = mine / "train" / "cat" / "1.png"
    if kind == "bomb":
        Image.new("1", (12_000, 12_000)).save(victim)
        # Whatever PIL's own limit: it only warns from here on, and refuses from its double.
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    elif kind == "cut off":
        victim.write_bytes(victim.read_bytes()[:-900])
    elif kind == "a page":
        victim.write_bytes(b"<html>no</html>")
    else:
        Image.new("RGB", (8, 8)).save(victim, format="GIF")
    with pytest.raises(DatasetUnavailable, match=r"1\.png is no usable image"):
        split_of(mine, data_dir)
    monkeypatch.setattr(folders, "MAX_IMAGES", 5)
    with pytest.raises(DatasetUnavailable, match="more than 5 images"):
        find_format(mine)
