"""All checks, at the same time where they wait for others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence

from decloud_trainer.chain.wallet import FoundWallet
from decloud_trainer.checks.chain import ChainReport, chain_checks, websocket_check
from decloud_trainer.checks.content import HELLO_CID, gateway_checks, pin_checks
from decloud_trainer.checks.data import data_checks
from decloud_trainer.checks.machine import device_check, disk_check, modes_check
from decloud_trainer.checks.model import Check, failed, passed, refused, warned
from decloud_trainer.checks.packages import packages_check, python_check
from decloud_trainer.checks.sandbox import sandbox_check
from decloud_trainer.config import Loaded
from decloud_trainer.errors import DecloudError, WalletError
from decloud_trainer.services import known_wallet
from decloud_trainer.settings import Settings

log = logging.getLogger(__name__)


def machine_checks() -> list[Check]:
    """What can be said without the configuration."""
    return [python_check(), packages_check(), disk_check()]


def configuration_check(loaded: Loaded) -> Check:
    settings = loaded.settings
    if not loaded.path.exists():
        return warned(
            "configuration",
            f"none yet ({loaded.path}): everything is at its default, network {settings.network}",
            "decloud-trainer setup",
        )
    text = f"{loaded.path}, network {settings.network}"
    if loaded.unknown:
        names = ", ".join(loaded.unknown)
        return warned("configuration", f"{text}; not known to this version: {names}")
    return passed("configuration", text)


def wallet_check(settings: Settings, keypair: str | None) -> tuple[Check, FoundWallet | None]:
    """Is there a key to sign with, and is it kept well?"""
    try:
        wallet = known_wallet(settings, keypair)
    except WalletError as error:
        return refused("wallet", error), None
    text = f"{wallet.pubkey} from {wallet.source}{', encrypted' if wallet.encrypted else ''}"
    if wallet.warnings:
        return warned("wallet", f"{text}; {'; '.join(wallet.warnings)}"), wallet
    return passed("wallet", text), wallet


async def run_checks(loaded: Loaded, keypair: str | None, *, upload: bool = False) -> list[Check]:
    """Every check's outcome, in a fixed order. A check that fails never hides another."""
    settings = loaded.settings
    wallet_line, wallet = wallet_check(settings, keypair)
    chain = asyncio.ensure_future(chain_checks(settings, wallet))
    waiting: dict[str, Awaitable[Check | list[Check] | ChainReport]] = {
        "rpc": chain,
        "websocket": websocket_check(settings),
        "pin service": pin_checks(settings, upload=upload),
        "gateways": _gateways(settings, chain),
        "datasets": asyncio.to_thread(data_checks, settings),
        "device": device_check(settings),
        "sandbox": sandbox_check(settings, keypair),
    }
    outcomes = await asyncio.gather(*waiting.values(), return_exceptions=True)
    rest = [
        check
        for name, outcome in zip(waiting, outcomes, strict=True)
        for check in _checks(name, outcome)
    ]
    return [
        *machine_checks(),
        configuration_check(loaded),
        modes_check(settings, keypair),
        wallet_line,
        *rest,
    ]


async def _gateways(settings: Settings, chain: Awaitable[ChainReport]) -> list[Check]:
    """A local network has its rounds' models alone; elsewhere there is a file that all have."""
    if settings.network != "localnet":
        return await gateway_checks(settings, HELLO_CID)
    try:
        newest = (await chain).newest
    except DecloudError:
        newest = None  # told by the chain's own checks
    return await gateway_checks(settings, newest.model_cid if newest else None)


def _checks(
    name: str, outcome: Check | Sequence[Check] | ChainReport | BaseException
) -> Sequence[Check]:
    if isinstance(outcome, Check):
        return [outcome]
    if isinstance(outcome, ChainReport):
        return outcome.checks
    if isinstance(outcome, DecloudError):
        return [refused(name, outcome)]
    if isinstance(outcome, BaseException):
        log.error("the check %r broke down", name, exc_info=outcome)
        text = f"this check itself broke down ({type(outcome).__name__}): a defect"
        return [failed(name, text, "decloud-trainer --verbose doctor tells more")]
    return outcome
