"""A training's own chain, and what of it goes on to a chain that its user named.

A training commits to a chain in its folder, which is always there. Versions with metrics are those
that were asked for: they go on to the named chain, in their order, by whoever may write there. A
version without metrics is for resuming alone.

Whoever passes them on holds keys, and the training child that made them read a stranger's model. So
nothing of its chain is believed: files are plain ones with an end, one piece at a time is in
memory, and all is verified before anything is written.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
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
_MAX_DIGITS = 15
CONFLICTS = 5
CONFLICT_WAIT_S = 0.5
# More than the largest network's largest tensor, and than all that its training keeps.
MAX_PIECE_BYTES = 1024**3
MAX_CONTENT_BYTES = 32 * 1024**3


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What a pass did.

    Attributes:
        versions: as they are in the named chain, oldest first.
        lost: how many were damaged or too large, or had been given up for want of room.
    """

    versions: tuple[Version, ...] = ()
    lost: int = 0


def waiting(source: Store) -> Iterator[Version]:
    """The versions that were asked for and haven't gone on yet, oldest first.

    Raises:
        CorruptionError, StoreUnavailable.
    """
    head = source.get_head()
    if head is not None:
        for counter in range(done_up_to(source) + 1, head.counter + 1):
            version = head if counter == head.counter else source.filed(counter)
            if version.metrics:
                yield version


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
            _check(source, version)
        except DecloudError as error:
            if error.retryable:
                raise
            log.warning("%s can't go on to %s: %s", version.name, target.where, error.message)
            lost += 1
        else:
            there = None if made else _found(target, version)
            made.append(there or _committed(source, target, version, metrics, sleep))
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
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise damaged(f"{MARK} of {source.where} is no counter")
    return int(text)


def _check(source: Store, version: Version) -> None:
    """See that the version's content is there, whole, and of a size that a training's can have.

    Raises:
        CorruptionError, StoreUnavailable.
        DecloudError: it was given up.
    """
    largest = max((piece.size for piece in version.pieces), default=0)
    if largest > MAX_PIECE_BYTES or version.size > MAX_CONTENT_BYTES:
        raise damaged(f"{version.name} of {source.where} is larger than a training's state can be")
    for _ in source.pieces(version):
        pass


def _found(target: Store, version: Version) -> Version | None:
    """The version there with the same content, if it is a recent one."""
    for number, each in enumerate(target.log()):
        if each.content_hash == version.content_hash:
            return each
        if number == LOOKED_AT:
            break
    return None


def _committed(
    source: Store,
    target: Store,
    version: Version,
    metrics: Mapping[str, float],
    sleep: Callable[[float], None],
) -> Version:
    told = {**version.metrics, **metrics}
    for _ in range(CONFLICTS):
        try:
            # The same pieces: what neighbours share here, they share there.
            return target.commit(source.pieces(version), version.commit_message, metrics=told)
        except ConflictError:
            sleep(CONFLICT_WAIT_S * (1 + random.random()))
    return target.commit(source.pieces(version), version.commit_message, metrics=told)
