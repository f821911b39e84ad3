"""The doctor's checks that need no network."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from decloud_trainer import config
from decloud_trainer.checks import machine, packages
from decloud_trainer.checks.data import all_data, data_check, data_checks, local_data
from decloud_trainer.checks.machine import disk_check, modes_check
from decloud_trainer.checks.model import Verdict
from decloud_trainer.checks.packages import is_within, packages_check, python_check, versions
from decloud_trainer.checks.run import configuration_check, wallet_check
from decloud_trainer.settings import Settings

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
SHIPPED = Path(machine.SHIPPED_MODEL).parent.parent / "digits"


@pytest.fixture
def home(own_home: Path) -> Path:
    folder = own_home / "decloud"
    folder.mkdir(mode=0o700)
    return folder


@pytest.mark.parametrize(
    ("version", "bounds", "good"),
    [
        ("2.15.0+cu132", ">=2.4,<3", True),
        ("2.4", "<3,>=2.4.0", True),
        ("3.0.0", ">=2.4,<3", False),
        ("2.3.9", ">=2.4", False),
        ("0.36.10", ">=0.36.6", True),
        ("1.0rc1", "", True),
        ("1.2", "==1.2,!=1.3", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, bounds: str, good: bool) -> None:
    """Not as text, and without the build's name."""
    assert is_within(version, bounds) is good


def test_what_is_installed_here_is_enough() -> None:
    """The bounds are those of the installed package, so no second list can go stale."""
    assert python_check().verdict is PASS
    check = packages_check()
    assert check.verdict is PASS
    assert check.numbers["versions"]["torch"] == metadata.version("torch")
    assert versions()["solders"] == metadata.version("solders")


def test_a_package_that_is_missing_or_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is needed, and how to get it."""
    wanted = ["torch>=99,<100", "no-such-thing>=1", "ruff>=999; extra == 'dev'"]
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    check = packages_check()
    assert check.verdict is FAIL
    assert "no-such-thing is missing (>=1 is needed)" in check.text
    assert "(>=99,<100 is needed)" in check.text
    assert "ruff" not in check.text
    assert check.fix.startswith("python -m pip install")


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the one that is needed."""
    monkeypatch.setattr(packages.platform, "python_version", lambda: "3.9.18")
    check = python_check()
    assert (check.verdict, check.text) == (FAIL, "3.9.18; >=3.11 is needed")


@pytest.mark.parametrize(
    ("free", "verdict"), [(400_000_000, FAIL), (4_000_000_000, WARN), (50_000_000_000, PASS)]
)
def test_little_disk_space_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, verdict: Verdict
) -> None:
    """By the folder that will be used, also before it exists."""
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    check = disk_check([tmp_path / "not" / "yet"])
    assert check.verdict is verdict
    assert check.numbers == {"free_bytes": free}
    assert str(tmp_path) in check.text


def test_keys_that_others_can_read_are_a_failure(home: Path, tmp_path: Path) -> None:
    """The command that closes them is offered, and does."""
    keypair = tmp_path / "my key.json"
    for path in (keypair, home / "config.json", home / "wallet.json"):
        path.write_text("[]")
        path.chmod(0o644)
    check = modes_check(Settings(keypair_path=str(keypair)), None)
    assert check.verdict is FAIL
    assert check.fix == f"chmod 600 {home}/config.json {home}/wallet.json '{keypair}'"
    for path in (keypair, home / "config.json", home / "wallet.json"):
        path.chmod(0o600)
    assert modes_check(Settings(keypair_path=str(keypair)), None).verdict is PASS
    home.chmod(0o755)
    check = modes_check(Settings(), str(keypair))
    assert (check.verdict, check.fix) == (WARN, f"chmod 700 {home}")


def test_before_the_setup_the_next_step_is_named(own_home: Path) -> None:
    """Nothing is there: not an error, but not ready either."""
    for check in (modes_check(Settings(), None), configuration_check(config.load())):
        assert (check.verdict, check.fix) == (WARN, "decloud-trainer setup")
    check, wallet = wallet_check(Settings(), None)
    assert (check.verdict, wallet) == (FAIL, None)
    assert "decloud-trainer setup" in check.fix


def test_a_key_of_a_newer_version_is_told(home: Path) -> None:
    """It is kept, and may be a spelling mistake."""
    (home / "config.json").write_text(json.dumps({"epochs": 2, "new_thing": 1}))
    check = configuration_check(config.load())
    assert check.verdict is WARN
    assert "new_thing" in check.text


def test_each_dataset_of_the_configuration_is_looked_at(tmp_path: Path) -> None:
    """Ready, to be downloaded, impossible, mapped, or in a folder that holds none."""
    settings = Settings(
        datasets=("digits", "mnist", "food101", "custom", "kmnist", "emnist"),
        dataset_mappings={"custom": "digits"},
        dataset_paths={"kmnist": str(tmp_path), "emnist": str(SHIPPED)},
    )
    checks = {check.name.removeprefix("dataset "): check for check in data_checks(settings)}
    assert {name: check.verdict for name, check in checks.items()} == {
        "digits": PASS,
        "mnist": WARN,
        "food101": WARN,
        "custom": PASS,
        "kmnist": FAIL,
        "emnist": PASS,
    }
    assert checks["mnist"].fix == "decloud-trainer datasets fetch mnist"
    assert "--add-mapping food101:" in checks["food101"].fix
    assert checks["custom"].text == "1,347 training and 450 test samples of digits"
    assert "--add-path kmnist:" in checks["kmnist"].fix


def test_data_without_a_test_split_is_a_warning(tmp_path: Path) -> None:
    """It can be trained, but its score can't be previewed."""
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    check = data_check(Settings(dataset_paths={"digits": str(tmp_path)}), "digits")
    assert check.verdict is WARN
    assert "1,347 training and 0 test samples" in check.text


def test_all_datasets_of_the_network_are_known() -> None:
    """In its order and numbers, with this machine's own ones behind."""
    settings = Settings(dataset_mappings={"proprietarydata": "digits"})
    found = all_data(settings)
    assert [local.index for local in found[:99]] == list(range(99))
    assert {local.key for local in found[99:]} == {"digits", "proprietarydata"}
    trainable = {local.key for local in found if local.is_trainable}
    images = {"cifar10", "cifar100", "mnist", "fashionmnist", "emnist", "kmnist", "svhn"}
    others = {"imdb", "sst2", "agnews", "iris", "wine", "breastcancer", "diabetes"}
    assert trainable == {*images, *others, "digits", "proprietarydata"}
    assert local_data(settings, "Fashion-Mnist").name == "FashionMnist"
