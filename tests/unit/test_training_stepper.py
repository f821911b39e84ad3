"""One training step: equal to torch's plain one, in parts when memory is short."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from decloud_trainer.errors import CorruptionError, TrainingError
from decloud_trainer.training.device import Device
from decloud_trainer.training.stepper import Stepper, is_out_of_memory, make_optimizer
from decloud_trainer.training.strategy import Strategy
from decloud_trainer.training.task import Step

CPU = Device("cpu", None, 1)
PLAIN = Strategy.plain()
Batch = tuple[Tensor, Tensor]


class Classes:
    """Eight features, three classes; notes the sizes of the batches that it sees."""

    batches_per_epoch = 1

    def __init__(self, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(
            nn.Linear(8, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)
        )
        self.sizes: list[int] = []

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(4):
            inputs = torch.randn(24, 8, generator=generator)
            yield inputs, inputs[:, :3].argmax(dim=1)

    def step(self, batch: Batch) -> Step:
        inputs, labels = batch
        self.sizes.append(len(labels))
        logits = self.model(inputs)
        correct = (logits.argmax(dim=1) == labels).sum()
        return Step(functional.cross_entropy(logits, labels), len(labels), {"correct": correct})

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        inputs, labels = batch
        size = -(-len(labels) // parts)
        return list(zip(inputs.split(size), labels.split(size), strict=True))

    def metrics(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        return {}

    def extra_state(self) -> dict[str, Tensor]:
        return {}


class Short(Classes):
    """Memory for a few samples only: a bigger batch asks the real allocator for the impossible."""

    def __init__(self, room: int, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.room = room

    def step(self, batch: Batch) -> Step:
        step = super().step(batch)
        if step.samples > self.room:
            torch.empty(2**46, dtype=torch.uint8)
        return step


def trained(task: Classes, strategy: Strategy = PLAIN, parts: int = 1) -> tuple[Tensor, Stepper]:  # type: ignore[type-arg]
    optimizer = make_optimizer(task.model, strategy, 0.01, CPU)
    stepper = Stepper(task, optimizer, CPU, strategy, parts)
    torch.manual_seed(1)
    for epoch in range(3):
        for batch in task.batches(epoch):
            stepper.step(batch)
    return torch.cat([each.detach().flatten() for each in task.model.parameters()]), stepper


def test_a_step_is_what_torch_does_by_hand() -> None:
    """With the plain strategy a step is forward, backward, Adam: bit for bit."""
    ours, _ = trained(Classes())
    task = Classes()
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.01, fused=True)
    for epoch in range(3):
        for inputs, labels in task.batches(epoch):
            optimizer.zero_grad()
            functional.cross_entropy(task.model(inputs), labels).backward()
            optimizer.step()
    assert torch.equal(ours, torch.cat([p.detach().flatten() for p in task.model.parameters()]))


@pytest.mark.parametrize("parts", [2, 5, 24])
def test_parts_add_up_to_the_whole_batch(parts: int) -> None:
    """Equal parts, unequal ones and single samples give the whole batch's training."""
    whole, _ = trained(Classes())
    split, _ = trained(Classes(), parts=parts)
    assert torch.allclose(whole, split, atol=1e-4)
    task = Classes()
    batch = next(task.batches(0))
    expected = task.step(batch)
    step = Stepper(task, make_optimizer(task.model, PLAIN, 0.01, CPU), CPU, PLAIN, parts).step(
        batch
    )
    assert torch.allclose(step.loss, expected.loss.detach(), atol=1e-5)
    assert (step.samples, step.loss.requires_grad) == (24, False)
    assert torch.equal(step.sums["correct"], expected.sums["correct"])


def test_a_batch_that_does_not_fit_is_done_again_in_parts() -> None:
    """The allocator's refusal costs no batch and no accuracy, and happens once."""
    whole, _ = trained(Classes())
    short = Short(room=7)
    weights, stepper = trained(short)
    assert torch.allclose(whole, weights, atol=1e-4)
    assert stepper.micro_batches == 4
    assert short.sizes[:6] == [24, 12, 6, 6, 6, 6]
    assert max(short.sizes[2:]) <= 7


def test_who_starts_in_parts_arrives_where_backing_off_arrives() -> None:
    """A replay that knows the parts beforehand gives the same bits, dropout included."""
    failed, _ = trained(Short(room=12, dropout=0.5))
    known, _ = trained(Classes(dropout=0.5), parts=2)
    assert torch.equal(failed, known)


def test_what_never_fits_is_named() -> None:
    """When single samples don't fit either, the error says so instead of trying for ever."""
    with pytest.raises(TrainingError, match="24 parts didn't fit"):
        trained(Short(room=0))


