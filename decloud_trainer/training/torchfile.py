"""Reading a stranger's ``torch.save`` file without unpickling it.

Such a file is a zip archive: ``data.pkl``, a pickle program that builds a dict of tensors, and one
entry per storage. Unpickling runs that program; even torch's restricted loader can be made to
allocate without bounds or to read beyond a storage. Here nothing is run: the archive's structure
is checked first, then the pickle's opcodes are read as data by an interpreter that knows only the
few that a state_dict needs (`pickles`), giving a description of each tensor, and only a description
that fits its storage exactly is turned into a tensor.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from typing import Any, NoReturn

from decloud_trainer.errors import HostileFile
from decloud_trainer.training import damage
from decloud_trainer.training.pickles import Global, Reader, expect

MAX_ENTRIES = 4096
MAX_PICKLE_BYTES = 4 * 1024**2
MAX_OPCODES = 200_000
LOCAL_HEADER_BYTES = 30
FIXED_ENTRIES = {
    "data.pkl",
    "version",
    "byteorder",
    ".format_version",
    ".storage_alignment",
    ".data/serialization_id",
}
_STORAGE_ENTRY = re.compile(r"data/(0|[1-9]\d{0,6})")
_FOLDER = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage that the pickle names: its entry in the archive, element type and length."""

    entry: str
    kind: str
    elements: int


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor as the pickle describes it; offset and stride count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def hostile(what: str) -> NoReturn:
    """Refuse the file.

    Raises:
        HostileFile: always.
    """
    raise _hostile(what)


def _hostile(what: str) -> HostileFile:
    return HostileFile(what, hint="the file breaks the rules for model files; don't use it")


class Archive:
    """The checked structure of a torch file held in memory."""

    def __init__(self, data: bytes) -> None:
        """Check the archive `data`.

        Raises:
            HostileFile: compressed, overlapping, duplicate, unknown or oversized entries; a
                legacy file; not a zip archive at all.
        """
        self._zip = _open(data)
        infos = self._zip.infolist()
        if len(infos) > MAX_ENTRIES:
            hostile(f"the archive has {len(infos)} entries, at most {MAX_ENTRIES} are allowed")
        if sum(info.file_size for info in infos) > len(data):
            hostile(f"the archive's entries claim more bytes than the file's {len(data)}")
        self._entries: dict[str, zipfile.ZipInfo] = {}
        only_folder = infos[0].orig_filename.partition("/")[0] if infos else ""
        for info in infos:
            folder, _, name = info.orig_filename.partition("/")
            _check_entry(info, folder, name)
            if folder != only_folder:
                hostile("the archive's entries are not all in one folder")
            if name in self._entries:
                hostile(f"the archive has two entries {name}")
            self._entries[name] = info
        _check_overlaps(infos)
        if "data.pkl" not in self._entries:
            hostile("the archive has no data.pkl: it wasn't written by torch.save")
        if "byteorder" in self._entries and self.read("byteorder", 16) != b"little":
            hostile("the archive's byte order is not little")

    def size(self, name: str) -> int:
        """The bytes of the entry `name`, or -1."""
        info = self._entries.get(name)
        return -1 if info is None else info.file_size

    def read(self, name: str, max_bytes: int) -> bytes:
        """The entry `name`, its checksum verified."""
        info = self._entries[name]
        if info.file_size > max_bytes:
            hostile(f"the archive's {name} has {info.file_size} bytes, at most {max_bytes} allowed")
        try:
            return self._zip.read(info)
        except damage.ZIP as error:
            raise _hostile(f"the archive's entry {name} is damaged: {error}") from error

    def describe(self) -> dict[str, Described]:
        """The tensors that data.pkl describes, by key, in its order.

        Raises:
            HostileFile: the program does anything but build a flat dict of plain tensors.
        """
        program = self.read("data.pkl", MAX_PICKLE_BYTES)
        try:
            result = _StateDict().run(program)
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise _hostile(f"the pickle inside the file makes no sense: {error}") from error
        if not isinstance(result, dict):
            hostile(f"the file holds a {_kind(result)}, not a dict of tensors")
        for key, value in result.items():
            if not isinstance(key, str):
                hostile(f"the file's dict has a key that is no text: {key!r:.60}")
            if not isinstance(value, Described):
                hostile(f"{key!a:.60} is a {_kind(value)}, not a plain tensor")
        return result


