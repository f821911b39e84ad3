"""Pin with an IPFS node of one's own: the RPC API of Kubo (``ipfs daemon``).

The node keeps the content and offers it to the network for as long as it runs.
"""

from __future__ import annotations

import json
from urllib.parse import quote

from decloud_trainer.errors import DecloudError, PinError, PinRefused
from decloud_trainer.ipfs.http import check_base_url
from decloud_trainer.ipfs.uploads import (
    Multipart,
    PinClient,
    PinService,
    Upload,
    Usage,
    check_secret,
    parts_of,
    verified,
)

_CONNECT_TO_S = 10.0  # how long the node may try to reach one other node
_MAX_ADDRESSES, _MAX_ADDRESS_LENGTH = 20, 256  # what the Pinning Service API takes as origins


class Kubo(PinService):
    """A Kubo node by its RPC API, usually at ``http://127.0.0.1:5001``."""

    name = "Kubo"

    def __init__(self, api_url: str, token: str = "") -> None:
        """`token` is for a node whose `API.Authorizations` asks for one."""
        base = check_base_url(api_url, "the Kubo node")
        self._url = f"{base.removesuffix('/api/v0')}/api/v0"
        secrets = (check_secret(token, "kubo_token"),) if token else ()
        headers = {"Authorization": f"Bearer {secrets[0]}"} if secrets else {}
        self._client = PinClient(headers, secrets, "kubo_api_url and kubo_token")

    def __repr__(self) -> str:
        return f"Kubo({self._url!r})"

    def check(self) -> None:
        """Is there a node, and does it let us in?"""
        answer = self._client.call("POST", f"{self._url}/version")
        if not isinstance(answer.get("Version"), str):
            raise PinRefused(
                f"what answers at {self._url} isn't a Kubo node's RPC API",
                hint="its address is in `ipfs config Addresses.API`; the gateway's port is another",
            )

    def pin(self, upload: Upload) -> str:
        """Add it to the node and pin it there.

        How files are cut is left to the node's own settings, except for the CID's version: its
        usual ways can be verified here. A node has no names for pins that all its versions know,
        so the upload's name isn't sent.
        """
        # Slashes and all else in a name must be escaped: the node decodes it.
        files = [(quote(inner, safe=""), file) for inner, file in parts_of(upload.path)]
        body = Multipart({}, files, upload.stop)
        query = "cid-version=1&raw-leaves=true&pin=true&progress=false"
        url = f"{self._url}/add?{query}"
        text = self._client.text("POST", url, body, answer_s=upload.answer_s)
        return verified(self._root(text), upload.path)

    def _held(self) -> Usage:
        """The size of the node's repository."""
        answer = self._client.call("POST", f"{self._url}/repo/stat?size-only=true")
        return Usage(None, int(answer["RepoSize"]))

    def _lists(self, cid: str) -> bool:
        """Pinned with all that is below it; the node answers 500 for what isn't."""
        answer = self._client.call("POST", f"{self._url}/pin/ls?type=recursive&arg={quote(cid)}")
        keys = answer.get("Keys")
        return isinstance(keys, dict) and cid in keys

    def _root(self, text: str) -> object:
        """The CID in the last of the answer's lines: each line tells of one file or folder."""
        last: object = None
        for line in text.splitlines():
            try:
                told = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise PinError("the Kubo node answered something that isn't JSON") from error
            if not isinstance(told, dict):
                raise PinError("the Kubo node answered something that isn't a JSON object")
            if "Message" in told:  # it had begun with 200 before it failed
                said = self._client.printable(str(told["Message"]))
                raise PinError(f"the Kubo node failed to add it: {said}")
            last = told.get("Hash", last)
        return last

    def addresses(self) -> list[str]:
        """Where other nodes can reach it: multiaddresses."""
        found = self._client.call("POST", f"{self._url}/id").get("Addresses")
        return _multiaddresses(found)

    def connect(self, addresses: object) -> None:
        """Have the node connect to others, as far as it can: each failure is passed over."""
        for address in _multiaddresses(addresses):
            try:
                self._client.call(
                    "POST",
                    f"{self._url}/swarm/connect?arg={quote(address, safe='')}",
                    answer_s=_CONNECT_TO_S,
                )
            except DecloudError:
                continue  # it may be found another way


def _multiaddresses(values: object) -> list[str]:
    if not isinstance(values, list):
        return []
    fit = [v for v in values if isinstance(v, str) and v.startswith("/") and v.isprintable()]
    return [v for v in fit if len(v) <= _MAX_ADDRESS_LENGTH][:_MAX_ADDRESSES]
