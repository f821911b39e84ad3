"""Requests that nobody would send: the server answers each, with a result or a JSON-RPC error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey
from solders.signature import Signature

from decloud_trainer.localnet.ledger import Ledger
from decloud_trainer.localnet.rpc_methods import METHODS, answer
from decloud_trainer.localnet.rpc_params import Params, RpcFault
from decloud_trainer.localnet.subscriptions import SUBSCRIBE

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.sampled_from((2**31, 2**63, 2**64, 2**70, -(2**70)))
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from((str(Pubkey(bytes(range(32)))), str(Signature(bytes(range(64))))))
    | st.sampled_from(
        ["base64", "base58", "jsonParsed", "processed", "finalized", "all", "AQAB", "3x"]
    )
)
FIELDS = st.sampled_from(
    [
        "commitment",
        "preflightCommitment",
        "encoding",
        "dataSlice",
        "offset",
        "length",
        "filters",
        "dataSize",
        "memcmp",
        "bytes",
        "minContextSlot",
        "limit",
        "before",
        "until",
        "accounts",
        "addresses",
        "sigVerify",
        "replaceRecentBlockhash",
        "skipPreflight",
        "mentions",
        "maxSupportedTransactionVersion",
        "searchTransactionHistory",
        "withContext",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    ledger = Ledger()
    yield ledger
    ledger.close()


@settings(max_examples=800, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(METHODS)), st.lists(VALUES, max_size=3))
def test_any_parameters_are_answered(ledger: Ledger, method: str, params: list[Any]) -> None:
    """No parameter of any method raises anything but the error that is sent back."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    found = answer(ledger, json.dumps(request).encode())
    assert isinstance(found, dict)
    assert ("result" in found) != ("error" in found)
    json.dumps(found)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(SUBSCRIBE)), st.lists(VALUES, max_size=3))
def test_any_subscription_is_answered(method: str, params: list[Any]) -> None:
    """The same for subscribing."""
    try:
        subscription = SUBSCRIBE[method](Params(params))
    except RpcFault:
        return
    assert not subscription.is_over()
