"""Settings: which layer wins, what is accepted, and what is never shown or lost."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decloud_trainer import config
from decloud_trainer.config import load, update
from decloud_trainer.errors import SettingsError
from decloud_trainer.settings import TABLE, Settings

NOTHING: dict[str, str] = {}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "config.json"


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def stored(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_without_a_file_everything_is_the_default(path: Path) -> None:
    """The documented defaults, and their source is told."""
    loaded = load(path=path, environ=NOTHING)
    assert loaded.settings == Settings()
    assert (loaded.settings.epochs, loaded.settings.max_concurrent_rounds) == (1, 1)
    assert set(loaded.sources.values()) == {"default"}
    assert not path.parent.exists()


def test_each_layer_wins_over_the_one_below(path: Path) -> None:
    """default < file < preset < environment < option, and each setting names its source."""
    write(path, json.dumps({"epochs": 2, "batch_size": 2, "seed": 2, "private_key": "file"}))
    preset = ("fast", {"epochs": 3, "batch_size": 3})
    loaded = load(
        path=path,
        preset=preset,
        environ={"DECLOUD_PRIVATE_KEY": "env", "SOLANA_PRIVATE_KEY": "second"},
        options={"epochs": 4, "threads": None},
    )
    settings = loaded.settings
    assert (settings.epochs, settings.batch_size, settings.seed) == (4, 3, 2)
    assert settings.private_key == "env"
    assert loaded.sources["epochs"] == "option"
    assert loaded.sources["batch_size"] == "preset fast"
    assert loaded.sources["seed"] == "file"
    assert loaded.sources["private_key"] == "environment DECLOUD_PRIVATE_KEY"
    assert loaded.sources["threads"] == "default"


def test_zero_and_false_are_values_and_not_absence(path: Path) -> None:
    """`--min-reward 0` overrides a stored minimum."""
    update({"min_reward": 0.5, "auto_claim": "true", "max_batches": 9}, path=path)
    options = {"min_reward": "0", "auto_claim": False, "max_batches": 0}
    settings = load(path=path, options=options, environ=NOTHING).settings
    assert (settings.min_reward_lamports, settings.auto_claim) == (0, False)
    assert settings.max_batches == 0


def test_an_empty_variable_sets_nothing(path: Path) -> None:
    """`DECLOUD_PRIVATE_KEY=` is as good as unset."""
    environ = {"DECLOUD_PRIVATE_KEY": " ", "SOLANA_PRIVATE_KEY": "other"}
    loaded = load(path=path, environ=environ)
    assert loaded.settings.private_key == "other"


@pytest.mark.parametrize("text", ["1.001", "0.1", "0.000000001", "123.456789012", "4.35"])
def test_amounts_are_exact_to_the_lamport(path: Path, text: str) -> None:
    """From the command line, through the file and back, nothing is lost to floats."""
    whole, _, part = text.partition(".")
    lamports = int(whole) * 10**9 + int(part.ljust(9, "0"))
    update({"min_reward": text}, path=path)
    assert load(path=path, environ=NOTHING).settings.min_reward_lamports == lamports
    write(path, f'{{"min_reward": {text}}}')
    assert load(path=path, environ=NOTHING).settings.min_reward_lamports == lamports


@given(st.integers(0, 2**63))
def test_every_amount_survives_the_file(lamports: int) -> None:
    """What is shown for an amount is read back as the same amount."""
    kind = TABLE["min_reward"].setting.kind
    text = json.dumps(kind.show(lamports))
    assert config.parse("min_reward", json.loads(text), "here") == lamports


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("epochs", "three", "must be a whole number from 1 to 10000"),
        ("epochs", 0, "must be a whole number from 1"),
        ("epochs", 2.5, "must be a whole number"),
        ("epochs", True, "must be a whole number"),
        ("learning_rate", "nan", "must be a number from"),
        ("learning_rate", -1, "must be a number from"),
        ("learning_rate", "inf", "must be a number from"),
        ("auto_train", "maybe", "must be true or false"),
        ("min_reward", "-1", "is not an amount in SOL"),
        ("min_reward", "0.0000000001", "is finer than one lamport"),
        ("min_reward", "1e999999", "is not an amount in SOL"),
        ("min_reward", "NaN", "is not an amount in SOL"),
        ("min_reward", True, "must be an amount in SOL"),
        ("network", "moon", "must be one of mainnet-beta, devnet"),
        ("rpc_url", "ftp://x", "http:// or https://"),
        ("rpc_url", "ws://localhost:8900", "http:// or https://"),
        ("ws_url", "https://localhost", "ws:// or wss://"),
        ("rpc_url", "http://", "must be a URL"),
        ("rpc_url", "http://[::1", "must be a URL"),
        ("rpc_url", "http://host:99999", "must be a URL"),
        ("rpc_url", "https://a b", "must be a URL"),
        ("datasets", 7, "must be names separated by commas"),
        ("dataset_mappings", "imdb", "must be pairs FROM:TO"),
        ("dataset_mappings", {"imdb": 7}, "must be pairs FROM:TO"),
        ("program_id", 7, "must be text"),
    ],
)
def test_wrong_values_are_refused_with_what_is_allowed(key: str, value: Any, words: str) -> None:
    """The message names the place, the setting, the rule and the value; the hint says what it is
    for."""
    with pytest.raises(SettingsError) as caught:
        config.parse(key, value, "somewhere")
    assert caught.value.message.startswith(f"somewhere: {key} ")
    assert words in caught.value.message
    assert caught.value.hint.startswith(f"{key}: ")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("epochs", " 3 ", 3),
        ("auto_train", "Off", False),
        ("auto_train", 1, True),
        ("datasets", "Fashion-Mnist, cifar_10,,mnist,mnist", ("fashionmnist", "cifar10", "mnist")),
        ("datasets", [], ()),
        ("datasets", "", ()),
        ("dataset_mappings", "Custom:Digits,ag_news:imdb", {"custom": "digits", "agnews": "imdb"}),
        ("dataset_paths", {"Mnist": "~/data, one"}, {"mnist": "~/data, one"}),
        ("rpc_url", "http://127.0.0.1:8899/", "http://127.0.0.1:8899"),
        ("rpc_url", "http://[::1]:8899", "http://[::1]:8899"),
        ("rpc_url", "", ""),
        ("gateways", "https://a.b/,https://a.b", ("https://a.b",)),
    ],
)
def test_values_are_taken_as_people_write_them(key: str, value: Any, expected: Any) -> None:
    """Spellings, spaces and doubles don't matter."""
    assert config.parse(key, value, "here") == expected


