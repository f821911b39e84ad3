"""Reading one of CIFAR's python batches without unpickling it: as data, see `pickles`.

A batch is a pickle of a dict: ``data`` (a NumPy array uint8 (N, 3072)), a list of labels, and file
names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decloud_trainer.training.pickles import Global, Reader, expect

ROW_BYTES = 3 * 32 * 32
# The largest batch, CIFAR-100's training set, has some 250,000.
MAX_OPCODES = 2_000_000

_RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_GLOBALS = {*_RECONSTRUCT, "numpy ndarray", "numpy dtype", "_codecs encode"}


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
        batch = _Batch().run(program)
        if not isinstance(batch, dict):
            raise ValueError("it holds no dict")
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


class _Batch(Reader):
    """Knows what a dict with an array of bytes needs: the array is described, not built."""

    plain = frozenset(
        {
            *("BININT", "BININT1", "BININT2", "INT", "LONG1"),
            *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
            *("BINUNICODE", "SHORT_BINUNICODE"),
        }
    )
    most = MAX_OPCODES

    def follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name == "GLOBAL":
            stack.append(_known(argument))
        elif name == "STACK_GLOBAL":
            stack.append(_known(" ".join(expect(part, str) for part in self.last(2))))
        elif name == "REDUCE":
            function, arguments = self.last(2)
            stack.append(_made(expect(function, Global).name, expect(arguments, tuple)))
        elif name == "BUILD":
            (state,) = self.last(1)
            if isinstance(stack[-1], _Array):
                _fill(stack[-1], expect(state, tuple))
            else:
                expect(stack[-1], _Type)  # its byte order: there is one byte
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its pickle uses {name}, which no batch of images needs: not run")

    def key(self, value: Any) -> str:
        return value.decode("latin-1") if isinstance(value, bytes) else str(expect(value, str))


def _known(name: str) -> Global:
    if name not in _GLOBALS:
        raise ValueError(f"it asks for {name[:80]!a}, which no batch of images needs: not run")
    return Global(name)


def _made(function: str, arguments: tuple[Any, ...]) -> Any:
    """What the functions of such a dict would make, as a description."""
    if function in _RECONSTRUCT:
        return _Array()
    if function == "numpy dtype":
        code = arguments[0]
        return _Type(code.decode("latin-1") if isinstance(code, bytes) else expect(code, str))
    if function == "_codecs encode":
        # How Python 3 writes bytes in the old protocol.
        return expect(arguments[0], str).encode("latin-1")
    raise ValueError(f"{function} can't be called")


def _fill(array: _Array, state: tuple[Any, ...]) -> None:
    _, shape, kind, in_columns, data = state
    if expect(kind, _Type).code != "u1":
        raise ValueError(f"its array holds {kind.code[:20]!a}, not bytes")
    array.shape, array.in_columns = expect(shape, tuple), bool(in_columns)
    # Python 2 wrote bytes as a string.
    array.data = data.encode("latin-1") if isinstance(data, str) else expect(data, bytes)
