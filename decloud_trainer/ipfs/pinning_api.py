"""Pin with any service that speaks the IPFS Pinning Service API.

Such a service takes no uploads: it is given a CID and fetches the content from the IPFS network.
So there must be a node that has it. Ours is a Kubo node: the content is added there first, and
the two are brought together (origins and delegates, as the API calls them).
Source: the IPFS Pinning Service API specification, version 1.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from decloud_trainer.errors import PinError, PinRefused
from decloud_trainer.ipfs.http import check_base_url
from decloud_trainer.ipfs.kubo import Kubo
from decloud_trainer.ipfs.uploads import PinClient, PinService, Upload, Usage, check_secret

_LOOK_S, _LONGEST_LOOK_S = 0.1, 3.0  # between two looks at a pin's state: ever longer
_MAX_NAME = 255


class PinningApi(PinService):
    """A pinning service at an address like ``https://api.example.com/psa``."""

    name = "pinning API"

    def __init__(self, api_url: str, token: str, node: Kubo | None) -> None:
        """Without a `node` nothing can be pinned; the checks and pins say so."""
        self._url = check_base_url(api_url, "the pinning API")
        token = check_secret(token, "pinning_api_token")
        headers = {"Authorization": f"Bearer {token}"}
        names = "pinning_api_url and pinning_api_token"
        self._client = PinClient(headers, (token,), names)
        self._node = node

    def __repr__(self) -> str:
        return f"PinningApi({self._url!r}, token=***, node={self._node!r})"

    def check(self) -> None:
        """Try the credentials and the node."""
        self._provider().check()
        self._client.call("GET", f"{self._url}/pins?limit=1")

    def pin(self, upload: Upload) -> str:
        """Add the content to our node and have the service pin it from there.

        Only the state `pinned` counts; for that the service has `answer_s`. What it has begun
        goes on after that, and the next try finds it. Without a node it is a PinRefused.
        """
        until = time.monotonic() + upload.answer_s
        node = self._provider()
        cid = node.pin(upload)
        status = self._request(node, cid, upload.name)
        node.connect(status.get("delegates"))
        pause_s = _LOOK_S
        while (state := _state(status, cid)) != "pinned":
            if state not in ("queued", "pinning"):
                said = self._client.printable(str(status.get("info") or state or "nothing usable"))
                raise PinError(f"the pinning API did not pin {cid}: {said}")
            if time.monotonic() > until:
                raise PinError(
                    f"the pinning API has {cid} still {state} after {upload.answer_s:.0f} s"
                )
            if upload.stop.wait(pause_s):
                raise PinError("the upload was stopped")
            pause_s = min(2 * pause_s, _LONGEST_LOOK_S)
            request = quote(str(status.get("requestid"))[:200], safe="")
            status = self._client.call("GET", f"{self._url}/pins/{request}")
        return cid

    def _held(self) -> Usage:
        """How many pins there are."""
        answer = self._client.call("GET", f"{self._url}/pins?limit=1&status=pinned")
        return Usage(int(answer["count"]), None)

    def _lists(self, cid: str) -> bool:
        return any(_state(row, cid) == "pinned" for row in self._rows(cid, "pinned"))

    def _request(self, node: Kubo, cid: str, name: str) -> dict[str, Any]:
        """The service's state of this pin, asked for now unless that was done before."""
        for row in self._rows(cid, "queued,pinning,pinned"):
            if _state(row, cid) is not None:
                return row
        wanted = {"cid": cid, "name": name[:_MAX_NAME], "origins": node.addresses()}
        return self._client.call("POST", f"{self._url}/pins", content=wanted)

    def _rows(self, cid: str, states: str) -> list[dict[str, Any]]:
        url = f"{self._url}/pins?cid={quote(cid)}&status={states}"
        rows = self._client.call("GET", url).get("results")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def _provider(self) -> Kubo:
        if self._node is None:
            raise PinRefused(
                "the pinning API takes no uploads: it fetches content from an IPFS node, "
                "and none is configured",
                hint="run a Kubo node and: "
                "decloud-trainer config --set kubo_api_url=http://127.0.0.1:5001",
            )
        return self._node


def _state(status: Mapping[str, Any], cid: str) -> str | None:
    """The pin's state, provided that it is about this CID."""
    pin, state = status.get("pin"), status.get("status")
    is_ours = isinstance(pin, Mapping) and pin.get("cid") == cid
    return state if is_ours and isinstance(state, str) else None