def test_other_errors_of_the_model_are_not_taken_for_memory() -> None:
    """A wrong shape is raised as it is; nothing is tried again."""
    task = Classes()
    stepper = Stepper(task, make_optimizer(task.model, PLAIN, 0.01, CPU), CPU, PLAIN)
    with pytest.raises(RuntimeError, match="shapes"):
        stepper.step((torch.zeros(4, 9), torch.zeros(4, dtype=torch.int64)))
    assert task.sizes == [4]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
    ],
)
def test_every_allocator_is_understood(error: BaseException) -> None:
    """Python's, a GPU's and Apple's refusals mean the same."""
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_real_limit_of_memory_is_survived() -> None:
    """In a process with too little address space, training goes on in parts."""
    code = """
import resource, torch
from torch import nn
from decloud_trainer.training.device import Device
from decloud_trainer.training.stepper import Stepper, make_optimizer
from decloud_trainer.training.strategy import Strategy
from tests.unit.test_training_stepper import Classes
torch.set_num_threads(1)
task, cpu = Classes(), Device("cpu", None, 1)
task.model = nn.Sequential(nn.Linear(8, 4096), nn.ReLU(), nn.Linear(4096, 3))
stepper = Stepper(task, make_optimizer(task.model, Strategy.plain(), 0.01, cpu), cpu,
                  Strategy.plain())
inputs = torch.randn(8192, 8)
batch = inputs, inputs[:, :3].argmax(dim=1)
stepper.step((inputs[:64], batch[1][:64]))
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 200 * 2**20,) * 2)
step = stepper.step(batch)
print(step.samples, stepper.micro_batches > 1)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["8192", "True"], done.stderr
    assert "didn't fit into the memory of cpu" in done.stderr


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimisers_are_fused_and_decay_spares_biases(name: str) -> None:
    """Each optimiser takes one kernel per step; decay pulls at matrices, not at biases."""
    model = Classes().model
    strategy = replace(PLAIN, optimizer=name, weight_decay=0.5)
    optimizer = make_optimizer(model, strategy, 0.1, CPU)
    assert optimizer.defaults["fused"]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) == key.endswith("bias"), key
    without = make_optimizer(model, replace(strategy, weight_decay=0.0), 0.1, CPU)
    assert [group["weight_decay"] for group in without.param_groups] == [0.0]


def test_parameters_without_a_fused_kernel_train_as_well() -> None:
    """Complex weights have no fused optimiser; they get the ordinary one."""
    model = nn.Linear(4, 2, dtype=torch.complex64)
    optimizer = make_optimizer(model, PLAIN, 0.1, CPU)
    assert not optimizer.defaults["fused"]
    model(torch.ones(1, 4, dtype=torch.complex64)).abs().sum().backward()
    optimizer.step()


def test_gradients_are_clipped_to_their_norm() -> None:
    """An update is bounded by rate times norm, and the norm before it can be read."""
    task = Classes()
    strategy = replace(PLAIN, optimizer="sgd", clip_norm=1e-3)
    before = torch.cat([each.detach().flatten() for each in task.model.parameters()])
    stepper = Stepper(task, make_optimizer(task.model, strategy, 1.0, CPU), CPU, strategy)
    stepper.step(next(task.batches(0)))
    after = torch.cat([each.detach().flatten() for each in task.model.parameters()])
    # Nesterov's first step is 1 + momentum times the gradient.
    assert (after - before).norm().item() == pytest.approx(1.9e-3, rel=1e-2)
    assert stepper.gradient_norm is not None
    assert stepper.gradient_norm > 1e-3


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_lower_precision_learns_the_same_with_weights_in_float32(precision: torch.dtype) -> None:
    """The forward pass is shorter, weights and gradients are not; float16 is scaled."""
    task = Classes()
    device = Device("cpu", precision, 1)
    optimizer = make_optimizer(task.model, PLAIN, 0.01, device)
    stepper = Stepper(task, optimizer, device, PLAIN)
    losses = [float(stepper.step(b).loss) for epoch in range(20) for b in task.batches(epoch)]
    assert losses[-1] < losses[0] / 2
    kept = [*task.model.parameters(), *(s["exp_avg"] for s in optimizer.state.values())]
    assert {each.dtype for each in kept} == {torch.float32}
    assert bool(stepper.state()["scaler"]) == (precision is torch.float16)


def test_a_step_that_overflows_is_left_out() -> None:
    """float16: infinite gradients change no weight, and the scale goes down."""
    task = Classes()
    device = Device("cpu", torch.float16, 1)
    stepper = Stepper(task, make_optimizer(task.model, PLAIN, 0.01, device), device, PLAIN)
    batch = next(task.batches(0))
    stepper.step(batch)
    before = [each.detach().clone() for each in task.model.parameters()]
    scale = stepper.state()["scaler"]["scale"]
    stepper.step((batch[0] * 1e30, batch[1]))
    assert all(map(torch.equal, before, task.model.parameters()))
    assert stepper.state()["scaler"]["scale"] == scale / 2


def test_state_comes_back() -> None:
    """Parts and scaling survive a checkpoint; something else is refused."""
    device = Device("cpu", torch.float16, 1)

    def make(on: Device = device) -> Stepper[Batch]:
        task = Classes()
        return Stepper(task, make_optimizer(task.model, PLAIN, 0.01, on), on, PLAIN)

    first, second = make(), make()
    first.micro_batches = 4
    first.step(next(Classes().batches(0)))
    second.load(first.state())
    assert second.state() == first.state()
    assert second.micro_batches == 4
    wrong: list[Callable[[], None]] = [
        lambda: make(CPU).load(first.state()),
        lambda: second.load({"micro_batches": 0, "scaler": {}}),
        lambda: second.load({}),
    ]
    for load in wrong:
        with pytest.raises(CorruptionError):
            load()
