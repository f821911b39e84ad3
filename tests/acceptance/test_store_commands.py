"""``store`` as a user has it, on a chain in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from terminal import here

from decloud_trainer.store.opening import open_store
from decloud_trainer.training.checkpoint import Checkpoint
from decloud_trainer.training.snapshots import commit_checkpoint


def command(*words: str, code: int = 0) -> str:
    """A command in this process (each would import torch anew), all that it prints."""
    done = here("store", *words)
    assert done.code == code, done
    return done.out + done.err


@pytest.fixture
def chain(tmp_path: Path) -> str:
    """Five versions of a model with a frozen part."""
    store = open_store(str(tmp_path / "chain"))
    frozen = torch.arange(100_000.0)
    for n in range(5):
        state = Checkpoint(
            {"step": 10 * n, "spec": {"learning_rate": n / 10, "batch_size": 32}},
            {
                "model/backbone.weight": frozen,
                "model/head.weight": torch.full((30_000,), float(n)),
                "optimizer/0/step": torch.tensor(float(n)),
                "extra/spectrum": torch.tensor([1 + 2j, n + 0j]),
            },
        )
        commit_checkpoint(store, state, f"step {10 * n}", metrics={"loss": 1 / (n + 1)})
    return store.where


def test_a_chain_is_listed_and_shown(chain: str) -> None:
    """Newest first; one version by number, name or tag; JSON for scripts."""
    listed = command("list", chain)
    assert listed.index("1.0.4 v0000000004") < listed.index("1.0.0 v0000000000")
    assert "loss 0.2" in listed
    assert "3 older ones" in command("list", chain, "--limit", "2")
    tagged = json.loads(command("tag", chain, "2", "release-1", "--json"))
    shown = json.loads(command("show", chain, "release-1", "--json"))
    assert shown["version"] == "v0000000002"
    assert shown["tags"] == ["release-1"]
    assert shown["metrics"] == {"loss": pytest.approx(1 / 3)}
    assert json.loads(command("show", chain, "v0000000002", "--json")) == shown == tagged
    log = command("log", chain)
    assert shown["hash"] in log
    assert log.count("Parent:") == 5
    untagged = json.loads(command("untag", chain, "release-1", "--json"))
    assert untagged == {"chain": chain, "removed": "release-1", "tags": {}}
    assert "has no tag release-1" in command("untag", chain, "release-1", "--json", code=2)
    assert "names no version" in command("show", chain, "release-1", code=2)
    assert "has no version 9" in command("show", chain, "9", code=1)


def test_differences_are_metrics_settings_and_movement(chain: str) -> None:
    """What stayed is counted, what moved has a norm."""
    told = json.loads(command("diff", chain, "0", "3", "--json"))
    assert told["document"] == {"step": [0, 30], "spec.learning_rate": [0.0, 0.3]}
    assert told["metrics"] == {"loss": [1.0, 0.25]}
    assert told["parameters"] == {
        "backbone.weight": 0.0,
        "head.weight": pytest.approx(3 * 30_000**0.5),
    }
    assert "1 parameters are the same" in command("diff", chain, "0", "3")
    assert "the two versions are equal" in command("diff", chain, "2", "2")


def test_sharing_is_shown(chain: str) -> None:
    """The frozen part is there once: five versions take less than half of their contents."""
    told = json.loads(command("stats", chain, "--json"))
    assert told["versions"] == 5
    assert told["stored_share"] < 0.45
    assert "Stored:" in command("stats", chain)


def test_a_version_leaves_and_comes_back(chain: str, tmp_path: Path) -> None:
    """Weights for others to load, the whole state for a chain; both verified."""
    weights = tmp_path / "model.safetensors"
    command("export", chain, "3", str(weights))
    assert float(safetensors.torch.load_file(weights)["head.weight"][0]) == 3
    file = tmp_path / "model.pt"
    written = json.loads(command("export", chain, "3", str(file), "--format", "torch", "--json"))
    assert (written["version"], written["tensors"]) == ("v0000000003", 2)
    assert (written["file"], written["bytes"]) == (str(file), file.stat().st_size)
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    assert set(loaded) == {"backbone.weight", "head.weight"}
    state = tmp_path / "state.safetensors"
    written = json.loads(command("checkout", chain, "3", str(state), "--json"))
    assert (written["file"], written["bytes"]) == (str(state), state.stat().st_size)
    other = str(tmp_path / "other")
    made = json.loads(command("import", other, str(state), "-m", "from there", "--json"))
    there = json.loads(command("show", chain, "3", "--json"))
    assert made["content_hash"] == there["content_hash"]
    assert made["commit_message"] == "from there"
    command("import", other, str(weights))
    assert "the two versions are equal" not in command("diff", other, "0", "1")
    assert "can't read" in command("import", other, str(tmp_path / "nothing"), code=1)
    weights.write_bytes(b"\x80\x04pickle")
    assert "no safetensors file" in command("import", other, str(weights), code=4)


def test_damage_ends_with_exit_code_4(chain: str) -> None:
    """Both commands name the first bad version; a sound chain says so and gives HEAD's hash."""
    sound = command("verify", chain)
    assert json.loads(command("show", chain, "4", "--json"))["hash"] in sound
    assert "no bad version" in command("find-corruption", chain)
    record = Path(chain, "versions", "v0000000002.json")
    record.write_bytes(record.read_bytes().replace(b"step 20", b"step 21"))
    assert "v0000000002" in command("verify", chain, code=4)
    first = command("find-corruption", chain, "--json", code=4)
    assert json.loads(first.splitlines()[0])["first"]["version"] == "v0000000002"


def test_old_contents_go_only_when_told(chain: str) -> None:
    """A dry run and a question that is answered with no change nothing."""
    told = json.loads(
        command("gc", chain, "--keep", "1", "--protect-tags", "2", "--dry-run", "--json")
    )
    assert told["versions"] == ["v0000000001", "v0000000003"]
    assert told["kept"] == [0, 2, 4]
    assert "doesn't ask" in command("gc", chain, "--keep", "1", "--json", code=2)
    before = command("stats", chain)
    done = here("store", "gc", chain, "--keep", "1", stdin="n\n")
    assert done.code == 0
    assert done.out.endswith("nothing was removed\n")
    assert command("stats", chain) == before
    command("gc", chain, "--keep", "1", "--protect", "2", "--yes")
    assert "is sound: 5 versions" in command("verify", chain)
    assert "garbage collection" in command("checkout", chain, "1", "/dev/null", code=1)
    assert "collected" in command("list", chain)


def test_curves_go_to_tensorboard(chain: str, tmp_path: Path) -> None:
    """The loss of every version, at its number."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = json.loads(command("tensorboard", chain, "--logdir", str(tmp_path / "runs"), "--json"))
    assert told["versions"] == 5
    events = EventAccumulator(str(tmp_path / "runs"))
    events.Reload()
    assert [(e.step, round(e.value, 4)) for e in events.Scalars("loss")] == [
        (n, round(1 / (n + 1), 4)) for n in range(5)
    ]


def test_a_word_names_a_chain_in_the_data_folder(own_home: Path, tmp_path: Path) -> None:
    """Without a path nothing lands in the working folder."""
    weights = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(3)}, weights)
    command("import", "experiments", str(weights))
    assert (own_home / "decloud" / "stores" / "experiments" / "HEAD").exists()
    assert "has no versions yet" in command("list", "others")
    assert not (own_home / "decloud" / "stores" / "others").exists()
