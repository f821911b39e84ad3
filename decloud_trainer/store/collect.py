"""Garbage collection: old contents go, records stay, so that the chain can still be verified."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from decloud_trainer.errors import ConflictError, SettingsError
from decloud_trainer.store.chain import HEAD, Store, blob_key, marked, split_mark
from decloud_trainer.store.version import Version

# A blob that no version names may belong to a commit that is under way.
YOUNG_S = 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a collection gives up.

    Attributes:
        versions: whose contents go, oldest first; those that went before are not among them.
        kept: counters of the versions whose contents stay.
        blobs: keys of the blobs that only given-up versions name, and of stray ones.
        freed: bytes of these blobs.
    """

    versions: tuple[Version, ...]
    kept: frozenset[int]
    blobs: tuple[str, ...]
    freed: int


def plan(store: Store, keep: int, protect: Collection[int] = (), young_s: float = YOUNG_S) -> Plan:
    """What would go if the contents of the newest `keep` versions, of the first one, of tagged
    ones and of those in `protect` stay.

    Args:
        young_s: how old a blob that no version names must be; 0 where nobody else commits.

    Raises:
        SettingsError: fewer than one is to stay, or a protected version isn't there.
        CorruptionError, StoreUnavailable.
    """
    if keep < 1:
        raise SettingsError("at least the newest version stays", hint="use --keep 1 or more")
    log = list(store.log())
    if not log:
        return Plan((), frozenset(), (), 0)
    newest = log[0].counter
    missing = [counter for counter in protect if not 0 <= counter <= newest]
    if missing:
        raise SettingsError(f"{store.where} has no version {missing[0]} to protect")
    kept = {0, *range(max(0, newest - keep + 1), newest + 1), *store.tags().values(), *protect}
    gone = [v for v in reversed(log) if v.counter not in kept and not store.is_collected(v)]
    named = {blob_key(piece.sha256) for v in log if v.counter in kept for piece in v.pieces}
    fallen = {blob_key(piece.sha256) for v in log for piece in v.pieces} - named
    now = store.now().timestamp()
    doomed = {
        stored.key: stored.size
        for stored in store.backend.list("blobs/")
        if stored.key in fallen or (stored.key not in named and now - stored.modified >= young_s)
    }
    return Plan(tuple(gone), frozenset(kept), tuple(sorted(doomed)), sum(doomed.values()))


def collect(
    store: Store, keep: int, protect: Collection[int] = (), young_s: float = YOUNG_S
) -> Plan:
    """Give the contents up that `plan` names. Interrupted anywhere, the chain is sound, and
    another collection goes on.

    Raises:
        as `plan`.
    """
    with store.backend.exclusive(), _no_commits(store):
        found = plan(store, keep, protect, young_s)
        _give_up(store, found.versions, found.blobs)
    return found


def give_up(store: Store, versions: Collection[Version], kept: Collection[Version]) -> None:
    """Give these contents up without looking at the rest of the chain.

    For the only writer of a chain in a folder, who knows which versions have a content.

    Args:
        kept: all versions whose contents stay.
    """
    named = {piece.sha256 for version in kept for piece in version.pieces}
    fallen = {piece.sha256 for version in versions for piece in version.pieces} - named
    with store.backend.exclusive():
        _give_up(store, versions, map(blob_key, sorted(fallen)))


def _give_up(store: Store, versions: Iterable[Version], blobs: Iterable[str]) -> None:
    # First: a content that is partly gone must not look like a damaged one.
    store.mark_collected(versions)
    for key in blobs:
        store.backend.delete(key)


@contextlib.contextmanager
def _no_commits(store: Store) -> Iterator[None]:
    """Mark HEAD where no lock keeps commits out. A mark that is old is a collection's that was
    broken off: what that one was about to do, this one does."""
    head = store.backend.read(HEAD)
    if store.backend.keeps_others_out or head is None:
        yield
        return
    plain, began = split_mark(head)
    now = store.now().timestamp()
    if began is not None and now - began < YOUNG_S:
        raise ConflictError(
            f"another garbage collection of {store.where} has been under way for "
            f"{(now - began) / 60:.0f} minutes",
            hint="if it was broken off, it can be taken over an hour after its start",
        )
    mine = marked(plain, now)
    if not store.backend.swap(HEAD, head, mine):
        raise ConflictError(f"{store.where} was just committed to", hint="try again")
    try:
        yield
    finally:
        store.backend.swap(HEAD, mine, plain)
