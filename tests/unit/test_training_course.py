"""How a run finds its way: horizon, best state, ways back from trouble, resuming, replaying."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decloud_trainer.errors import Diverged
from decloud_trainer.store.forwarding import CHAIN
from decloud_trainer.training.artifacts import parse, serialise
from decloud_trainer.training.chains import ChainCheckpoints
from decloud_trainer.training.classifier_task import ClassifierTask
from decloud_trainer.training.data.samples import Samples
from decloud_trainer.training.device import Device
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.horizon import total_steps
from decloud_trainer.training.networks import Architecture, SimpleCNN
from decloud_trainer.training.outcome import Maker
from decloud_trainer.training.record import RECORD, RunRecord, read
from decloud_trainer.training.runs import train_model
from decloud_trainer.training.scoring import scoring_batches
from decloud_trainer.training.selection import Judge, divide, look_every
from decloud_trainer.training.spec import ArtifactSpec, DataSpec, ModelFile, TrainSpec
from decloud_trainer.training.strategy import Strategy

CPU = Device("cpu", None, 1)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TrainSpec:
    """Two short epochs of digits, judged on a part held out, not previewed."""
    folder = tmp_path_factory.mktemp("course")
    torch.manual_seed(1)
    path = folder / "model.pt"
    path.write_bytes(serialise(SimpleCNN(10).state_dict()))
    return TrainSpec(
        ModelFile(path, hashlib.sha256(path.read_bytes()).hexdigest()),
        "simple_cnn",
        10,
        DataSpec("digits", None, folder / "data"),
        None,
        epochs=2,
        max_batches=8,
        threads=1,
        device="cpu",
        strategy=Strategy(validation=0.1, averaging="ema", schedule="cosine"),
        artifact=ArtifactSpec(-0.1, "auto"),
    )


def run(spec: TrainSpec, folder: Path, hooks: Hooks | None = None) -> RunRecord:
    folder.mkdir(exist_ok=True)
    result = train_model(spec, folder, hooks or Hooks(lambda: 0.0))
    record = read(folder / RECORD)
    assert record.result == result.to_json()
    assert hashlib.sha256((folder / result.artifact).read_bytes()).hexdigest() == result.sha256
    return record


def replayed(record: RunRecord, folder: Path) -> RunRecord:
    values = {**record.spec, "choices": dict(record.choices), "deadline": None}
    return run(TrainSpec.from_json(values), folder)


def test_a_record_is_enough_to_do_the_run_again(spec: TrainSpec, tmp_path: Path) -> None:
    """The same bytes, the same curve and the same choices; a deadline that has cut the first run
    off is not needed to cut the second one off at the same step."""
    ticks = itertools.count(1000.0, 0.5)
    cut = dataclasses.replace(spec, epochs="auto", deadline=1030.0)
    first = run(cut, tmp_path / "first", Hooks(lambda: next(ticks)))
    again = replayed(first, tmp_path / "again")
    assert again.result["sha256"] == first.result["sha256"]
    assert again.choices == first.choices
    curves = [[dataclasses.replace(point, seconds=0) for point in r.curve] for r in (first, again)]
    assert curves[0] == curves[1]
    assert first.choices["dtype"] in ("float16", "bfloat16", "float32")
    assert first.versions.keys() >= {"decloud_trainer", "python", "torch", "numpy", "cpu"}
    assert first.data["name"] == "digits"
    assert first.data["fingerprint"]


def test_auto_fills_the_time_there_is(spec: TrainSpec, tmp_path: Path) -> None:
    """More time, more steps; the schedule ends with the last of them, before the deadline."""
    steps = []
    for seconds in (20.0, 40.0):
        now = [1000.0]

        def clock(now: list[float] = now) -> float:
            now[0] += 0.25
            return now[0]

        wanted = dataclasses.replace(spec, epochs="auto", deadline=1000.0 + seconds)
        record = run(wanted, tmp_path / str(seconds), Hooks(clock))
        assert now[0] < 1000.0 + seconds
        assert record.result["batches"] <= record.choices["total_steps"]
        steps.append(record.choices["total_steps"])
    assert steps[1] > 1.5 * steps[0]


def test_epochs_are_exact_unless_the_deadline_forbids_it(spec: TrainSpec) -> None:
    """Three epochs of 10 steps: all if there is time, fewer if not; auto has a stated maximum."""
    three = dataclasses.replace(spec, epochs=3)
    auto = dataclasses.replace(spec, epochs="auto")
    assert total_steps(three, 10, None, 0.0) == 30
    assert total_steps(three, 10, 100.0, 60.0) == 30
    assert total_steps(three, 10, 1.0, 10.0) == 9
    assert total_steps(auto, 10, 1.0, 1000.0) == 920
    assert total_steps(auto, 10, None, 0.0) == 200


def test_a_rate_that_is_far_too_high_is_lowered(spec: TrainSpec, tmp_path: Path) -> None:
    """The run goes back and goes on with less, says so in its record, and can be replayed."""
    wild = dataclasses.replace(
        spec,
        learning_rate=3.0,
        strategy=dataclasses.replace(Strategy.plain(), optimizer="sgd", validation=0.1),
    )
    record = run(wild, tmp_path / "wild")
    assert record.result["stopped"] == "complete"
    assert record.choices["rate_changes"]
    assert "back to step" in record.notes[0]
    assert replayed(record, tmp_path / "again").result["sha256"] == record.result["sha256"]


def test_a_hopeless_rate_is_no_result(spec: TrainSpec, tmp_path: Path) -> None:
    """When no lowering helps, the run ends in Diverged, and leaves nothing to be submitted."""
    hopeless = dataclasses.replace(
        spec,
        learning_rate=10.0,
        strategy=dataclasses.replace(Strategy.plain(), validation=0.1),
    )
    with pytest.raises(Diverged):
        train_model(hopeless, tmp_path, Hooks(lambda: 0.0))
    assert not (tmp_path / "gradient.pt").exists()


def test_a_run_goes_on_from_its_checkpoint_alone(
    spec: TrainSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a whole checkpoint it goes on, to the same bytes; with a damaged one or another run's it
    begins anew, and says why."""

    class Stopped(Exception):
        pass

    def interrupted(folder: Path, wanted: TrainSpec) -> None:
        """Ended by force after the first checkpoint in the second epoch."""
        folder.mkdir()
        ticks = itertools.count(0.0, 5.0)
        looks = itertools.count()

        def stop() -> bool:
            if next(looks) == 14:
                raise Stopped
            return False

        hooks = Hooks(lambda: next(ticks), should_stop=stop, checkpoints=ChainCheckpoints(folder))
        with pytest.raises(Stopped):
            train_model(wanted, folder, hooks)

    def again(folder: Path) -> RunRecord:
        return run(spec, folder, Hooks(lambda: 0.0, checkpoints=ChainCheckpoints(folder)))

    whole = run(spec, tmp_path / "whole")
    cases = {"good": "resumed", "damaged": "is damaged", "other": "another run"}
    for name, words in cases.items():
        folder = tmp_path / name
        interrupted(folder, dataclasses.replace(spec, seed=int(name == "other")))
        if name == "damaged":
            for path in folder.glob("chain/blobs/*"):
                path.write_bytes(path.read_bytes()[:-1])
        caplog.clear()
        record = again(folder)
        assert record.result["sha256"] == whole.result["sha256"]
        assert bool(record.notes) == (name == "good")
        assert words in caplog.text + "".join(record.notes)
    assert (tmp_path / "good" / CHAIN / "HEAD").exists(), "whoever gave the folder removes it"


