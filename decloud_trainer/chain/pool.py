"""The endpoints of one cluster: what is known of each, which may be asked, and in what order.

An endpoint that has just failed is asked last for a while, one that answered 429 not at all for as
long as it said. One that serves another cluster, or a past that another endpoint has long left
behind, is passed over, and that is logged.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

from decloud_trainer.chain.budget import PUBLIC, Budget, Limit, limit_of
from decloud_trainer.chain.clusters import CLUSTERS
from decloud_trainer.chain.health import MAX_LAG_SLOTS, Health
from decloud_trainer.chain.jsonrpc import PASSING_CODES, Endpoint, Unanswered
from decloud_trainer.errors import RpcError, SettingsError

log = logging.getLogger(__name__)

PROBE_S: Final = 30.0
_PUBLIC_HOSTS: Final = frozenset(
    urlsplit(cluster.rpc_url).hostname for cluster in CLUSTERS.values() if cluster.genesis
)
Read = Callable[[Endpoint, Mapping[str, Any]], Any]
"""The value of a good answer; raises RpcError for another one."""


@dataclass(frozen=True, slots=True)
class Use:
    """How endpoints are used.

    Attributes:
        limit: requests in ten seconds to each; 0: the public endpoints' published limit, and
            none for others.
        genesis: the cluster's genesis hash; empty: that of the first endpoint that tells its own.
        hedge_s: so long one endpoint is waited for before the next one is asked as well.
        max_wait_s: the longest pause between two rounds of attempts.
    """

    limit: int = 0
    genesis: str = ""
    hedge_s: float = 1.0
    max_wait_s: float = 10.0


USUAL: Final = Use()


@dataclass(slots=True, eq=False)
class Known:
    """An endpoint with what we know and allow of it."""

    endpoint: Endpoint
    health: Health
    budget: Budget


class Pool:
    """One or several endpoints, each with its health and its budget.

    Args:
        urls: in the user's order of preference; see `Endpoint`.
        timeout_s: for one attempt at one endpoint.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        urls: Iterable[str],
        use: Use,
        *,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        urls = tuple(dict.fromkeys(urls))
        if not urls:
            raise SettingsError("there is no RPC endpoint", hint="set rpc_url")
        self._genesis = use.genesis
        self._clock = clock
        self._sleep = sleep
        self.known = [
            Known(
                Endpoint(url, timeout_s=timeout_s),
                Health(place),
                Budget(_limit(url, use.limit), clock=clock, sleep=sleep),
            )
            for place, url in enumerate(urls)
        ]

    @property
    def newest_slot(self) -> int:
        """The newest slot that any endpoint has shown; 0 before the first."""
        return max(known.health.slot for known in self.known)

    def each(self) -> Iterator[Self]:
        """Every endpoint in use as a pool by itself; resting ones only if all rest."""
        now = self._clock()
        usable = self.in_order("getSlot")
        awake = [known for known in usable if now >= known.health.rests_until]
        for known in awake or usable:
            alone = copy.copy(self)
            alone.known = [known]
            yield alone

    def in_order(self, method: str) -> list[Known]:
        """Those that may be asked, the best one first."""
        now = self._clock()
        usable = [known for known in self.known if not known.health.is_barred(now)]
        return sorted(usable, key=lambda k: k.health.rank(now, k.budget.wait_s(method)))

    def best(self) -> Known:
        """The one that would be asked now."""
        usable = self.in_order("getSlot") or self.known
        return usable[0]

    def barred_s(self) -> float:
        """Until any endpoint may be asked; 0 if one may be asked now."""
        now = self._clock()
        if any(not known.health.is_barred(now) for known in self.known):
            return 0.0
        ends = (
            known.health.limited_until if known.health.is_ours is not False else float("inf")
            for known in self.known
        )
        return max(min(ends) - now, 0.0)

    def none_left(self, method: str) -> RpcError:
        """The error where none may be asked."""
        known = min(self.known, key=lambda k: k.health.limited_until)
        limited = known.health.limited_until > self._clock()
        return RpcError(
            f"no RPC endpoint may be asked for {method} now: {known.health.trouble}",
            hint="add rpc_fallbacks, or use an RPC endpoint of your own",
            code=429 if limited else None,
        )

    async def attempt(self, known: Known, method: str, params: Sequence[Any], read: Read) -> Any:
        """One attempt at one endpoint; its health learns of it.

        Raises:
            Unanswered, RpcError
        """
        await self._make_sure(known)
        await known.budget.take(method)
        began = self._clock()
        answer = await self._exchange(known, method, params)
        try:
            value = read(known.endpoint, answer)
        except RpcError as error:
            if error.code is None or error.code in PASSING_CODES:
                known.health.failed(error.message, self._clock())
            else:
                known.health.answered(self._clock() - began)
            raise
        slot = _slot_in(answer)
        if slot is not None:
            self._check_slot(known, slot, method)
        known.health.answered(self._clock() - began)
        return value

    async def _exchange(
        self, known: Known, method: str, params: Sequence[Any]
    ) -> Mapping[str, Any]:
        try:
            return await known.endpoint.exchange(method, params)
        except Unanswered as trouble:
            known.health.failed(
                trouble.error.message, self._clock(), retry_after_s=trouble.retry_after_s
            )
            raise

    async def _make_sure(self, known: Known) -> None:
        """That the endpoint serves our cluster, before its first answer counts.

        Raises:
            Unanswered: it doesn't, or doesn't say.
        """
        if known.health.is_ours or (len(self.known) == 1 and not self._genesis):
            return
        await known.budget.take("getGenesisHash")
        answer = await self._exchange(known, "getGenesisHash", ())
        genesis = answer.get("result")
        if not isinstance(genesis, str) or not genesis:
            raise Unanswered(known.endpoint.nonsense("getGenesisHash"))
        self._genesis = self._genesis or genesis
        host = known.endpoint.host
        if genesis == self._genesis:
            if known.health.is_ours is False:
                log.info("%s serves our cluster now", host)
            known.health.is_ours = True
            return
        trouble = f"{host} serves another cluster (genesis {genesis[:64]}) and is not used"
        if known.health.is_ours is None:
            log.warning("%s", trouble)
        known.health.is_foreign(trouble, self._clock())
        raise Unanswered(
            RpcError(trouble, hint="check network, rpc_url and rpc_fallbacks: they don't agree")
        )

    def _check_slot(self, known: Known, slot: int, method: str) -> None:
        """Raises Unanswered for an answer from the past, as other endpoints show."""
        newest = self.newest_slot
        known.health.slot = max(known.health.slot, slot)
        lag = newest - slot
        if lag <= MAX_LAG_SLOTS:
            return
        host = known.endpoint.host
        if not known.health.failures:
            log.warning("%s is %d slots behind the others and is not used", host, lag)
        known.health.failed(f"{lag} slots behind the others", self._clock())
        raise Unanswered(
            RpcError(f"{host} answered {method} from {lag} slots ago", hint="use another endpoint")
        )

    async def keep_probing(self) -> None:
        """For ever: see how far each of several endpoints is, also those that are not in use."""
        while len(self.known) > 1:
            for known in self.known:
                if not known.health.is_barred(self._clock()):
                    await self._probe(known)
            await self._sleep(PROBE_S)

    async def probe(self) -> list[Health]:
        """Ask every endpoint once where it stands; what is known of each then, in order."""
        for known in self.known:
            await self._probe(known)
        return [known.health for known in self.known]

    async def _probe(self, known: Known) -> None:
        def read(endpoint: Endpoint, answer: Mapping[str, Any]) -> int:
            slot = endpoint.result(answer, "getSlot")
            if type(slot) is not int:
                raise endpoint.nonsense("getSlot")
            return slot

        try:
            slot = await self.attempt(known, "getSlot", [{"commitment": "confirmed"}], read)
            self._check_slot(known, slot, "getSlot")
        except (RpcError, Unanswered) as error:
            log.debug("%s: %s", known.endpoint.host, error)


def _slot_in(answer: Mapping[str, Any]) -> int | None:
    """The slot that an answer speaks of, where it comes with one."""
    result = answer.get("result")
    context = result.get("context") if isinstance(result, dict) else None
    slot = context.get("slot") if isinstance(context, dict) else None
    return slot if type(slot) is int else None


def _limit(url: str, requests: int) -> Limit | None:
    if requests:
        return limit_of(requests)
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return None  # `Endpoint` says what is wrong with it
    return PUBLIC if host in _PUBLIC_HOSTS else None
