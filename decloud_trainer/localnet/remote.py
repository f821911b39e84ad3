"""Steer a running local network from another process: money, clock, faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from decloud_trainer.errors import RpcError, SettingsError
from decloud_trainer.localnet.actors.actor_chain import ActorChain

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Drop:
    """An airdrop that has arrived."""

    address: str
    lamports: int
    balance_lamports: int
    signature: str


def airdrop(rpc_url: str, address: str, lamports: int) -> Drop:
    """Give an address play money and wait for it.

    Raises:
        SettingsError: the address is none.
        RpcError: the network doesn't answer, or the faucet refuses.
    """
    try:
        Pubkey.from_string(address)
    except ValueError as error:
        raise SettingsError(f"{address!r} is no Solana address") from error
    chain = ActorChain(rpc_url, "v1.2", Keypair())
    signature = chain.airdrop(lamports, address)
    return Drop(address, lamports, chain.balance(address), signature)


def control(control_url: str, path: str, **fields: Any) -> dict[str, Any]:
    """POST to a control path (``warp``, ``fault``); the network's status after it.

    Raises:
        SettingsError: the network refuses the values.
        RpcError: nothing, or something else, answers there.
    """
    with requests.Session() as session:
        session.trust_env = False  # no proxy between us and this machine
        try:
            answer = session.post(f"{control_url}/{path}", json=fields, timeout=TIMEOUT_S)
            content = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise RpcError(
                f"no local network answers at {control_url}",
                hint="start one in another terminal: decloud-trainer localnet up",
            ) from error
    if not isinstance(content, dict) or not answer.ok:
        refusal = content if isinstance(content, dict) else {}
        raise SettingsError(
            str(refusal.get("error", f"the local network answers HTTP {answer.status_code}")),
            hint=str(refusal.get("hint", "")),
        )
    return content
