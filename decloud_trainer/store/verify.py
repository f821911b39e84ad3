"""Is a chain what it was when it was written? Everything is read and hashed anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from decloud_trainer.errors import CorruptionError
from decloud_trainer.store.chain import Store
from decloud_trainer.store.version import Version, version_name


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a version; `counter` is None when it is HEAD or the tags."""

    counter: int | None
    message: str

    @property
    def name(self) -> str:
        return "HEAD" if self.counter is None else version_name(self.counter)


def problems(
    store: Store, *, each: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Problem]:
    """Every problem of the chain, oldest version first; nothing for a sound one.

    Checked are records and their canonical form, counters, links, HEAD, contents, tags. What a
    garbage collection gave up is no problem: its record still stands in the chain.

    Args:
        each: called with (versions done, versions in all).

    Raises:
        StoreUnavailable.
    """
    try:
        head = store.get_head()
    except CorruptionError as error:
        yield Problem(None, error.message)
        return
    if head is None:
        if any(True for _ in store.backend.list("versions/")):
            yield Problem(None, f"HEAD is missing from {store.where}, versions are there")
        return
    before: Version | None = None
    for counter in range(head.counter + 1):
        try:
            version = head if counter == head.counter else store.filed(counter)
        except CorruptionError as error:
            yield Problem(counter, error.message)
            before = None
        else:
            yield from _problems_of(store, version, before)
            before = version
        each(counter + 1, head.counter + 1)
    yield from _tag_problems(store, head)


def _problems_of(store: Store, version: Version, before: Version | None) -> Iterator[Problem]:
    """`before` is None for the first version, and where the record before can't be read."""
    if version.counter == 0 and version.parent_hash:
        yield Problem(0, "the first version names a parent")
    if before is not None and version.parent_hash != before.hash:
        yield Problem(
            version.counter,
            f"{version.name} names {version.parent_hash[:16]}... as its parent, "
            f"{before.name} is {before.hash[:16]}...",
        )
    if store.is_collected(version):
        return
    try:
        store.read(version)
    except CorruptionError as error:
        yield Problem(version.counter, error.message)


def _tag_problems(store: Store, head: Version) -> Iterator[Problem]:
    try:
        tags = store.tags()
    except CorruptionError as error:
        yield Problem(None, error.message)
        return
    for name, counter in tags.items():
        if counter > head.counter:
            yield Problem(None, f"the tag {name} names {version_name(counter)}, which isn't there")
