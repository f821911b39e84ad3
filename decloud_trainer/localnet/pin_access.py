"""What the local pin services have in common: who is let in, how somebody is turned away."""

from __future__ import annotations

import hmac
import json
from typing import Protocol

from aiohttp import hdrs, web


class Faults(Protocol):
    """The switchboard of faults; `gateway_wrong_bytes` is the gateway's, those that begin with
    `pin_` the pin services'."""

    def take(self, name: str) -> bool:
        """Whether the fault strikes this time."""
        ...


def is_down(faults: Faults | None) -> bool:
    """Whether a service is to be out of order for this request."""
    return faults is not None and faults.take("pin_down")


def bears(request: web.Request, token: str) -> bool:
    """Whether the request has the token in its Authorization header."""
    given = request.headers.get(hdrs.AUTHORIZATION, "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


def error_body(reason: str, details: str) -> str:
    return json.dumps({"error": {"reason": reason, "details": details}})


def refusal(kind: type[web.HTTPError], reason: str, details: str) -> web.HTTPException:
    return kind(text=error_body(reason, details), content_type="application/json")
