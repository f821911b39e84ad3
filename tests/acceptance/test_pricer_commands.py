"""``pricer`` as a user has it, and the README's examples as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminal import here

from decloud_trainer.store.opening import open_store
from decloud_trainer.training.snapshots import load_checkpoint

README = (Path(__file__).parent.parent.parent / "README.md").read_text("utf-8")
SMALL = {
    "simulation": {"timesteps": 1, "network_size": 16, "batches_per_mc_run": 8},
    "network": {"width": 16, "depth": 2},
    "domain_bounds": {"maturity": [0.5, 1.0]},
}
QUICK = ("--batches", "300", "--batch-size", "32", "--learning-rate", "0.01", "--threads", "1")


def command(*words: str, code: int = 0) -> str:
    """A command in this process; what it prints, with its complaints when it must fail."""
    done = here("pricer", *words)
    assert done.code == code, done
    return done.out + (done.err if code else "")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pricer that has learned a little, in three versions."""
    folder = tmp_path_factory.mktemp("pricer")
    (folder / "small.json").write_text(json.dumps(SMALL))
    chain = str(folder / "chain")
    told = json.loads(
        command(
            "train",
            chain,
            "--config",
            str(folder / "small.json"),
            "--commit-interval",
            "150",
            *QUICK,
            "--json",
        )
    )
    assert (told["step"], told["committed"], told["failed"]) == (300, 2, 0)
    return chain


def test_a_chain_is_trained_on(chain: str) -> None:
    """The next call goes on where the newest version ended, with its own configuration."""
    words = ("--batches", "10", "--commit-message", "more: {step}", "--json")
    told = json.loads(command("train", chain, *words))
    assert told["step"] == 310
    head = open_store(chain).get_head()
    assert head is not None
    assert head.commit_message == "more: 310"
    assert "has a pricer already" in command("train", chain, "--config", "x.json", code=2)


def test_a_new_pricer_is_made_of_file_and_options(tmp_path: Path) -> None:
    """An option changes one value of the file; words and lists are values, too."""
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    chain = str(tmp_path / "chain")
    changes = (
        *("--set", "simulation.network_size=8", "--set", "network.activation=zrelu"),
        *("--set", "domain_bounds.spot=[90, 110]", "--set", "normalize_forwards=false"),
    )
    words = ("--batches", "2", "--threads", "1", "--json")
    command("train", chain, "--config", str(tmp_path / "small.json"), *changes, *words)
    made = settings_in(chain)
    assert made["pricer"]["sim_params"]["network_size"] == 8
    assert made["pricer"]["sim_params"]["timesteps"] == 1  # the file's
    assert made["pricer"]["normalize_forwards"] is False
    assert made["domain_bounds"]["spot"] == [90, 110]
    assert made["domain_bounds"]["maturity"] == [0.5, 1.0]
    assert made["network"]["activation"] == "zrelu"
    assert "has a pricer already" in command("train", chain, *changes, code=2)


def settings_in(chain: str) -> dict[str, Any]:
    """The settings in a chain's newest version."""
    store = open_store(chain)
    head = store.get_head()
    assert head is not None
    return dict(load_checkpoint(store, head).document)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("simulation.timesteps", "is not KEY=VALUE"),
        ("=5", "is not KEY=VALUE"),
        ("simulation.timesteps=0", "timesteps"),
        ("simulation.threads_per_block=256", "threads_per_block can't be set"),
        ("network.wide=5", "wide"),
        ("price=1", "its parts are"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, wrong: str, said: str) -> None:
    """Nothing is committed."""
    chain = str(tmp_path / "chain")
    told = " ".join(command("train", chain, "--set", wrong, code=2).split())
    assert said in told
    assert "--set" in told
    assert open_store(chain).get_head() is None


def test_a_trial_keeps_nothing(tmp_path: Path) -> None:
    """Without commits the chain stays empty; an interval alone is refused before any training."""
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    chain = str(tmp_path / "chain")
    words = ("train", chain, "--config", str(tmp_path / "small.json"), "--no-auto-commit")
    told = json.loads(command(*words, "--batches", "2", "--threads", "1", "--json"))
    assert (told["step"], told["committed"], told["version"]) == (2, 0, None)
    assert "nothing was committed" in command(*words, "--batches", "2", "--threads", "1")
    assert open_store(chain).get_head() is None
    refused = command(*words, "--commit-interval", "5", code=2)
    assert "commit_interval requires auto_commit" in refused


def test_prices_come_with_the_formulas(chain: str) -> None:
    """Put-call parity holds for both; what it wasn't trained for is refused."""
    contract = [
        "--spot",
        "100",
        "--strike",
        "100",
        "--maturity",
        "0.75",
        "--rate",
        "0.03",
        "--volatility",
        "0.3",
    ]
    told = json.loads(command("price", chain, *contract, "--json"))
    parity = told["formula_call"] - told["formula_put"]
    assert told["call"] - told["put"] == pytest.approx(parity)
    assert told["put"] == pytest.approx(told["formula_put"], abs=3)
    assert "Black-Scholes" in command("price", chain, *contract)
    refused = command("price", chain, *contract, "--maturity=5", code=2)
    assert "maturity 5 is outside of 0.5 to 1" in refused


def test_an_evaluation_shows_error_bars(chain: str) -> None:
    """Training has helped, and the simulation agrees with the formula within its bars."""
    told = json.loads(command("evaluate", chain, "--contracts", "256", "--json"))
    first = json.loads(command("evaluate", chain, "--contracts", "256", "--version", "0", "--json"))
    assert told["rmse"] < first["rmse"] < told["mean_put"]
    assert told["within"] > 0.9
    assert "Error bars" in command("evaluate", chain, "--contracts", "64")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('{"simulation": {"threads_per_block": 256}}', "threads_per_block can't be set"),
        ('{"simulation": {"buffer_size": 10000}}', "buffer_size can't be set"),
        ('{"simulation": {"network_size": 0}}', "network_size"),
        ('{"domain_bounds": {"spot": [2, 1]}}', "the bounds of spot"),
        ('{"domain_bounds": 7}', "domain_bounds must map"),
        ('{"network": {"activation": "relu"}}', "activation"),
        ('{"price": 1}', "its parts are"),
        ("[]", "a JSON object"),
        ("{", "is no JSON"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, wrong: str, said: str) -> None:
    """With the file; nothing is committed."""
    path = tmp_path / "wrong.json"
    path.write_text(wrong)
    chain = str(tmp_path / "chain")
    told = " ".join(command("train", chain, "--config", str(path), code=2).split())
    assert said in told
    assert "wrong.json" in told
    assert open_store(chain).get_head() is None


def examples() -> list[str]:
    """The Python blocks of the README's section on committing."""
    section = README[README.index("### Training that commits itself") :]
    return re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)


def test_the_readmes_examples_run(tmp_path: Path) -> None:
    """As they stand, one after the other in one process: torch is imported once."""
    blocks = examples()
    assert len(blocks) == 3
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        # As the commands have it: on a busy machine, threads that spin take minutes.
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "version 1: [PROD] step=100" in done.stdout
    assert "version 0: [baseline] loss=" in done.stdout
    assert "version 2, step 40" in done.stdout
