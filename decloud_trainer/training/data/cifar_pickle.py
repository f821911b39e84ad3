"""Reading one of CIFAR's python batches without unpickling it.

A batch is a pickle of a dict: ``data`` (a NumPy array uint8 (N, 3072)), a list of labels, and file
names. Unpickling would run whatever the file asks for. Here its opcodes are read as data by an
interpreter that knows only the few that such a dict needs; nothing is imported or called.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROW_BYTES = 3 * 32 * 32
# The largest batch, CIFAR-100's training set, has some 250,000.
MAX_OPCODES = 2_000_000

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG1"),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    *("BINUNICODE", "SHORT_BINUNICODE"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_GLOBALS = {*_RECONSTRUCT, "numpy ndarray", "numpy dtype", "_codecs encode"}


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


class _Mark:
    """The stack's marker."""


@dataclass(slots=True)
class _Array:
    """A NumPy array as the pickle describes it."""

    data: bytes = b""
    shape: tuple[Any, ...] = ()
    in_columns: bool = False


@dataclass(frozen=True, slots=True)
class _Type:
    """A NumPy element type, by its code."""

    code: str


def read_batch(program: bytes, label_key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Rows uint8 (N, 3072) and labels int64 (N,) of one batch.

    Raises:
        ValueError: it isn't one; says what is wrong.
    """
    try:
        batch = _Reader().run(program)
        data, labels = batch["data"], batch[label_key]
    except KeyError as error:
        raise ValueError(f"it lacks {error}") from error
    except (IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its pickle makes no sense: {error}") from error
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise ValueError("its data are no array, or its labels no list")
    rows = len(data.data) // ROW_BYTES
    if rows == 0 or data.shape != (rows, ROW_BYTES) or len(data.data) != rows * ROW_BYTES:
        raise ValueError(f"its data have not the shape (N, {ROW_BYTES})")
    if len(labels) != rows:
        raise ValueError(f"it has {len(labels)} labels for {rows} images")
    if any(type(label) is not int or not 0 <= label < 1000 for label in labels):
        raise ValueError("it has labels that are no class numbers")
    flat = np.frombuffer(data.data, dtype=np.uint8)
    images = flat.reshape(data.shape, order="F" if data.in_columns else "C")
    return images, np.array(labels, dtype=np.int64)


class _Reader:
    """Follows a pickle's opcodes on a stack of plain values; knows nothing that could act."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> dict[str, Any]:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if count >= MAX_OPCODES:
                raise ValueError(f"its pickle has more than {MAX_OPCODES:,} instructions")
            if opcode.name == "STOP":
                break
            self._follow(opcode.name, argument)
        result = self.stack.pop()
        if not isinstance(result, dict):
            raise ValueError("it holds no dict")
        return result

    def _follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_Mark)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "TUPLE" or name in _TUPLES:
            items = self._to_mark() if name == "TUPLE" else self._last(_TUPLES[name])
            stack.append(tuple(items))
        elif name not in ("PROTO", "FRAME"):
            self._build(name, argument)

    def _build(self, name: str, argument: Any) -> None:
        """The instructions that put things together."""
        stack = self.stack
        if name in ("APPEND", "APPENDS"):
            items = self._to_mark() if name == "APPENDS" else self._last(1)
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items(self._to_mark() if name == "SETITEMS" else self._last(2))
        elif name == "GLOBAL":
            stack.append(_known(argument))
        elif name == "STACK_GLOBAL":
            stack.append(_known(" ".join(_expect(part, str) for part in self._last(2))))
        elif name == "REDUCE":
            function, arguments = self._last(2)
            stack.append(_made(_expect(function, _Global).name, _expect(arguments, tuple)))
        elif name == "BUILD":
            (state,) = self._last(1)
            if isinstance(stack[-1], _Array):
                _fill(stack[-1], _expect(state, tuple))
            else:
                _expect(stack[-1], _Type)  # its byte order: there is one byte
        else:
            raise ValueError(f"its pickle uses {name}, which no batch of images needs: not run")

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("stack underflow")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _Mark:
            items.append(item)
        return items[::-1]

    def _set_items(self, items: list[Any]) -> None:
        target = _expect(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            text = key.decode("latin-1") if isinstance(key, bytes) else _expect(key, str)
            if text in target:
                raise ValueError(f"it names {text[:60]!a} twice")
            target[text] = value


def _known(name: str) -> _Global:
    if name not in _GLOBALS:
        raise ValueError(f"it asks for {name[:80]!a}, which no batch of images needs: not run")
    return _Global(name)


def _made(function: str, arguments: tuple[Any, ...]) -> Any:
    """What the functions of such a dict would make, as a description."""
    if function in _RECONSTRUCT:
        return _Array()
    if function == "numpy dtype":
        code = arguments[0]
        return _Type(code.decode("latin-1") if isinstance(code, bytes) else _expect(code, str))
    if function == "_codecs encode":
        # How Python 3 writes bytes in the old protocol.
        return _expect(arguments[0], str).encode("latin-1")
    raise ValueError(f"{function} can't be called")


def _fill(array: _Array, state: tuple[Any, ...]) -> None:
    _, shape, kind, in_columns, data = state
    if _expect(kind, _Type).code != "u1":
        raise ValueError(f"its array holds {kind.code[:20]!a}, not bytes")
    array.shape, array.in_columns = _expect(shape, tuple), bool(in_columns)
    # Python 2 wrote bytes as a string.
    array.data = data.encode("latin-1") if isinstance(data, str) else _expect(data, bytes)


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {kind.__name__} expected, not a {type(value).__name__}")
    return value
