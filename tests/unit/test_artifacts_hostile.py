"""Strangers' model files: what is accepted, and that nothing else is, or runs, or takes memory."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import resource
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decloud_trainer.errors import ContentMismatch, HostileFile, TooLarge, TrainingError
from decloud_trainer.training.artifacts import (
    GRADIENT_DTYPES,
    MODEL_DTYPES,
    PROCESS_BYTES,
    load_model,
    parse,
)
from decloud_trainer.training.limits import bounded_memory
from decloud_trainer.training.networks import SimpleCNN, recognise

Entries = dict[str, bytes]


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def small() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


def entries_of(data: bytes) -> Entries:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: Entries, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def changed(name: str, content: bytes) -> bytes:
    return zipped({**entries_of(saved(small())), name: content})


class Reduced:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Named:
    """Pickles as a storage reference."""

    def __init__(self, entry: str, elements: int, kind: Any = torch.FloatStorage) -> None:
        self.reference = ("storage", kind, entry, "cpu", elements)


def described(tensors: dict[str, Any], storages: Entries) -> bytes:
    """A torch file with this pickle: what an attacker writes who knows the format."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return value.reference if isinstance(value, Named) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(tensors)
    return zipped(
        {
            "x/data.pkl": buffer.getvalue(),
            "x/byteorder": b"little",
            **{f"x/data/{name}": content for name, content in storages.items()},
            "x/version": b"3\n",
        }
    )


def tensor(storage: Named, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Reduced:
    hooks: dict[Any, Any] = collections.OrderedDict()
    return Reduced(torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, hooks)


def refused(data: bytes, words: str, dtypes: tuple[str, ...] = MODEL_DTYPES) -> None:
    with pytest.raises(HostileFile, match=words):
        parse(data, dtypes)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3])
def test_honest_files_load_as_torch_loads_them(protocol: int) -> None:
    """A state_dict as torch's own restricted loader reads it gives the very same tensors."""
    torch.manual_seed(0)
    model = SimpleCNN(10)
    data = saved(model.state_dict(), pickle_protocol=protocol)
    loaded = parse(data, MODEL_DTYPES)
    expected = torch.load(io.BytesIO(data), weights_only=True)
    assert list(loaded) == list(expected)
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    assert recognise({key: tuple(value.shape) for key, value in loaded.items()}).classes == 10


def test_parameters_and_views_into_an_own_storage_load() -> None:
    """Parameters instead of tensors, scalars, and a slice that was saved with its whole storage."""
    values = {
        "p": torch.nn.Parameter(torch.ones(2, 1, 3)),
        "scalar": torch.tensor(3.0),
        "slice": torch.arange(10.0)[4:6],
    }
    loaded = parse(saved(values), MODEL_DTYPES)
    assert all(torch.equal(loaded[key], value) for key, value in values.items())


def test_gradients_may_have_any_float_type() -> None:
    """Artefacts come in half, bfloat, single and double precision; models in single only."""
    for name in GRADIENT_DTYPES:
        data = saved({"a": torch.ones(3, dtype=getattr(torch, name))})
        assert parse(data, GRADIENT_DTYPES)["a"].dtype == getattr(torch, name)
        if name != "float32":
            refused(data, f"type {name}")


def test_code_in_a_pickle_is_not_executed(tmp_path: Path) -> None:
    """A file that runs a command when unpickled is refused by name, and the command never runs."""
    marker = tmp_path / "executed"
    attack = Reduced(os.system, f"touch {marker}")
    program = pickle.dumps({"a": attack}, protocol=2)
    refused(changed("archive/data.pkl", program), "posix.system.*not run")
    refused(program, "legacy format")
    assert not marker.exists()
    pickle.loads(program)
    assert marker.exists(), "the attack is a real one"


@pytest.mark.parametrize(
    "value",
    [
        Reduced(bytearray, 10**12),
        Reduced(getattr, "a", "upper"),
        Reduced(torch.zeros, 10**12),
        Reduced(eval, "1"),
        Reduced(collections.Counter, "aaa"),
        Reduced(set, (1, 2)),
    ],
)
def test_calls_that_torch_or_python_would_make_are_refused(value: Reduced) -> None:
    """Nothing can be called, whether torch's own restricted loader would allow it or not."""
    refused(changed("archive/data.pkl", pickle.dumps({"a": value}, protocol=2)), "not run")