# --- the best state ---------------------------------------------------------------------------


def digits(count: int) -> Samples:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 32, 32), dtype=np.uint8)
    return Samples(images, np.arange(count, dtype=np.int64) % 10)


def test_a_network_with_one_answer_is_found_useless() -> None:
    """Unless the untrained one had but one, too; an infinite loss is useless in any case."""
    torch.manual_seed(0)
    network, samples = SimpleCNN(10).eval(), digits(60)
    with torch.no_grad():
        network.fc2.weight *= 50
        (inputs, _), *_ = scoring_batches(samples)
        network.fc2.bias -= network(inputs).mean(dim=0)  # so that no answer stands out
    base = network.state_dict()
    flat = {**base, "fc2.weight": base["fc2.weight"] * 0}
    broken = {**base, "fc2.bias": base["fc2.bias"] * float("nan")}

    def problem(base: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
        architecture = Architecture("simple_cnn", 10)
        task = ClassifierTask(architecture.with_weights(base), samples, 8, 0, CPU)
        judge = Judge(architecture, base, task, samples, CPU)
        judge.take(state)
        return judge.problem(judge.verdict())

    assert problem(base, base) == ""
    assert "the same answer" in problem(base, flat)
    assert problem(flat, flat) == ""
    assert "nan" in problem(flat, broken)


def test_the_data_is_divided_without_the_test_split() -> None:
    """What judges is never trained on; too small a part is not held out at all."""
    labels = np.arange(1000, dtype=np.int64) % 10
    division = divide(labels, 0.1, 3)
    assert division.is_held_out
    assert len(division.judge) == 100
    assert not set(division.train) & set(division.judge)
    small = divide(labels[:100], 0.1, 3)
    assert not small.is_held_out
    assert len(small.train) == 100
    assert len(divide(labels, 0.0, 3).train) == 1000


def test_looks_are_rare_enough_to_be_cheap() -> None:
    """At ends of epochs, every so many that judging takes a few percent of the time."""
    assert look_every(100, 32, 1000, averages=False) == 1000
    every = look_every(6000, 32, 1688, averages=True)
    assert every % 1688 == 0
    assert 2 * 6000 / 3 / 32 / every <= 0.03


# --- the artefact -----------------------------------------------------------------------------


def make(
    trained: Tensor, accuracy: Callable[[Mapping[str, Tensor]], float] | None, **convention: Any
) -> tuple[str, dict[str, Tensor]]:
    """The dtype that is chosen, and what is in the file."""
    base = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
    keys = {"weight": (2, 2), "bias": (2,)}
    maker = Maker(base, nn.Linear(2, 2), keys, ArtifactSpec(**convention), None, accuracy)
    made = maker.make({"weight": trained, "bias": torch.zeros(2)})
    return made.dtype, parse(made.data, (made.dtype,))


def test_the_smallest_type_that_does_not_lose_is_taken() -> None:
    """float16 if it is good enough, bfloat16 for what is too large for it, else float32; and
    float32 where nothing can be compared."""
    fine, large = torch.full((2, 2), 1.0003), torch.full((2, 2), 1e5)

    def near(wanted: Tensor, share: float) -> Callable[[Mapping[str, Tensor]], float]:
        return lambda state: 90.0 * bool((state["weight"] / wanted - 1).abs().max() < share)

    assert make(fine, near(fine, 1e-2), dtype="auto")[0] == "float16"
    assert make(fine, near(fine, 1e-5), dtype="auto")[0] == "float32"
    assert make(large, near(large, 1e-2), dtype="auto")[0] == "bfloat16"
    assert make(fine, None, dtype="auto")[0] == "float32"
    with pytest.raises(Diverged, match="float16"):
        make(large, None, dtype="float16")


def test_unchanged_parameters_are_left_out_where_that_is_allowed() -> None:
    """By names the base's stay; under the delta convention everything is there, and so it is when
    nothing has changed at all."""
    changed = torch.ones(2, 2)
    assert make(changed, None, apply_scale=-0.1)[1].keys() == {"weight"}
    assert make(changed, None, apply_scale=1.0)[1].keys() == {"weight", "bias"}
    assert make(changed * 0, None, apply_scale=-0.1)[1].keys() == {"weight", "bias"}
