"""Inference from a chain: a version that is pinned, or always the newest."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from decloud_trainer.errors import DecloudError
from decloud_trainer.store.chain import Store
from decloud_trainer.store.version import Version

log = logging.getLogger(__name__)

T = TypeVar("T")
Load = Callable[[Store, Version], T]


class Following(Generic[T]):
    """What a version was loaded to; `current` may change while it is open, in one step.

    Args:
        load: makes of a version what serves; it runs beside whoever uses the one before.
        poll_s: how often HEAD is looked at; None = never.
    """

    def __init__(self, store: Store, version: Version, load: Load[T], poll_s: float | None) -> None:
        self._store = store
        self._load = load
        self._poll_s = poll_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # One reference: a reader sees a version and what belongs to it, never a mixture.
        self._served = (version, load(store, version))

    @property
    def version(self) -> Version:
        return self._served[0]

    @property
    def current(self) -> T:
        return self._served[1]

    @property
    def served(self) -> tuple[Version, T]:
        """Both, as they belong together."""
        return self._served

    def look(self) -> bool:
        """Load HEAD if it has moved; whether it had.

        Raises:
            DecloudError: the chain can't be read, or holds what `load` refuses; what served before
                goes on serving.
        """
        head = self._store.get_head()
        if head is None or head == self.version:
            return False
        self._served = (head, self._load(self._store, head))
        return True

    def __enter__(self) -> Self:
        if self._poll_s is not None:
            self._thread = threading.Thread(target=self._poll, name="following", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                if self.look():
                    log.info("%s: serving %s now", self._store.where, self.version.name)
            except DecloudError as error:
                log.warning("%s: still serving %s: %s", self._store.where, self.version.name, error)


def pinned(store: Store, version: str | int, load: Load[T]) -> Following[T]:
    """This version and no other, whatever is committed."""
    return Following(store, store.get_version(version), load, None)


def tracking(store: Store, poll_s: float, load: Load[T]) -> Following[T]:
    """The newest version, looked for every `poll_s` seconds.

    Raises:
        DecloudError: the chain is empty.
    """
    head = store.get_head()
    if head is None:
        raise DecloudError(f"{store.where} has no version to serve yet", hint="commit one first")
    return Following(store, head, load, poll_s)
