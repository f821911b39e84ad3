"""Files of the earlier trainer kits go on working here, and lose nothing."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decloud_trainer import config
from decloud_trainer.errors import SettingsError
from decloud_trainer.migration import KEPT, OLD_KEYS, RENAMED, migrated
from decloud_trainer.settings import TABLE, Settings

SOL = 10**9
V1 = {
    "network": "mainnet-beta",
    "rpc_url": "https://api.mainnet-beta.solana.com",
    "ws_url": "wss://api.mainnet-beta.solana.com",
    "program_id": "HvQ8c3BBCsibJpH74UDXbvqEidJymzFYyGjNjRn7MYwC",
    "data_dir": "/home/me/.decloud-trainer/data",
    "idl_path": None,
    "private_key": None,
    "keypair_path": "~/my-wallet.json",
    "ipfs_gateway": "https://gateway.example/ipfs/",
    "pinata_api_key": "api-key",
    "pinata_secret_key": "api-secret",
    "rules": [],
    "accept_any": False,
    "default_epochs": 3,
    "default_batch_size": 64,
    "default_learning_rate": 0.01,
    "default_max_batches": 50,
    "min_reward": 0.01,
    "max_reward": None,
    "max_concurrent_rounds": 2,
    "auto_train": True,
    "auto_claim": False,
    "poll_interval": 7,
}
V2 = {
    "private_key": "a-key",
    "network": "mainnet",
    "pinata_api_key": None,
    "pinata_jwt": "a.jwt",
    "min_reward": 0.02,
    "max_concurrent_training": 3,
    "training_epochs": 5,
    "training_batch_size": 16,
    "learning_rate": 0.002,
    "dataset_paths": {"Fashion-MNIST": "/data/fashion"},
    "auto_train": True,
    "poll_interval": 30,
    "custom_rpc": "https://rpc.example/some-token",
    "lighthouse_api_key": "light",
    "allow_llm": True,
    "noise_enabled": True,
    "noise_scale": 0.001,
}
RULE = {
    "name": "small",
    "accept_datasets": ["Cifar10", "fashion_mnist"],
    "train_dataset": "Mnist",
    "train_path": "/data/mnist",
    "epochs": 4,
    "batch_size": None,
    "min_reward": 0.05,
    "max_reward": 0.5,
    "enabled": True,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def write(path: Path, values: dict[str, Any]) -> bytes:
    path.write_text(json.dumps(values))
    return path.read_bytes()


def take_over(path: Path, values: dict[str, Any]) -> Settings:
    """Write the file, have it taken over, and load it."""
    write(path, values)
    assert config.take_over(path=path) is not None
    return config.load(path=path, environ={}).settings


def test_a_v1_file_says_the_same_in_our_terms(path: Path) -> None:
    """The v1 kit's keys move to ours, nulls count as not set, and our defaults fill the rest."""
    found = take_over(path, V1)
    assert (found.epochs, found.batch_size, found.learning_rate) == (3, 64, 0.01)
    assert (found.max_batches, found.max_concurrent_rounds, found.poll_interval) == (50, 2, 7.0)
    assert (found.min_reward_lamports, found.max_reward_lamports) == (SOL // 100, 0)
    assert (found.pinata_api_key, found.pinata_secret_key) == ("api-key", "api-secret")
    assert (found.auto_train, found.auto_claim) == (True, False)
    assert (found.private_key, found.keypair_path) == ("", "~/my-wallet.json")
    assert (found.network, found.rpc_url, found.ws_url) == ("mainnet-beta", "", "")
    assert found.program_id == V1["program_id"]


def test_a_v2_file_says_the_same_in_our_terms(path: Path) -> None:
    """The v2 kit's keys move to ours, its name for mainnet and its endpoint, too."""
    found = take_over(path, V2)
    assert (found.epochs, found.batch_size, found.learning_rate) == (5, 16, 0.002)
    assert (found.max_concurrent_rounds, found.poll_interval) == (3, 30.0)
    assert (found.network, found.rpc_url) == ("mainnet-beta", V2["custom_rpc"])
    assert found.dataset_paths == {"fashionmnist": "/data/fashion"}
    assert (found.pinata_jwt, found.private_key) == ("a.jwt", "a-key")
    assert found.min_reward_lamports == SOL // 50


def test_the_file_as_it_was_stays_beside_it(path: Path) -> None:
    """The backup is the old file to the byte, for its owner alone; a second one has its own name,
    and a file of ours is left alone."""
    before = write(path, V1)
    path.chmod(0o644)
    first = config.take_over(path=path)
    assert first is not None
    assert first.backup.read_bytes() == before
    for file in (path, first.backup):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    now = path.read_bytes()
    assert config.take_over(path=path) is None
    assert path.read_bytes() == now

    write(path, V2)
    second = config.take_over(path=path)
    assert second is not None
    assert second.backup != first.backup
    assert first.backup.read_bytes() == before


def test_keys_without_meaning_here_stay_in_the_file(path: Path) -> None:
    """What has no counterpart is kept under a key of its own, what nobody knows where it is, and
    neither is reported as unknown for ever."""
    take_over(path, {**V2, "of_next_year": [1]})
    content = json.loads(path.read_text())
    assert content[KEPT] == {
        "lighthouse_api_key": "light",
        "allow_llm": True,
        "noise_enabled": True,
        "noise_scale": 0.001,
    }
    assert content["of_next_year"] == [1]
    assert config.load(path=path).unknown == ("of_next_year",)
    config.update({"epochs": 9}, path=path)
    assert json.loads(path.read_text())[KEPT] == content[KEPT]


def test_notes_name_every_key_and_no_secret(path: Path) -> None:
    """The user reads what became of each old key; values of secrets and endpoints aren't said."""
    for values in (V1, V2):
        write(path, values)
        taken = config.take_over(path=path)
        assert taken is not None
        text = "\n".join(taken.notes)
        for key in OLD_KEYS & values.keys():
            if values[key] not in (None, False, []):
                assert key in text
        for secret in ("a-key", "a.jwt", "api-secret", "light\n", "some-token"):
            assert secret not in text


def test_rules_become_datasets_mappings_and_paths(path: Path) -> None:
    """Enabled rules say what is accepted and what it is trained on; others say nothing."""
    other = {"name": "off", "accept_datasets": ["imdb"], "enabled": False}
    found = take_over(path, {**V1, "rules": [RULE, other]})
    assert found.datasets == ("cifar10", "fashionmnist")
    assert found.dataset_mappings == {"cifar10": "mnist", "fashionmnist": "mnist"}
    assert found.dataset_paths == {"mnist": "/data/mnist"}
    assert (found.epochs, found.batch_size) == (4, 64)
    assert (found.min_reward_lamports, found.max_reward_lamports) == (SOL // 20, SOL // 2)
    assert json.loads(path.read_text())[KEPT]["rules"] == [RULE, other]


def test_rules_that_differ_take_nothing_that_one_of_them_refused(path: Path) -> None:
    """One setting for all rules: the strictest reward limits, and training values untouched."""
    second = {"accept_datasets": ["mnist"], "epochs": 8, "min_reward": "0.1", "max_reward": 0.2}
    found = take_over(path, {**V1, "rules": [RULE, second]})
    assert found.datasets == ("cifar10", "fashionmnist", "mnist")
    assert (found.min_reward_lamports, found.max_reward_lamports) == (SOL // 10, SOL // 5)
    assert found.epochs == 3
    contradicting = {"accept_datasets": ["mnist"], "max_reward": 0.01}
    found = take_over(path, {**V1, "rules": [RULE, contradicting]})
    assert (found.min_reward_lamports, found.max_reward_lamports) == (SOL // 20, 0)


@pytest.mark.parametrize(
    ("values", "datasets"),
    [
        ({"accept_any": True, "rules": [RULE]}, ()),
        ({"rules": [{"accept_datasets": []}]}, ()),
        ({"accept_any": True, "datasets": ["Mnist"]}, ("mnist",)),
        ({"datasets": ["Mnist"], "rules": [RULE]}, ("mnist", "cifar10", "fashionmnist")),
        ({"rules": "broken"}, ()),
    ],
)
def test_what_was_accepted_is_accepted(
    path: Path, values: dict[str, Any], datasets: tuple[str, ...]
) -> None:
    """Accepting anything becomes an empty list, unless the file named datasets besides."""
    assert take_over(path, values).datasets == datasets


def test_one_local_dataset_for_all_becomes_mappings(path: Path) -> None:
    """0.2.0's train_dataset stands in for the datasets that are listed; without a list it is kept,
    since a mapping needs a name."""
    found = take_over(path, {"datasets": ["cifar10", "mnist"], "train_dataset": "mnist"})
    assert found.dataset_mappings == {"cifar10": "mnist"}
    found = take_over(path, {"train_dataset": "mnist"})
    assert found.dataset_mappings == {}
    assert json.loads(path.read_text())[KEPT] == {"train_dataset": "mnist"}


@pytest.mark.parametrize(
    ("values", "network"),
    [
        ({"training_epochs": 1}, "devnet"),
        ({"training_epochs": 1, "network": "mainnet"}, "mainnet-beta"),
        ({"training_epochs": 1, "network": "testnet"}, "testnet"),
        ({"network": "localhost"}, "localnet"),
        ({"default_epochs": 1}, "mainnet-beta"),
        ({"default_epochs": 1, "rpc_url": "https://api.devnet.solana.com"}, "devnet"),
        (
            {
                "default_epochs": 1,
                "network": "mainnet-beta",
                "rpc_url": "https://api.devnet.solana.com",
            },
            "devnet",
        ),
        (
            {
                "default_epochs": 1,
                "network": "devnet",
                "rpc_url": "https://api.mainnet-beta.solana.com",
            },
            "devnet",
        ),
    ],
)
def test_nobody_is_moved_to_real_money(path: Path, values: dict[str, Any], network: str) -> None:
    """Where an old file is unclear about its network, the one of play money is meant."""
    assert take_over(path, values).network == network


def test_own_endpoints_are_kept(path: Path) -> None:
    """Only public endpoints follow from the network; one of the user's own stays."""
    own = {"rpc_url": "https://rpc.example/token", "ws_url": "wss://rpc.example/token"}
    found = take_over(path, {**V1, **own})
    assert (found.rpc_url, found.ws_url) == (own["rpc_url"], own["ws_url"])


def test_a_key_as_a_list_of_numbers_is_read(path: Path) -> None:
    """The v1 kit also wrote the key as 64 numbers; here it is text that the wallet reads."""
    from solders.keypair import Keypair

    from decloud_trainer.chain.wallet import load_wallet

    keypair = Keypair()
    found = take_over(path, {"private_key": list(bytes(keypair))})
    wallet = load_wallet(environ={}, private_key=found.private_key)
    assert wallet.pubkey == str(keypair.pubkey())


def test_values_of_wrong_kinds_are_kept_and_named(path: Path) -> None:
    """Numbers as text, which that kit's setter wrote, are read; what can't be is kept, named, and
    doesn't stop the program."""
    found = take_over(path, {"default_epochs": "3", "default_batch_size": "many"})
    assert (found.epochs, found.batch_size) == (3, 32)
    content = json.loads(path.read_text())
    assert content["epochs"] == 3
    assert content[KEPT] == {"default_batch_size": "many"}


def test_a_new_key_wins_over_its_old_name(path: Path) -> None:
    """Who has set epochs here already keeps that; the old one is kept beside."""
    found = take_over(path, {"epochs": 2, "default_epochs": 7})
    assert found.epochs == 2
    assert json.loads(path.read_text())[KEPT] == {"default_epochs": 7}


def test_old_files_are_read_before_they_are_rewritten(path: Path) -> None:
    """A folder that can't be written to doesn't keep the settings from being read; the first
    change of a setting takes the file over by itself."""
    before = write(path, V1)
    assert config.load(path=path).settings.epochs == 3
    assert path.read_bytes() == before
    config.update({"epochs": 8}, path=path)
    assert config.load(path=path).settings.epochs == 8
    assert (path.parent / "config.json.kit-backup").read_bytes() == before

    write(path, V1)
    assert config.remove("min_reward", path=path)
    assert "default_epochs" not in json.loads(path.read_text())


def test_a_file_that_cannot_be_read_is_left_alone(path: Path) -> None:
    """Neither broken JSON nor no file at all is anything to take over."""
    assert config.take_over(path=path) is None
    path.write_text("{")
    with pytest.raises(SettingsError, match="not valid JSON"):
        config.take_over(path=path)
    assert path.read_text() == "{"
    assert os.listdir(path.parent) == [path.name]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
RULES = st.lists(st.dictionaries(st.sampled_from(sorted(RULE)), JSON, max_size=6), max_size=3)
FILES = st.dictionaries(
    st.sampled_from(sorted({*OLD_KEYS, *TABLE, "of_next_year"})), JSON, max_size=8
)


@settings(max_examples=150, deadline=None)
@given(FILES, RULES | JSON)
def test_no_file_is_too_odd(values: dict[str, Any], rules: Any) -> None:
    """Whatever stands in an old file: it is taken over once, every old key's value is still there,
    and the settings that it gave values can have them."""
    taken: dict[str, Any] = {}

    def read_setting(key: str, value: Any) -> Any:
        kind = TABLE[key].setting.kind
        taken[key] = kind.show(kind.parse(value))
        return taken[key]

    values = {**values, "rules": rules}
    done = migrated(values, read_setting)
    assert done is not None
    assert migrated(done.content, read_setting) is None
    kept = done.content.get(KEPT, {})
    for key in OLD_KEYS & values.keys():
        assert key not in done.content
        if values[key] not in (None, "") and key not in kept:
            assert RENAMED[key] in taken
    assert {key: value for key, value in done.content.items() if key == "of_next_year"} == {
        key: value for key, value in values.items() if key == "of_next_year"
    }
    for key in taken:
        read_setting(key, done.content[key])