def _kind(value: object) -> str:
    return "tensor" if isinstance(value, Described) else type(value).__name__.lstrip("_")


def _open(data: bytes) -> zipfile.ZipFile:
    if data[:2] == b"\x80\x02" or data[:1] == b"\x80":
        hostile("the file is in torch's legacy format, a bare pickle; only zip files are accepted")
    if data[:4] != b"PK\x03\x04":
        hostile("the file is not one that torch.save writes")
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except damage.ZIP as error:
        raise _hostile(f"the file is a damaged zip archive: {error}") from error


def _check_entry(info: zipfile.ZipInfo, folder: str, name: str) -> None:
    where = ascii(info.orig_filename[:80])
    if not _FOLDER.fullmatch(folder) or folder in (".", ".."):
        hostile(f"the archive has an entry with an odd name: {where}")
    if name not in FIXED_ENTRIES and not _STORAGE_ENTRY.fullmatch(name):
        hostile(f"the archive has an entry that a state_dict doesn't need: {where}")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        hostile(f"the archive's entry {where} is compressed; torch.save stores them plainly")
    if info.flag_bits & 0x1:
        hostile(f"the archive's entry {where} is encrypted")


def _check_overlaps(infos: list[zipfile.ZipInfo]) -> None:
    """No byte of the file may serve as content of two entries."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            hostile(f"the archive's entry {info.orig_filename[:80]!a} overlaps another one")
        end = info.header_offset + LOCAL_HEADER_BYTES + info.compress_size


class _StateDict(Reader):
    """Knows what a state_dict needs: tensors are described, not built."""

    plain = frozenset({"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"})
    most = MAX_OPCODES

    def follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "PROTO":
            if argument not in (2, 3):
                hostile(f"the pickle inside the file has protocol {argument}; torch.save uses 2")
        elif name == "GLOBAL":
            stack.append(_known(argument.replace(" ", ".", 1)))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            function, arguments = self.last(2)
            stack.append(_call(expect(function, Global).name, expect(arguments, tuple)))
        elif name == "BUILD":
            # An OrderedDict's `_metadata` (module versions): not needed, dropped unseen.
            self.last(1)
            expect(stack[-1], dict)
        else:
            hostile(f"the pickle inside the file uses {name}, which a dict of tensors never needs")

    def key(self, value: Any) -> str | int:
        if not isinstance(value, (str, int)):
            hostile(f"the file's dict has a key that is no text: a {type(value).__name__}")
        return value


# A storage class's name and the dtype of its elements, as torch spells it.
STORAGE_KINDS = {
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
_FUNCTIONS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
}


def _known(name: str) -> Global:
    if name not in _FUNCTIONS and name not in STORAGE_KINDS:
        hostile(f"the file asks for {name[:80]!a}, which no dict of tensors needs: not run")
    return Global(name)


def _numbers(value: Any, what: str) -> tuple[int, ...]:
    for number in expect(value, tuple):
        if not 0 <= expect(number, int) < 2**48:
            hostile(f"a tensor's {what} holds a number out of range")
    if len(value) > 16:
        hostile(f"a tensor's {what} has {len(value)} dimensions")
    return value  # type: ignore[no-any-return]


def _storage(value: Any) -> Storage:
    """``("storage", class, entry, location, elements)``; where it once lived doesn't matter."""
    tag, kind, entry, location, elements = expect(value, tuple)
    if tag != "storage" or expect(kind, Global).name not in STORAGE_KINDS:
        hostile("the pickle inside the file names something that is no storage")
    expect(location, str)
    return Storage(
        expect(entry, str), STORAGE_KINDS[kind.name], _numbers((elements,), "storage")[0]
    )


def _call(function: str, arguments: tuple[Any, ...]) -> Any:
    """What the three functions of a state_dict would build, as a description."""
    if function == "collections.OrderedDict":
        if arguments:
            hostile("an OrderedDict with arguments: torch.save writes none")
        return {}
    if function == "torch._utils._rebuild_parameter":
        return expect(arguments[0], Described)
    if function == "torch._utils._rebuild_tensor_v2":
        storage, offset, shape, stride = arguments[:4]
        return Described(
            expect(storage, Storage),
            _numbers((offset,), "offset")[0],
            _numbers(shape, "shape"),
            _numbers(stride, "stride"),
        )
    hostile(f"{function} can't be called")
