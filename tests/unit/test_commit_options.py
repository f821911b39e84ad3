"""Which trainings commit themselves: options and settings, checked before anything happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decloud_trainer import config
from decloud_trainer.cli.main import main
from decloud_trainer.cli.rounds import _commits
from decloud_trainer.errors import SettingsError
from decloud_trainer.plans import commits_of, plan_of
from decloud_trainer.rounds.entry import Facts
from decloud_trainer.rounds.passing import wanted
from decloud_trainer.settings import Settings
from decloud_trainer.training.commit_plan import DEFAULT_MESSAGE, CommitPlan, filled_message

NOTHING: dict[str, Any] = {
    "store": None,
    "auto_commit": None,
    "commit_interval": None,
    "commit_message": None,
}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--auto-commit"], "auto_commit or commit_interval requires blockchain_store"),
        (["--commit-interval", "5"], "auto_commit or commit_interval requires blockchain_store"),
        (["--store", "x", "--commit-interval", "5"], "commit_interval requires auto_commit"),
        (["--store", "x"], "without --auto-commit"),
        (["--commit-message", "{step}"], "without --auto-commit"),
        (["--store", "x", "--auto-commit", "--commit-interval", "0"], "--commit-interval"),
        (["--store", "x", "--auto-commit", "--commit-message", "{price}"], "unknown field"),
        (["--store", "ftp://x", "--auto-commit"], "names no chain"),
        (["--no-auto-commit", "--store", "x"], "without --auto-commit"),
    ],
)
def test_wrong_combinations_are_refused(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the reason, before a wallet or the network is asked for."""
    try:
        code = main(["train", "42", *words])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_options_go_before_settings(own_home: Path) -> None:
    """What isn't given is as in the settings; nothing given leaves them to the daemon."""
    assert _commits(NOTHING) is None
    found = _commits({**NOTHING, "store": "experiments", "auto_commit": True})
    assert found == {
        "store": str(own_home / "decloud" / "stores" / "experiments"),
        "auto_commit": True,
        "commit_interval": None,
        "message": DEFAULT_MESSAGE,
    }
    config.update({"store": "/chains/a", "auto_commit": "true", "commit_interval": "50"})
    found = _commits({**NOTHING, "commit_message": "x {step}"})
    assert found == {
        "store": "/chains/a",
        "auto_commit": True,
        "commit_interval": 50,
        "message": "x {step}",
    }
    assert _commits({**NOTHING, "auto_commit": False}) == {}


def test_settings_are_for_all_rounds_a_wish_for_one() -> None:
    """The plan of all trainings has them; a round's own wish takes their place, none included."""
    settings = Settings(store="/chains/a", auto_commit=True)
    plan = plan_of(settings).commits
    assert plan is not None
    assert wanted(plan, Facts()) == plan
    assert wanted(plan, Facts(commits={})) is None
    assert wanted(None, Facts(commits={"store": "/b"})) == {"store": "/b"}
    assert commits_of(Settings(store="/chains/a")) is None
    with pytest.raises(SettingsError, match="requires blockchain_store"):
        plan_of(Settings(auto_commit=True))


def test_a_message_is_filled() -> None:
    """Whole numbers for steps, formats as asked, nan for what isn't known."""
    values = {"step": 7.0, "loss": 0.25, "batch": 1, "epoch": 2, "accuracy": None}
    text = "{step}/{batch}/{epoch} {loss:.3f} {accuracy:.1f} {{x}}"
    assert filled_message(text, values) == "7/1/2 0.250 nan {x}"
    CommitPlan(True, 5, text).check(has_store=True)
