"""Reading a pickle as data: its instructions are followed, and nothing is imported, made or called.

Unpickling runs whatever a file asks for. Files of tensors and arrays need few of a pickle's
instructions. Those that put plain values together are followed here; the reader of a format adds
the few others that it knows, and refuses all that is left.
"""

from __future__ import annotations

import pickletools
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True, slots=True)
class Global:
    """What a pickle would import: here it stays a name."""

    name: str


class _Mark:
    """The stack's marker."""


class Reader(ABC):
    """Follows a pickle's instructions on a stack of plain values; knows nothing that could act.

    Attributes:
        plain: the instructions that put their argument on the stack as it is.
        most: how many instructions are followed.
    """

    plain: ClassVar[frozenset[str]]
    most: ClassVar[int]

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """What the program builds.

        Raises:
            ValueError, IndexError, KeyError, TypeError: it makes no sense, or is too long.
        """
        with warnings.catch_warnings():
            # pickletools warns of escape sequences in names; no known name has any.
            warnings.simplefilter("ignore", DeprecationWarning)
            for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
                if count >= self.most:
                    raise ValueError(f"it has more than {self.most:,} instructions")
                if opcode.name == "STOP":
                    break
                if not (self._put(opcode.name, argument) or self._gather(opcode.name)):
                    self.follow(opcode.name, argument)
        return self.stack.pop()

    @abstractmethod
    def follow(self, name: str, argument: Any) -> None:
        """Do what an instruction of the format says, or refuse it."""

    @abstractmethod
    def key(self, value: Any) -> str | int:
        """A dict's key, or a refusal."""

    def last(self, count: int) -> list[Any]:
        """Take so many values off the stack."""
        if len(self.stack) < count:
            raise IndexError("stack underflow")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _put(self, name: str, argument: Any) -> bool:
        """The instructions for single values; False: it is none of them."""
        stack = self.stack
        if name in self.plain:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_Mark)
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        else:
            return False
        return True

    def _gather(self, name: str) -> bool:
        """Those that put values together; False: it is none of them."""
        if name == "TUPLE" or name in _TUPLES:
            items = self._to_mark() if name == "TUPLE" else self.last(_TUPLES[name])
            self.stack.append(tuple(items))
        elif name in ("APPEND", "APPENDS"):
            items = self._to_mark() if name == "APPENDS" else self.last(1)
            expect(self.stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._to_mark() if name == "SETITEMS" else self.last(2)
            target = expect(self.stack[-1], dict)
            for key, value in zip(map(self.key, items[::2]), items[1::2], strict=True):
                if key in target:
                    raise ValueError(f"it names {key!a:.60} twice")
                target[key] = value
        else:
            return False
        return True

    def _to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _Mark:
            items.append(item)
        return items[::-1]


def expect(value: Any, kind: type) -> Any:
    """The value, which must be of that type; a bool is no int."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"a {kind.__name__} expected, not a {type(value).__name__}")
    return value