def test_pickle_bombs_are_cut_off() -> None:
    """Endless and self-multiplying pickle programs end in a refusal, at once."""
    bomb: Any = ["x"] * 10
    for _ in range(40):
        bomb = [bomb] * 10
    refused(changed("archive/data.pkl", pickle.dumps({"a": bomb}, protocol=2)), "not a plain")
    endless = b"\x80\x02}" + b"K\x01" * 300_000 + b"."
    refused(changed("archive/data.pkl", endless), "more than 200,000 instructions")
    refused(changed("archive/data.pkl", b"\x80\x02" + b" " * 5_000_000), "at most 4194304")
    # A memo slot of 4 billion makes Python's own unpickler ask for 32 GiB.
    refused(changed("archive/data.pkl", b"\x80\x02}r\xff\xff\xff\xff."), "no tensor")


def test_a_tensor_larger_than_its_storage_is_refused() -> None:
    """Stride 0, a huge shape, an offset beyond the end: no small file becomes a large tensor."""
    huge = saved({"a": torch.zeros(1).expand(10**11)})
    assert len(huge) < 2000
    refused(huge, "not contiguous")
    four = {"0": bytes(16)}
    name = Named("0", 4)
    refused(described({"a": tensor(name, 0, (10**10, 10**4), (10**4, 1))}, four), "beyond")
    refused(described({"a": tensor(name, 1, (4,), (1,))}, four), "beyond")
    refused(described({"a": tensor(name, -1, (4,), (1,))}, four), "out of range")
    refused(described({"a": tensor(name, 0, (2**62, 4), (4, 1))}, four), "out of range")
    refused(described({"a": tensor(name, 0, (2, 2), (1, 2))}, four), "not contiguous")
    refused(described({"a": tensor(name, 0, (4,), (1, 1))}, four), "not contiguous")
    refused(described({"a": tensor(name, 0, (0,), (1,))}, four), "empty")
    refused(described({"a": tensor(name, 0, (1,) * 20, (1,) * 20)}, four), "dimensions")


def test_a_storage_must_have_the_bytes_that_it_claims() -> None:
    """A storage that claims more than the file holds would be read beyond its end."""
    claims = {"a": tensor(Named("0", 10**9), 0, (10**9,), (1,))}
    refused(described(claims, {"0": bytes(16)}), "claims 1000000000 elements")
    refused(described(claims, {}), "has -1 bytes")
    refused(described({"a": tensor(Named("../0", 4), 0, (4,), (1,))}, {"0": bytes(16)}), "-1 bytes")


def test_shared_memory_is_refused() -> None:
    """Two tensors over one storage could overlap: an update of one would change the other."""
    whole = torch.arange(8.0)
    refused(saved({"a": whole, "b": whole}), "shares its memory")
    refused(saved({"a": whole[:5], "b": whole[3:]}), "shares its memory")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_must_be_finite(value: float) -> None:
    """One NaN would spread through the whole network."""
    refused(saved({"a": torch.tensor([1.0, value])}), "not finite")


def test_only_plain_float_tensors_are_accepted() -> None:
    """Integers, complex numbers, booleans, sparse and quantised tensors have no place here."""
    for dtype in (torch.int64, torch.uint8, torch.bool):
        refused(saved({"a": torch.ones(2, dtype=dtype)}), "has the type")
    refused(saved({"a": torch.ones(2, dtype=torch.complex64)}), "ComplexFloatStorage")
    refused(saved({"a": torch.eye(2).to_sparse()}), "not run")
    refused(saved({"a": torch.empty(2, device="meta")}), "not run")


def test_only_a_flat_dict_is_accepted() -> None:
    """Nested dicts, lists, numbers, odd keys and whole modules are refused."""
    refused(saved([torch.ones(1)]), "holds a list")
    refused(saved(torch.ones(1)), "holds a tensor, not a dict")
    refused(saved({}), "no tensor")
    refused(saved({"state_dict": {"a": torch.ones(1)}}), "'state_dict' is a dict")
    refused(saved({"epoch": 3}), "'epoch' is a int")
    refused(saved({1: torch.ones(1)}), "no text")
    refused(saved(SimpleCNN(2)), "not run")


