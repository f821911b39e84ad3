"""One published file from the first address that has it: resumed, checked, durable.

What has arrived stays beside the target as ``.NAME.part`` until the file is whole and its checksum
right; a later call goes on from there. The checksum decides in the end, so pieces from two mirrors
may meet in one file.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import urllib3

from decloud_trainer import files
from decloud_trainer.errors import DatasetUnavailable

MAX_BYTES = 8 * 1024**3
PIECE_BYTES = 1 << 16
# Another try of the same address may help.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")

Report = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class File:
    """A published file.

    Attributes:
        name: under which it's kept.
        addresses: where it can be had, the best first.
        checksum: ``md5:HEX`` or ``sha256:HEX``; empty if none was published: then only the length
            is checked.
    """

    name: str
    addresses: tuple[str, ...]
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try.

    Attributes:
        silence_s: an address that sends nothing for so long is given up for now. There's no other
            limit while bytes arrive.
        rounds: how often all addresses are tried without a new byte from any.
        unreached: how often, while none of them can be reached at all: there is no network, and
            whoever waits can come again.
        wait_s: between the first two rounds; doubled each time, at most a minute.
    """

    silence_s: float = 60.0
    rounds: int = 6
    unreached: int = 2
    wait_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep


PATIENCE = Patience()
_UNREACHED = ("connection refused", "its name can't be resolved")


class _Failed(Exception):
    """An address didn't give the file; `for_good` when another try is of no use, `unreached` when
    nobody was there."""

    def __init__(self, why: str, *, for_good: bool = False, unreached: bool = False) -> None:
        super().__init__(why)
        self.for_good = for_good
        self.unreached = unreached


def fetch(file: File, folder: Path, report: Report, patience: Patience = PATIENCE) -> Path:
    """Have the file in `folder`, under its name.

    Args:
        report: called with (name, bytes there, bytes in all or None) whenever some have arrived.

    Raises:
        DatasetUnavailable: no address gives it, or what they give isn't what was published.
    """
    target = folder / file.name
    try:
        # It stands there only when it's whole.
        if target.is_file() and _digest(target, file.checksum) == file.checksum:
            return target
        part = _Part(folder / f".{file.name}.part")
        _gather(file, part, report, patience)
        files.publish(part.path, target)
        part.note.unlink(missing_ok=True)
    except OSError as error:  # the disk's; the network's have become _Failed
        raise DatasetUnavailable(
            f"Dataset not found: {file.name} can't be written to {folder}: {error.strerror}",
            hint="free some space; what has arrived is kept and the download goes on from there",
        ) from error
    return target


def _gather(file: File, part: _Part, report: Report, patience: Patience) -> None:
    """All bytes of the file in `part`, checked."""
    left, why = list(file.addresses), {}
    rounds, most = 0, part.size
    while left:
        reached = False
        for address in tuple(left):
            try:
                _take(address, file, part, report, patience.silence_s)
                return
            except _Failed as failure:
                why[address] = str(failure)
                reached |= not failure.unreached
                if failure.for_good:
                    left.remove(address)
        rounds = 1 if part.size > most else rounds + 1
        most = max(most, part.size)
        if rounds >= (patience.rounds if reached or part.size else patience.unreached):
            break
        if left:
            patience.sleep(min(60.0, patience.wait_s * 2 ** (rounds - 1)))
    told = "; ".join(f"{address}: {reason}" for address, reason in why.items())
    raise DatasetUnavailable(f"Dataset not found: {file.name} could not be downloaded: {told}")


@dataclass(slots=True)
class _Part:
    """What has arrived, with a note of where it came from.

    Attributes:
        is_mixed: some of it came with an earlier connection.
    """

    path: Path
    address: str = ""
    validator: str = ""
    total: int | None = None
    is_mixed: bool = False
    note: Path = field(init=False)

    def __post_init__(self) -> None:
        self.note = self.path.with_suffix(".json")
        try:
            said = json.loads(self.note.read_bytes())
            self.address, self.validator = str(said["address"]), str(said["validator"])
            self.total = said["total"] if type(said["total"]) is int else None
        except (OSError, ValueError, KeyError, TypeError):
            self.discard()  # bytes of which nothing is known

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def describe(self, address: str, validator: str, total: int | None) -> None:
        self.address, self.validator, self.total = address, validator, total
        said = {"address": address, "validator": validator, "total": total}
        files.write_atomic(self.note, json.dumps(said).encode())

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.is_mixed = False


