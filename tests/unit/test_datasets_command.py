"""The command `datasets`: what is here, what it takes, and having it gone again."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from decloud_trainer import config
from decloud_trainer.cli.datasets import datasets as command
from decloud_trainer.plans import datasets_dir


def call(*words: str) -> Result:
    return CliRunner().invoke(command, words, catch_exceptions=False)


def listed() -> dict[str, dict[str, object]]:
    return {each["dataset"]: each for each in json.loads(call("list", "--json").stdout)}


def test_what_a_dataset_takes_is_listed_and_can_be_removed() -> None:
    """Fetched, it takes space; removed, none; a second time there is nothing to remove."""
    assert listed()["digits"]["decoded_bytes"] == 0
    result = call("fetch", "digits")
    assert "digits is ready: 1,347 training and 450 test samples, 10 classes" in result.stdout
    assert result.stderr.splitlines() == ["data"]
    took = listed()["digits"]["decoded_bytes"]
    assert took == sum(path.stat().st_size for path in (datasets_dir() / "decoded").iterdir())
    assert "1.9 MB" in call("list").stdout
    removed = json.loads(call("remove", "Digits", "--json").stdout)
    assert removed == {"dataset": "digits", "downloaded_bytes": 0, "decoded_bytes": took}
    assert "Nothing of digits was kept here." in call("remove", "digits").stdout


def test_a_mapped_dataset_itself_can_be_fetched() -> None:
    """Without --unmapped the data that is trained on is readied, with it the requested one."""
    config.update({"dataset_mappings": {"wine": "digits"}})
    told = call("fetch", "wine")
    assert "wine is trained on digits (mapping)" in told.stdout
    assert "digits is ready" in told.stdout
    assert "wine is ready: 144 training" in call("fetch", "wine", "--unmapped").stdout


@pytest.mark.parametrize("words", [("fetch", "eurosat"), ("check", "eurosat")])
def test_other_datasets_are_refused_with_a_sentence(words: tuple[str, ...]) -> None:
    """A dataset of the network without a loader here: what to do instead is said."""
    from decloud_trainer.errors import DatasetUnavailable

    with pytest.raises(DatasetUnavailable, match="no data and no loader for eurosat") as caught:
        call(*words)
    assert "--add-mapping eurosat:mnist" in caught.value.hint
