"""A chain as it is, in another place: the same records, so the same hashes."""

from __future__ import annotations

from collections.abc import Callable

from decloud_trainer.errors import ConflictError
from decloud_trainer.store.chain import HEAD, TAGS, Store, blob_key, record_key
from decloud_trainer.store.seal import damaged, sealed
from decloud_trainer.store.version import Version


def copy(
    source: Store,
    target: Store,
    *,
    each: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Bring `target` up to `source`'s HEAD; how many versions that took.

    Contents are verified on the way; those that a garbage collection gave up are missing in the
    copy, too. The copy's HEAD moves last and version by version, so that a copy that was broken
    off can be gone on with.

    Args:
        each: called with (versions done, versions in all).

    Raises:
        ConflictError: `target` holds another chain, or is further on.
        CorruptionError: something in `source` is damaged; what came before it has been copied.
        StoreUnavailable.
    """
    newest, there = source.get_head(), target.get_head()
    if newest is None:
        if there is not None:
            raise _other_chain(source, target)
        return 0
    first = 0 if there is None else there.counter + 1
    if there is not None and (
        there.counter > newest.counter or source.get_version(there.counter) != there
    ):
        raise _other_chain(source, target)
    with target.backend.exclusive():
        for counter in range(first, newest.counter + 1):
            version = newest if counter == newest.counter else source.filed(counter)
            if there is not None and version.parent_hash != there.hash:
                raise damaged(f"{version.name} of {source.where} has another parent")
            _copy_version(source, target, version, there)
            there = version
            each(counter + 1 - first, newest.counter + 1 - first)
        tags = source.backend.read(TAGS)
        if tags is not None:
            target.backend.write(TAGS, tags)
    return newest.counter + 1 - first


def _copy_version(source: Store, target: Store, version: Version, before: Version | None) -> None:
    if source.is_collected(version):
        target.mark_collected([version])
    else:
        source.read(version)  # whole and sound, before a piece of it goes anywhere
        known = set[str]()
        if before is not None and not target.is_collected(before):
            known = {piece.sha256 for piece in before.pieces}
        for piece in version.pieces:
            if piece.sha256 not in known:
                data = source.backend.read(blob_key(piece.sha256), piece.size)
                assert data is not None, "it was read a moment ago"
                target.backend.write(blob_key(piece.sha256), data)
                known.add(piece.sha256)
    old = None if before is None else sealed(before.to_bytes())
    if before is not None and old is not None:
        target.backend.write(record_key(before.counter), old)
    if not target.backend.swap(HEAD, old, sealed(version.to_bytes())):
        raise _other_chain(source, target)


def _other_chain(source: Store, target: Store) -> ConflictError:
    return ConflictError(
        f"{target.where} is no beginning of {source.where}: it has versions of its own",
        hint="copy into an empty place",
    )
