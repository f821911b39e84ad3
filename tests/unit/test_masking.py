"""Secrets are taken out of texts, known ones and those that only look like one."""

from __future__ import annotations

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair

from decloud_trainer.masking import MASK, masked, without

KEY = Keypair()


@pytest.mark.parametrize(
    "spelling",
    [
        base58.b58encode(bytes(KEY)).decode(),
        bytes(KEY).hex(),
        str(list(bytes(KEY))),
        repr(bytes(KEY)),
        "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyIjoiYWxpY2UifQ.c2lnbmF0dXJl",
    ],
)
def test_what_looks_like_a_key_is_masked(spelling: str) -> None:
    """Nobody has to name it as a secret first."""
    shown = masked(f"ValueError: bad key {spelling} given")
    assert MASK in shown
    assert shown.startswith("ValueError: bad key ")
    for start in range(0, len(spelling) - 12, 12):
        assert spelling[start : start + 12] not in shown


def test_parts_of_a_secret_are_masked_too() -> None:
    """An error that shows the half that it failed on gives half a secret away."""
    shown = masked("at 'horse-batt' of correct-horse-battery", ["correct-horse-battery-staple"])
    assert shown == f"at '{MASK}' of {MASK}"


def test_urls_keep_their_host_alone() -> None:
    """Endpoints carry keys in the user part, the path or the query."""
    text = "https://me:pw@rpc.example.org:8899/v2/KEY?api-key=SECRET failed (wss://h.io/SECRET)"
    assert masked(text) == "https://rpc.example.org:8899 failed (wss://h.io)"


def test_ordinary_text_stays() -> None:
    """Public keys, CIDs, paths and numbers are needed to understand a report."""
    cid = "bafybeih6bwjrdxlpi2wajknfxlgjutxgo2rudoka6cl5cqdmcq7xaelfby"
    text = f'File "/opt/app/main.py", line 42\n{KEY.pubkey()} {cid} [1, 2, 3] b"short" ***'
    assert masked(text, ["", "abc"]) == text


@given(st.text(min_size=8, max_size=60), st.text(max_size=30), st.text(max_size=30))
def test_a_known_secret_never_survives(secret: str, before: str, after: str) -> None:
    """Whatever stands around it."""
    assert secret not in without(before + secret + after, [secret]).replace(MASK, "")
