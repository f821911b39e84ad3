"""The settings that say where money goes are checked before any moves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from solders.keypair import Keypair

from decloud_trainer import config, presets
from decloud_trainer.chain import v1
from decloud_trainer.errors import SettingsError
from decloud_trainer.plans import ceilings_of, cold_of
from decloud_trainer.settings import Settings
from decloud_trainer.wiring import open_trainer

ADDRESS = str(Keypair.from_seed(bytes([7] * 32)).pubkey())


@pytest.mark.parametrize(
    "address",
    [
        ADDRESS[:-3],
        ADDRESS + "1",
        ADDRESS.replace(ADDRESS[5], "0"),
        "11111111111111111111111111111111",
        "me@example.com",
        "0x52908400098527886E0F7030069857D2E4169EE7",
        42,
    ],
)
def test_only_an_address_is_one(address: object) -> None:
    """Length, alphabet, and not the system program's, which nobody has a key of."""
    with pytest.raises(SettingsError, match=r"must be (a Solana address|text)"):
        config.update({"cold_address": address})
    assert config.load().settings.cold_address == ""


def test_an_address_is_kept_as_it_is(own_home: Path) -> None:
    """And an empty one turns it off."""
    config.update({"cold_address": f" {ADDRESS} ", "sweep_above": "0.5"})
    settings = config.load().settings
    cold = cold_of(settings)
    assert cold is not None
    assert (cold.address, cold.kept_lamports) == (ADDRESS, 500_000_000)
    assert ceilings_of(settings).cold == cold
    config.update({"cold_address": ""})
    assert cold_of(config.load().settings) is None


def test_without_a_float_nothing_goes() -> None:
    """An address alone isn't a wish to be emptied."""
    assert cold_of(Settings(cold_address=ADDRESS)) is None
    assert cold_of(Settings(sweep_above_lamports=10**9)) is None


def test_the_float_must_leave_something_to_join_with() -> None:
    """Not more than the floor would stop all joins; the file is left as it was."""
    with pytest.raises(SettingsError, match="no more than floor_balance"):
        config.update({"sweep_above": "0.001"})
    config.update({"sweep_above": "0.002"})
    with pytest.raises(SettingsError, match="no more than floor_balance"):
        config.update({"floor_balance": "0.002"})
    assert config.load().settings.floor_balance_lamports == 1_000_000


@pytest.mark.parametrize("address", [str(v1.TREASURY), str(v1.PROGRAM_ID)])
def test_the_networks_own_addresses_are_refused(address: str) -> None:
    """Nobody would ever get it back from there."""
    with pytest.raises(SettingsError, match="the network's own"):
        cold_of(Settings(cold_address=address, sweep_above_lamports=10**9))


async def test_our_own_address_is_refused(own_home: Path) -> None:
    """Before anything is asked of the network: it would pay a fee for nothing."""
    keypair = Keypair()
    path = own_home / "id.json"
    path.write_text(json.dumps(list(bytes(keypair))))
    path.chmod(0o600)
    settings = Settings(
        keypair_path=str(path), cold_address=str(keypair.pubkey()), sweep_above_lamports=10**9
    )
    with pytest.raises(SettingsError, match="the wallet's own address"):
        async with open_trainer(
            settings, None, on_event=lambda _: None, on_progress=lambda _: None
        ):
            pass


@pytest.mark.parametrize("key", ["cold_address", "sweep_above"])
def test_no_preset_says_where_money_goes(key: str) -> None:
    """A file from someone else could name an address of theirs."""
    folder = presets.own_folder()
    folder.mkdir(parents=True)
    value = {"cold_address": ADDRESS, "sweep_above": 0.01}[key]
    (folder / "gift.json").write_text(json.dumps({"settings": {key: value}}))
    with pytest.raises(SettingsError, match=f"can't set {key}"):
        presets.load("gift")