def test_compressed_archives_are_refused() -> None:
    """A deflated file of kilobytes may become gigabytes."""
    entries = entries_of(saved({"a": torch.zeros(1_000_000)}))
    data = zipped(entries, zipfile.ZIP_DEFLATED)
    assert len(data) < 10_000
    refused(data, "more bytes than the file")
    refused(zipped(entries_of(saved(small())), zipfile.ZIP_BZIP2), "compressed")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../etc/passwd", "odd name"),
        ("/etc/passwd", "odd name"),
        ("archive/../x", "doesn't need"),
        ("archive/code/run.py", "doesn't need"),
        ("archive/constants.pkl", "doesn't need"),
        ("archive/data/007", "doesn't need"),
        ("archive\\data\\0", "odd name"),
        ("other/version", "not all in one folder"),
    ],
)
def test_odd_entries_are_refused(name: str, words: str) -> None:
    """An archive holds what torch.save writes, under its names, and nothing else."""
    refused(changed(name, b"x"), words)


def test_encrypted_entries_are_refused() -> None:
    """Nobody asks for a password; what would be behind it is of no interest."""
    data = bytearray(saved(small()))
    flags = data.index(b"PK\x01\x02") + 8  # of the first entry in the archive's directory
    data[flags] |= 1
    refused(bytes(data), "is encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_and_overlapping_entries_are_refused() -> None:
    """Readers that disagree on which entry counts must find no such file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries_of(saved(small())).items():
            archive.writestr(name, content)
        archive.writestr("archive/data/0", bytes(24))
    refused(buffer.getvalue(), "two entries data/0")

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries_of(saved(small())).items():
            archive.writestr(name, content)
        archive.getinfo("archive/data/1").header_offset = archive.getinfo(
            "archive/data/0"
        ).header_offset
    refused(buffer.getvalue(), "overlaps")


def test_damaged_files_are_refused() -> None:
    """Truncated, bit-flipped, big-endian files, web pages and nothing at all."""
    good = saved(small())
    refused(b"", "torch.save")
    refused(b"<html>gateway time-out</html>", "torch.save")
    refused(good[:-100], "damaged")
    refused(good[:100], "damaged")
    flipped = bytearray(good)
    flipped[good.index(small()["a"].numpy().tobytes()) + 3] ^= 1
    refused(bytes(flipped), "damaged")
    refused(changed("archive/byteorder", b"big"), "byte order")
    without = entries_of(good)
    del without["archive/data.pkl"]
    refused(zipped(without), "no data.pkl")
    refused(saved(small(), pickle_protocol=4), "protocol 4")
    refused(zipped({f"archive/data/{n}": b"" for n in range(5000)}), "5000 entries")


GOOD = saved(small())


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4))
def test_mutated_files_are_refused_or_read(changes: list[tuple[int, int]]) -> None:
    """Whatever bytes are changed, the answer is tensors or HostileFile, never another error."""
    data = bytearray(GOOD)
    for position, value in changes:
        data[position] = value
    try:
        loaded = parse(bytes(data), MODEL_DTYPES)
    except HostileFile:
        return
    assert all(value.numel() <= 6 for value in loaded.values())


PROGRAM = entries_of(GOOD)["archive/data.pkl"]


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.integers(0, len(PROGRAM) - 1), st.integers(0, 255)), max_size=3),
    st.binary(max_size=8),
    st.integers(0, len(PROGRAM)),
)
def test_mutated_pickles_are_refused_or_read(
    changes: list[tuple[int, int]], inserted: bytes, at: int
) -> None:
    """A pickle program of any shape (with a right checksum) ends in tensors or HostileFile."""
    program = bytearray(PROGRAM)
    for position, value in changes:
        program[position] = value
    program[at:at] = inserted
    with contextlib.suppress(HostileFile):
        parse(changed("archive/data.pkl", bytes(program)), MODEL_DTYPES)


def test_a_file_is_bounded_and_named_by_its_digest(tmp_path: Path) -> None:
    """Size and digest are checked before the content is; a missing file is said."""
    path = tmp_path / "model.pt"
    path.write_bytes(GOOD)
    assert load_model(path, len(GOOD)).bytes == len(GOOD)
    with pytest.raises(TooLarge, match="bytes allowed"):
        load_model(path, len(GOOD) - 1)
    with pytest.raises(ContentMismatch):
        load_model(path, len(GOOD), "0" * 64)
    with pytest.raises(TrainingError, match="can't read"):
        load_model(tmp_path / "absent.pt", 100)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_is_limited_while_a_file_is_read() -> None:
    """A demand far beyond the limit fails in this process, and only as long as it holds."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded_memory(PROCESS_BYTES), pytest.raises(MemoryError):
        bytearray(PROCESS_BYTES)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
