"""Several JSON-RPC endpoints that are used as one: the best one first, the others when it fails.

A call goes to the endpoint that has served best. When that one fails, or says nothing for
`Use.hedge_s`, the next one is asked as well, and the first good answer counts: an endpoint that
hangs costs a second, not a time-out. An endpoint that has just failed is asked last for a while,
one that answered 429 not at all for as long as it said. One that serves another cluster, or a
past that another endpoint has long left behind, is passed over, and that is logged.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

from decloud_trainer.chain.budget import PUBLIC, Budget, Limit, limit_of
from decloud_trainer.chain.health import MAX_LAG_SLOTS, Health
from decloud_trainer.chain.jsonrpc import PASSING_CODES, Endpoint, Unanswered
from decloud_trainer.errors import RpcError, SettingsError

log = logging.getLogger(__name__)

PROBE_S: Final = 30.0
_PUBLIC_HOSTS: Final = frozenset(
    f"api.{name}.solana.com" for name in ("mainnet-beta", "devnet", "testnet")
)
Read = Callable[[Endpoint, Mapping[str, Any]], Any]
_Running = dict["asyncio.Task[Any]", "Known"]


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


@dataclass(slots=True, eq=False)
class Known:
    """An endpoint with what we know and allow of it."""

    endpoint: Endpoint
    health: Health
    budget: Budget


@dataclass(slots=True)
class Asked:
    """What came of asking: values of good answers, errors of the others.

    Attributes:
        order: the endpoints in the order in which they were asked; winners: those that answered.
        may_pass: whether any of the errors may be gone in a moment.
    """

    values: list[Any] = field(default_factory=list)
    order: list[Known] = field(default_factory=list)
    winners: list[Known] = field(default_factory=list)
    errors: list[RpcError] = field(default_factory=list)
    may_pass: bool = False


class Endpoints:
    """One or several URLs of the same cluster.

    Args:
        urls: in the user's order of preference; see `Endpoint`.
        timeout_s: for one attempt at one endpoint.
        attempts: of a read, over all endpoints each, the first included.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        timeout_s: float = 20.0,
        attempts: int = 4,
        use: Use = Use(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        urls = (urls,) if isinstance(urls, str) else tuple(dict.fromkeys(urls))
        if not urls:
            raise SettingsError("there is no RPC endpoint", hint="set rpc_url")
        self._attempts = attempts
        self._use = use
        self._genesis = use.genesis
        self._clock = clock
        self._sleep = sleep
        self._known = [
            Known(
                Endpoint(url, timeout_s=timeout_s),
                Health(place),
                Budget(_limit(url, use.limit), clock=clock, sleep=sleep),
            )
            for place, url in enumerate(urls)
        ]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(k.endpoint.host for k in self._known)})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        for known in self._known:
            await known.endpoint.aclose()

    @property
    def host(self) -> str:
        """The host of the endpoint that would be asked now."""
        return self._best().endpoint.host

    @property
    def newest_slot(self) -> int:
        """The newest slot that any endpoint has shown; 0 before the first."""
        return max(known.health.slot for known in self._known)

    def each(self) -> Iterator[Self]:
        """Every endpoint in use by itself, with one attempt; resting ones only if all rest."""
        now = self._clock()
        usable = self._in_order("getSlot")
        awake = [known for known in usable if now >= known.health.rests_until]
        for known in awake or usable:
            view = copy.copy(self)
            view._known = [known]
            view._attempts = 1
            yield view

    def health(self) -> list[tuple[str, Health]]:
        """Host and record of every endpoint, in the user's order; their times are `clock`'s."""
        return [(known.endpoint.host, known.health) for known in self._known]

    def nonsense(self, method: str) -> RpcError:
        """The error for an answer whose content no Solana node would give."""
        return self._best().endpoint.nonsense(method)

    async def call(
        self, method: str, *params: Any, read: Callable[[Any], Any] = lambda result: result
    ) -> Any:
        """The result of a read, tried again while all endpoints are unreachable, busy or behind.

        Args:
            read: checks a result, and what it makes of it is returned; a TypeError, KeyError or
                ValueError of it says that the endpoint's answer is none.

        Raises:
            RpcError: no useful answer in all attempts, or a refusal that retrying can't change.
        """

        def value(endpoint: Endpoint, answer: Mapping[str, Any]) -> Any:
            result = endpoint.result(answer, method)
            try:
                return read(result)
            except (TypeError, KeyError, ValueError, AttributeError) as error:
                raise endpoint.nonsense(method) from error

        attempt = 1
        while True:
            asked = await self.ask(method, params, value)
            if asked.values:
                return asked.values[0]
            error = asked.errors[0]
            wait_s = max(0.25 * 2**attempt, self._barred_s())
            if not asked.may_pass or attempt == self._attempts or wait_s > self._use.max_wait_s:
                raise error
            log.debug("%s; trying again", error)
            await self._sleep(wait_s)
            attempt += 1

    async def ask(
        self, method: str, params: Sequence[Any], read: Read, *, everywhere: bool = False
    ) -> Asked:
        """Ask one endpoint after the other until one has a good answer; each at most once.

        Args:
            read: the value of a good answer; raises RpcError for another one.
            everywhere: ask all of them at once, and wait `Use.hedge_s` for the slower ones.
        """
        waiting = self._in_order(method)
        asked = Asked()
        if not waiting:
            asked.errors.append(self._none_left(method))
            asked.may_pass = True
            return asked
        running: _Running = {}
        begin = len(waiting) if everywhere else 1
        try:
            while waiting or running:
                for known in waiting[:begin]:
                    asked.order.append(known)
                    running[asyncio.create_task(self._one(known, method, params, read))] = known
                del waiting[:begin]
                begin = 1  # one more after each silence and after each failure
                had_outcome = await self._next(running, asked, hedged=bool(waiting or asked.values))
                if (asked.values and not everywhere) or not (had_outcome or waiting):
                    break
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        for known in running.values():
            asked.errors.append(self._outrun(known, method, asked))
        return asked

    async def keep_probing(self) -> None:
        """For ever: see how far each of several endpoints is, also those that are not in use."""
        while len(self._known) > 1:
            for known in self._known:
                if not known.health.is_barred(self._clock()):
                    await self._probe(known)
            await self._sleep(PROBE_S)

    async def probe(self) -> list[Health]:
        """Ask every endpoint once where it stands; what is known of each then, in order."""
        for known in self._known:
            await self._probe(known)
        return [known.health for known in self._known]

    async def _probe(self, known: Known) -> None:
        def read(endpoint: Endpoint, answer: Mapping[str, Any]) -> int:
            slot = endpoint.result(answer, "getSlot")
            if type(slot) is not int:
                raise endpoint.nonsense("getSlot")
            return slot

        try:
            slot = await self._one(known, "getSlot", [{"commitment": "confirmed"}], read)
            self._check_slot(known, slot, "getSlot")
        except (RpcError, Unanswered) as error:
            log.debug("%s: %s", known.endpoint.host, error)

    async def _next(self, running: _Running, asked: Asked, *, hedged: bool) -> bool:
        """Wait for an outcome, or with `hedged` for `Use.hedge_s`; whether there was one."""
        done, _ = await asyncio.wait(
            running,
            timeout=self._use.hedge_s if hedged else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in done:
            known = running.pop(task)
            try:
                asked.values.append(task.result())
                asked.winners.append(known)
            except Unanswered as trouble:
                asked.errors.append(trouble.error)
                asked.may_pass = True
            except RpcError as refusal:
                asked.errors.append(refusal)
                asked.may_pass |= refusal.code in PASSING_CODES
        return bool(done)

    async def _one(self, known: Known, method: str, params: Sequence[Any], read: Read) -> Any:
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
        if known.health.is_ours or (len(self._known) == 1 and not self._genesis):
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

    def _in_order(self, method: str) -> list[Known]:
        now = self._clock()
        usable = [known for known in self._known if not known.health.is_barred(now)]
        return sorted(usable, key=lambda k: k.health.rank(now, k.budget.wait_s(method)))

    def _best(self) -> Known:
        usable = self._in_order("getSlot") or self._known
        return usable[0]

    def _barred_s(self) -> float:
        """Until any endpoint may be asked; 0 if one may be asked now."""
        now = self._clock()
        if any(not known.health.is_barred(now) for known in self._known):
            return 0.0
        ends = (
            known.health.limited_until if known.health.is_ours is not False else float("inf")
            for known in self._known
        )
        return max(min(ends) - now, 0.0)

    def _none_left(self, method: str) -> RpcError:
        known = min(self._known, key=lambda k: k.health.limited_until)
        limited = known.health.limited_until > self._clock()
        return RpcError(
            f"no RPC endpoint may be asked for {method} now: {known.health.trouble}",
            hint="add rpc_fallbacks, or use an RPC endpoint of your own",
            code=429 if limited else None,
        )

    def _outrun(self, known: Known, method: str, asked: Asked) -> RpcError:
        """The error of an endpoint that wasn't waited for any longer.

        It counts against its health if one that was asked later has answered before it."""
        host = known.endpoint.host
        error = RpcError(f"{host} failed at {method}: another endpoint was faster")
        place = asked.order.index(known)
        if any(winner in asked.order[place:] for winner in asked.winners):
            known.health.failed(error.message, self._clock())
        return error


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
