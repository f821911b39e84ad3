"""A chain for programs with an event loop: the same calls, awaited."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Literal, ParamSpec, Self, TypeVar

from decloud_trainer.errors import DecloudError
from decloud_trainer.store.backend import Buffer
from decloud_trainer.store.chain import Hashed, Store
from decloud_trainer.store.opening import open_store
from decloud_trainer.store.version import Version

P = ParamSpec("P")
T = TypeVar("T")


class AsyncStore:
    """A `Store` whose calls run, one after the other, on a thread of their own.

    Args:
        chain: its name, as `open_store` takes it, or the store itself.

    Attributes:
        sync: the store, for code that doesn't await.
    """

    def __init__(self, chain: str | Store) -> None:
        self.sync = open_store(chain) if isinstance(chain, str) else chain
        self._thread: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for what was begun."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.shutdown)

    async def get_head(self) -> Version | None:
        return await self._call(self.sync.get_head)

    async def get_version(self, name: str | int) -> Version:
        return await self._call(self.sync.get_version, name)

    async def log(self) -> list[Version]:
        """All versions, newest first."""
        return await self._call(lambda: list(self.sync.log()))

    async def commit(
        self,
        pieces: Iterable[Buffer | Hashed],
        commit_message: str,
        *,
        metrics: Mapping[str, float] | None = None,
        onto: Version | Literal["head"] | None = "head",
    ) -> Version:
        return await self._call(
            self.sync.commit, pieces, commit_message, metrics=metrics, onto=onto
        )

    async def read(self, version: Version) -> bytes:
        return await self._call(self.sync.read, version)

    async def tag(self, name: str, version: Version) -> None:
        await self._call(self.sync.tag, name, version)

    async def untag(self, name: str) -> None:
        await self._call(self.sync.untag, name)

    async def _call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Once begun it is done to its end, even if whoever waits for it is cancelled."""
        if self._thread is None:
            raise DecloudError("the store isn't open", hint="use it within `async with`")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, functools.partial(work, *args, **kwargs))