def test_a_misspelt_setting_offers_the_nearest() -> None:
    """Dashes and capitals are understood, other names are guessed."""
    assert config.row_of(" Max-Batches ").field == "max_batches"
    with pytest.raises(SettingsError, match="there is no setting 'epoch'") as caught:
        config.row_of("epoch")
    assert "did you mean epochs" in caught.value.hint
    with pytest.raises(SettingsError) as caught:
        config.row_of("zzzzzz")
    assert "config --show" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 200_000, "is not valid JSON"),
        (b"[1]", "must hold one JSON object"),
        (b" " * (config.MAX_CONFIG_BYTES + 1), "larger than a configuration"),
    ],
)
def test_a_broken_file_is_named_and_left_alone(path: Path, text: bytes, words: str) -> None:
    """Reading and writing both refuse it, with what to do; its content stays."""
    write(path, text)
    for use in (lambda: load(path=path, environ=NOTHING), lambda: update({"epochs": 2}, path=path)):
        with pytest.raises(SettingsError, match=words) as caught:
            use()
        assert str(path) in caught.value.message
        assert "setup" in caught.value.hint
    assert path.read_bytes() == text


def test_a_folder_in_the_files_place_is_an_error_not_a_traceback(path: Path) -> None:
    """As is anything that can't be read."""
    path.mkdir(parents=True)
    with pytest.raises(SettingsError, match="can't read"):
        load(path=path, environ=NOTHING)


def test_unknown_keys_are_told_and_survive_a_write(path: Path) -> None:
    """A newer or older version's settings are kept as they are."""
    write(path, '{"from_the_future": {"a": [1, 2.5]}, "epochs": 2}')
    assert load(path=path, environ=NOTHING).unknown == ("from_the_future",)
    update({"epochs": 5}, path=path)
    assert stored(path) == {"from_the_future": {"a": [1, 2.5]}, "epochs": 5}


def test_a_refused_change_writes_nothing(path: Path) -> None:
    """Neither one wrong value of several nor a contradiction of the whole touches the file."""
    update({"epochs": 2, "min_reward": "0.5"}, path=path)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="epochs"):
        update({"seed": 1, "epochs": "x"}, path=path)
    with pytest.raises(SettingsError, match="max_reward is below min_reward"):
        update({"max_reward": "0.1"}, path=path)
    assert path.read_bytes() == before
    update({"max_reward": "0.1", "min_reward": 0}, path=path)


def test_a_null_in_the_file_is_as_good_as_no_line(path: Path) -> None:
    """For reading, and for what a change is checked against."""
    write(path, '{"sweep_above": null, "min_reward": null, "epochs": null}')
    config.update({"floor_balance": "0.002", "max_reward": "1"}, path=path)
    settings = config.load(path=path, environ={}).settings
    assert (settings.sweep_above_lamports, settings.epochs) == (0, 1)
    assert settings.floor_balance_lamports == 2_000_000


def test_contradicting_layers_are_an_error(path: Path) -> None:
    """No round could match: better said at once than waited for."""
    update({"min_reward": 1}, path=path)
    with pytest.raises(SettingsError, match="no round could ever match"):
        load(path=path, options={"max_reward": "0.5"}, environ=NOTHING)


def test_files_are_private_from_the_first_moment(path: Path) -> None:
    """File 0600, folder 0700, whatever the umask; no temporary file is left."""
    before = os.umask(0)
    try:
        update({"pinata_jwt": "s3cret"}, path=path)
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert sorted(one.name for one in path.parent.iterdir()) == ["config.json", "config.lock"]
    path.chmod(0o644)
    update({"epochs": 2}, path=path)
    assert mode(path) == 0o600


