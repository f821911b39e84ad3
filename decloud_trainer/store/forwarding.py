"""A training's own chain, and what of it goes on to a chain that its user named.

A training commits to a chain in its folder, which is always there. Versions with metrics are those
that were asked for: they go on to the named chain, in their order, by whoever may write there. A
version without metrics is for resuming alone.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from decloud_trainer.errors import ConflictError, DecloudError
from decloud_trainer.store.chain import Store
from decloud_trainer.store.seal import damaged, sealed, unsealed
from decloud_trainer.store.version import Version

log = logging.getLogger(__name__)

# A training's own chain, in its job's folder.
CHAIN = "chain"
MARK = "forwarded"
# A crash between the commit there and our note of it: so far back it is looked for.
LOOKED_AT = 20
CONFLICTS = 5
CONFLICT_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What a pass did.

    Attributes:
        versions: as they are in the named chain, oldest first.
        lost: how many were damaged, or had been given up for want of room.
    """

    versions: tuple[Version, ...] = ()
    lost: int = 0


def waiting(source: Store) -> list[Version]:
    """The versions that were asked for and haven't gone on yet, oldest first.

    Raises:
        CorruptionError, StoreUnavailable.
    """
    done, found = done_up_to(source), []
    for version in source.log():
        if version.counter <= done:
            break
        if version.metrics:
            found.append(version)
    return found[::-1]


def forward(
    source: Store,
    target: Store,
    metrics: Mapping[str, float],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Forwarded:
    """Commit to `target` what waits in `source`. Broken off anywhere, it can be called again.

    Args:
        metrics: added to those of every version.

    Raises:
        ConflictError: others keep committing there.
        CorruptionError, StoreUnavailable, SettingsError: one of the chains can't be used.
    """
    made, lost = list[Version](), 0
    for version in waiting(source):
        try:
            content = memoryview(source.read(version))
        except DecloudError as error:
            if error.retryable:
                raise
            log.warning("%s can't go on to %s: %s", version.name, target.where, error.message)
            lost += 1
        else:
            there = None if made else _found(target, version)
            made.append(there or _committed(target, version, content, metrics, sleep))
        source.backend.write(MARK, sealed(str(version.counter).encode()))
    return Forwarded(tuple(made), lost)


def done_up_to(source: Store) -> int:
    """The counter up to which everything has gone on, or never will; -1 for none.

    Raises:
        CorruptionError, StoreUnavailable.
    """
    data = source.backend.read(MARK)
    if data is None:
        return -1
    text = unsealed(data, f"{MARK} of {source.where}")
    if not text.isdigit():
        raise damaged(f"{MARK} of {source.where} is no number")
    return int(text)


def _found(target: Store, version: Version) -> Version | None:
    """The version there with the same content, if it is a recent one."""
    for number, each in enumerate(target.log()):
        if each.content_hash == version.content_hash:
            return each
        if number == LOOKED_AT:
            break
    return None


def _committed(
    target: Store,
    version: Version,
    content: memoryview,
    metrics: Mapping[str, float],
    sleep: Callable[[float], None],
) -> Version:
    ends = [0]
    for piece in version.pieces:
        ends.append(ends[-1] + piece.size)
    # The same pieces: what neighbours share here, they share there.
    pieces = [content[first:last] for first, last in itertools.pairwise(ends)]
    told = {**version.metrics, **metrics}
    for _ in range(CONFLICTS):
        try:
            return target.commit(pieces, version.commit_message, metrics=told)
        except ConflictError:
            sleep(CONFLICT_WAIT_S * (1 + random.random()))
    return target.commit(pieces, version.commit_message, metrics=told)
