"""The program's events, read from a transaction's log lines.

An event is a hint: whoever acts on one reads the account first.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from solders.pubkey import Pubkey

from decloud_trainer.chain.codec import Idl
from decloud_trainer.errors import LayoutError

_INVOKE = re.compile(r"Program ([1-9A-HJ-NP-Za-km-z]{32,44}) invoke \[([1-9][0-9]{0,2})\]")
_RETURN = re.compile(r"Program ([1-9A-HJ-NP-Za-km-z]{32,44}) success")
_FAILED = re.compile(r"Program ([1-9A-HJ-NP-Za-km-z]{32,44}) failed.*", re.DOTALL)
_DATA = "Program data: "
_TRUNCATED = "Log truncated"


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the program.

    Attributes:
        fields: by name as in the IDL; v1.0's RewardClaimed and ValidatorFeeClaimed have no fees.
    """

    name: str
    fields: dict[str, Any]

    @property
    def round_id(self) -> int:
        """Every event of v1 names its round."""
        return int(self.fields["round_id"])


def events(logs: Iterable[str], program: Pubkey | str) -> list[Event]:
    """The events that `program` itself emitted, in order; never raises for what a log holds.

    A data line counts only while the program is on top of the invoke stack: others may print
    whatever they like. Data that is no event of v1 is passed over, a failed transaction has no
    events, and reading ends where the log is truncated or contradicts itself.
    """
    own = str(program)
    stack: list[str] = []
    found: list[Event] = []
    for line in logs:
        if line.startswith(_DATA):
            if stack and stack[-1] == own:
                found.extend(_decode(line.removeprefix(_DATA)))
        elif invoked := _INVOKE.fullmatch(line):
            if int(invoked[2]) != len(stack) + 1:
                break
            stack.append(invoked[1])
        elif returned := _RETURN.fullmatch(line):
            if not stack or stack.pop() != returned[1]:
                break
        elif _FAILED.fullmatch(line):
            return []
        elif line == _TRUNCATED:
            break
    return found


def _decode(text: str) -> list[Event]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return []
    # The newest generation has all events; only v1.0's two shorter ones need its own layout.
    for generation in ("v1.2", "v1.0"):
        try:
            name, fields = Idl.load(generation).decode_event(data)
        except LayoutError:
            continue
        return [Event(name, fields)]
    return []