def test_pairs_are_merged_cleared_and_removed(path: Path) -> None:
    """Mappings add up; an empty value clears; one can be taken out whatever its spelling."""
    update({"dataset_mappings": {"custom": "digits"}}, path=path)
    update({"dataset_mappings": "ag_news:imdb"}, path=path)
    assert stored(path)["dataset_mappings"] == {"custom": "digits", "agnews": "imdb"}
    assert config.remove("dataset_mappings", "AgNews", path=path)
    assert not config.remove("dataset_mappings", "AgNews", path=path)
    update({"dataset_mappings": ""}, path=path)
    assert stored(path)["dataset_mappings"] == {}
    write(path, '{"dataset_paths": {"Fashion-Mnist": "/data"}, "epochs": 4}')
    assert config.remove("dataset_paths", "fashion_mnist", path=path)
    assert config.remove("epochs", path=path)
    assert not config.remove("epochs", path=path)
    assert stored(path) == {"dataset_paths": {}}


def test_malformed_pairs_in_the_file_are_named_when_more_are_added(path: Path) -> None:
    """Not a traceback, and not overwritten."""
    write(path, '{"dataset_mappings": [1]}')
    for use in (
        lambda: update({"dataset_mappings": "a:b"}, path=path),
        lambda: config.remove("dataset_mappings", "a", path=path),
    ):
        with pytest.raises(SettingsError, match="must be pairs FROM:TO"):
            use()


def test_a_reset_keeps_every_backup(path: Path) -> None:
    """The backup may hold the only copy of a key: a second reset doesn't overwrite it."""
    assert config.reset(path=path) is None
    for key in ("first", "second", "third"):
        update({"private_key": key}, path=path)
        backup = config.reset(path=path)
        assert backup is not None
        assert stored(backup) == {"private_key": key}
        assert mode(backup) == 0o600
        assert not path.exists()
    assert len(list(path.parent.glob("config.json.*"))) == 3


SET_ONE = """
import sys
from pathlib import Path
from decloud_trainer.config import update
for number in range(5):
    update({"dataset_mappings": {f"{sys.argv[2]}{number}": "digits"}}, path=Path(sys.argv[1]))
"""


def test_writers_at_the_same_time_lose_nothing(path: Path) -> None:
    """Three processes each add five mappings; all are there."""
    names = ("one", "two", "three")
    with contextlib.ExitStack() as stack:
        words = [sys.executable, "-c", SET_ONE, str(path)]
        writers = [stack.enter_context(subprocess.Popen([*words, name])) for name in names]
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = sorted(stored(path)["dataset_mappings"])
    assert found == sorted(f"{name}{number}" for name in names for number in range(5))


SECRETS = [key for key, row in TABLE.items() if row.setting.secret]


def test_secrets_never_show(path: Path) -> None:
    """Not in the repr, not in --show, not in the error about a wrong one."""
    assert SECRETS == [
        "private_key",
        "pinata_api_key",
        "pinata_secret_key",
        "pinata_jwt",
        "kubo_token",
        "pinning_api_token",
        "notify_webhook",
    ]
    values = {key: f"s3cret-{key}" for key in SECRETS}
    update({**values, "notify_webhook": "https://hooks.example/s3cret"}, path=path)
    loaded = load(path=path, environ=NOTHING)
    shown = config.shown_values(loaded)
    assert "s3cret" not in repr(loaded)
    assert "s3cret" not in json.dumps(shown)
    assert {shown[key] for key in SECRETS} == {"(set)"}
    assert (
        config.shown_values(load(path=path.with_name("none"), environ=NOTHING))["pinata_jwt"] == ""
    )
    for key in SECRETS:
        with pytest.raises(SettingsError) as caught:
            config.parse(key, ["s3cret"], "here")
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_secrets_of_the_environment_are_never_written(path: Path) -> None:
    """A change of another setting stores only that."""
    load(path=path, environ={"PINATA_JWT": "s3cret"})
    update({"epochs": 2}, path=path)
    assert stored(path) == {"epochs": 2}


def test_every_setting_is_described_and_survives_the_file(path: Path) -> None:
    """Each default can be written and read back, and has a help text for --show."""
    settings = Settings()
    values = {
        key: row.setting.kind.show(getattr(settings, row.field)) for key, row in TABLE.items()
    }
    write(path, json.dumps(values))
    assert load(path=path, environ=NOTHING).settings == settings
    assert all(len(row.setting.help) > 5 for row in TABLE.values())
    assert len(TABLE) == len(dataclasses.fields(Settings))


def test_endpoints_are_shown_without_their_key() -> None:
    """A hosted endpoint's URL holds an API key: its host is enough to recognise it."""
    config.update({"rpc_url": "https://rpc.example.com/v2/0123456789?api-key=abcdef"})
    shown = config.shown_values(config.load())
    assert shown["rpc_url"] == "https://rpc.example.com/(hidden)"
    config.update({"rpc_url": "http://127.0.0.1:8899"})
    assert config.shown_values(config.load())["rpc_url"] == "http://127.0.0.1:8899"
