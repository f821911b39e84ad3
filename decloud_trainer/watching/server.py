"""``/metrics`` and ``/health`` on loopback, for Prometheus and for whatever restarts daemons."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiohttp import web

from decloud_trainer.errors import DecloudError
from decloud_trainer.watching.collecting import Sources, samples, troubles
from decloud_trainer.watching.metrics import CONTENT_TYPE, exposition

log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
# A web page may not reach it under a name of its own that points to loopback.
_NAMES: Final = frozenset({"127.0.0.1", "localhost"})
_PORT: Final = re.compile(r":\d+$")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def watched_at(port: int, sources: Sources) -> AsyncIterator[int | None]:
    """Serve inside; the port, which differs from the given one only for 0 (any free one).

    A port that can't be had is logged, and the daemon earns without: None."""
    runner = web.AppRunner(make_app(sources), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            log.warning(
                "metrics_port %d can't be used (%s): no metrics in this session",
                port,
                error.strerror,
            )
            yield None
        else:
            yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def make_app(sources: Sources) -> web.Application:
    async def metrics(request: web.Request) -> web.Response:
        try:
            text = exposition(await samples(sources))
        except DecloudError as error:
            log.warning("the metrics can't be read: %s", error)
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from error
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def health(request: web.Request) -> web.Response:
        reasons = troubles(sources)
        alarms = [{"alarm": one.name, "text": one.text} for one in sources.alarms()]
        return web.json_response(
            {"healthy": not reasons, "reasons": reasons, "alarms": alarms},
            status=503 if reasons else 200,
        )

    app = web.Application(middlewares=[_only_by_own_name], client_max_size=1024)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/health", health)
    return app


@web.middleware
async def _only_by_own_name(request: web.Request, handler: _Handler) -> web.StreamResponse:
    if _PORT.sub("", request.host) not in _NAMES:
        raise web.HTTPForbidden(text="only for this machine\n")
    return await handler(request)
