"""Solana's clusters: their public endpoints, and what tells one from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster's public endpoints, and its genesis hash, which it keeps for ever.

    A local network makes a new one each time: its `genesis` is empty."""

    rpc_url: str
    ws_url: str
    genesis: str = ""


def _public(name: str, genesis: str) -> Cluster:
    return Cluster(f"https://api.{name}.solana.com", f"wss://api.{name}.solana.com", genesis)


CLUSTERS: Mapping[str, Cluster] = {
    "localnet": Cluster("http://127.0.0.1:8899", "ws://127.0.0.1:8900"),
    "mainnet-beta": _public("mainnet-beta", "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"),
    "testnet": _public("testnet", "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY"),
    "devnet": _public("devnet", "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG"),
}
"""By the setting `network`."""