def _take(address: str, file: File, part: _Part, report: Report, silence_s: float) -> None:
    """What is missing, from one address; checks the whole."""
    have = part.size
    part.is_mixed = have > 0
    if not have or have != part.total:
        try:
            with _ask(address, part, bool(file.checksum), silence_s) as response:
                _receive(response, address, file.name, part, report)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            words = _words(error)
            raise _Failed(words, unreached=words in _UNREACHED) from error
        except UnicodeError as error:  # an address that is none
            raise _Failed(str(error), for_good=True) from error
    if part.total is not None and part.size != part.total:
        raise _Failed(f"it ended after {part.size:,} of {part.total:,} bytes")
    if _digest(part.path, file.checksum) != file.checksum:
        was_mixed = part.is_mixed
        part.discard()
        # Pieces of two versions may have met: once more, all from one.
        raise _Failed("its checksum is not the published one", for_good=not was_mixed)


def _ask(address: str, part: _Part, is_checked: bool, silence_s: float) -> requests.Response:
    """The answer's head; asks for the missing part where that is safe."""
    # Without compression on the way: offsets count the file's own bytes.
    headers = {"Accept-Encoding": "identity", "User-Agent": "decloud-trainer"}
    have = part.size
    same = address == part.address and part.validator
    if have and (same or is_checked):
        headers["Range"] = f"bytes={have}-"
        if same:
            headers["If-Range"] = part.validator
    return requests.get(
        address,
        headers=headers,
        stream=True,
        timeout=(min(10.0, silence_s), silence_s),
        auth=_no_credentials,
    )


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Otherwise a password from ~/.netrc would be sent along."""
    return request


def _receive(
    response: requests.Response, address: str, name: str, part: _Part, report: Report
) -> None:
    start, total = _position(response, part)
    if total is not None and total > MAX_BYTES:
        raise _Failed(f"it has {total:,} bytes, more than any dataset", for_good=True)
    _check_space(part.path.parent, (total or 0) - start)
    if not start:
        part.discard()
    part.describe(address, _validator(response), total)
    with part.path.open("ab") as stream:
        while piece := response.raw.read1(PIECE_BYTES, decode_content=False):
            start += len(piece)
            if start > (MAX_BYTES if total is None else total):
                part.discard()
                raise _Failed("it sends more than it said", for_good=True)
            stream.write(piece)
            # Whoever waits for this download looks at the file's size.
            stream.flush()
            report(name, start, total)


def _position(response: requests.Response, part: _Part) -> tuple[int, int | None]:
    """(where the answer's first byte belongs, the file's size or None)"""
    status = response.status_code
    if status == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if re.fullmatch(r"\d{1,15}", length) else None
    if status == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = int(found[3]) if found and found[3] != "*" else None
        if found and int(found[1]) == part.size and total is not None and part.total == total:
            return part.size, total
    if status in (206, 416):
        # Not what lies here: anew, from this address as well.
        part.discard()
        raise _Failed("it has another file than the one begun")
    raise _Failed(f"it answers {status} {response.reason}", for_good=status not in _PASSING)


def _validator(response: requests.Response) -> str:
    """What an If-Range may hold: a strong entity tag, or a date."""
    tag = response.headers.get("ETag", "")
    if tag.startswith('"') and tag.endswith('"') and len(tag) < 200:
        return tag
    return response.headers.get("Last-Modified", "")[:100]


def _check_space(folder: Path, missing: int) -> None:
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise DatasetUnavailable(
            f"Dataset not found: its download needs {missing / 1e6:,.0f} MB more, {folder} has "
            f"{free / 1e6:,.0f} MB",
            hint="free some space; what has arrived is kept",
        )


def _digest(path: Path, checksum: str) -> str:
    """In the form of `checksum`, which may be empty. MD5 is what many were published with."""
    if not checksum:
        return ""
    kind = checksum.partition(":")[0]

    def make() -> Any:
        return hashlib.new(kind, usedforsecurity=False)

    with path.open("rb") as stream:
        return f"{kind}:{hashlib.file_digest(stream, make).hexdigest()}"


def _words(error: Exception) -> str:
    """The cause, without the library's nested representations."""
    text = str(error)
    for known, words in (
        ("timed out", "it doesn't answer"),
        ("Connection refused", _UNREACHED[0]),
        ("resolve", _UNREACHED[1]),
        ("IncompleteRead", "the connection broke off"),
    ):
        if known in text:
            return words
    return text[:200]
