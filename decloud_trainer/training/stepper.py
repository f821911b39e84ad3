"""One training step: forward, backward, update; and the same again in parts when memory is short.

Nothing here waits for the device: no figure is read back from it, batch after batch.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from decloud_trainer.errors import CorruptionError, TrainingError
from decloud_trainer.training.device import Device, random_state, set_random_state
from decloud_trainer.training.strategy import Strategy
from decloud_trainer.training.task import Step, Task

log = logging.getLogger(__name__)

Batch = TypeVar("Batch")

MOMENTUM = 0.9  # of SGD, Nesterov's
MAX_PARTS = 65_536
# How allocators that have no exception class of their own say it: torch's on the CPU and on Apple's
# GPUs, and the CUDA libraries.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def make_optimizer(
    model: nn.Module, strategy: Strategy, rate: float, device: Device
) -> torch.optim.Optimizer:
    """The strategy's optimiser over the model's parameters, which are on `device` already.

    In one fused kernel per step where torch has one for the device. Weight decay spares what has
    one dimension, biases and the weights of normalisations: pulling those towards zero helps no
    network. SGD has Nesterov momentum.
    """
    parameters = [each for each in model.parameters() if each.requires_grad]
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if strategy.weight_decay:
        wide = [each for each in parameters if each.dim() > 1]
        narrow = [each for each in parameters if each.dim() <= 1]
        groups = [
            {"params": chosen, "weight_decay": decay}
            for chosen, decay in ((wide, strategy.weight_decay), (narrow, 0.0))
            if chosen
        ]
    if not all(each.is_floating_point() for each in parameters):  # complex ones
        return _optimizer(groups, strategy.optimizer, rate, fused=False)
    try:
        return _optimizer(groups, strategy.optimizer, rate, fused=True)
    except RuntimeError as error:
        # An older torch that has none for this device says so here; other troubles come again.
        log.debug("no fused optimiser on %s: %s", device.name, error)
        return _optimizer(groups, strategy.optimizer, rate, fused=False)


def _optimizer(
    groups: list[dict[str, Any]], name: str, rate: float, *, fused: bool
) -> torch.optim.Optimizer:
    copies = [dict(group) for group in groups]  # the optimiser fills in what it is given
    if name == "sgd":
        return torch.optim.SGD(copies, lr=rate, momentum=MOMENTUM, nesterov=True, fused=fused)
    if name == "adamw":
        return torch.optim.AdamW(copies, lr=rate, weight_decay=0.0, fused=fused)
    return torch.optim.Adam(copies, lr=rate, fused=fused)


def is_out_of_memory(error: BaseException) -> bool:
    """Is this an allocator's refusal, on any device?"""
    # The class has two names; the older one is in every torch since 2.0.
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


class Stepper(Generic[Batch]):
    """Trains `task.model` batch by batch.

    The forward pass runs in the device's precision; weights, gradients and the optimiser stay
    float32. With float16 the loss is scaled up so that small gradients survive, and a step whose
    gradients overflow is left out.

    When a batch doesn't fit into memory, what it holds is freed, and the same batch is done again
    in twice as many parts, whose gradients add up to the whole batch's; later batches are split
    alike. So the result is the same up to rounding, with two exceptions: dropout draws other
    random numbers, and batch normalisation sees the statistics of a part instead of the batch's
    (its running averages count a failed attempt, too; they are measured anew before a state is
    scored).

    Attributes:
        micro_batches: into how many parts batches are split; 1 = whole ones.
        gradient_norm: before clipping, of the last step; None where nothing is clipped.
    """

    def __init__(
        self,
        task: Task[Batch],
        optimizer: torch.optim.Optimizer,
        device: Device,
        strategy: Strategy,
        micro_batches: int = 1,
    ) -> None:
        self._task = task
        self._optimizer = optimizer
        self._device = device
        self._clip_norm = strategy.clip_norm
        self._parameters = [each for group in optimizer.param_groups for each in group["params"]]
        self._scaler = torch.amp.GradScaler(
            device.torch.type, enabled=device.autocast is torch.float16
        )
        self.micro_batches = micro_batches
        self.gradient_norm: Tensor | None = None

    def step(self, batch: Batch) -> Step:
        """Train on one batch; the loss that comes back carries no gradient.

        Raises:
            TrainingError: the memory doesn't suffice, whatever the batch is split into.
        """
        random = random_state(self._device)
        done: Step | None = None
        while done is None:
            try:
                done = self._gradients(batch)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0][:200]
            if done is None:
                # Not in the handler: there the exception still holds the failed attempt's tensors.
                self._back_off(batch, reason)
                set_random_state(random, self._device)
        self._update()
        return done

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON values. Waits for the device if there is scaling."""
        return {"micro_batches": self.micro_batches, "scaler": self._scaler.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            CorruptionError: it is no state of a stepper in this precision.
        """
        micro_batches, scaler = state.get("micro_batches"), state.get("scaler")
        good = type(micro_batches) is int and 1 <= micro_batches <= MAX_PARTS
        good = good and isinstance(scaler, Mapping)
        if not good or set(scaler or ()) != set(self._scaler.state_dict()):
            raise CorruptionError("the checkpoint holds no state of this run's training steps")
        assert isinstance(micro_batches, int)
        self.micro_batches = micro_batches
        if scaler:
            self._scaler.load_state_dict(dict(scaler))

    def _gradients(self, batch: Batch) -> Step:
        """Forward and backward over the whole batch."""
        if self.micro_batches == 1:
            with self._device.precision():
                step = self._task.step(batch)
            self._backward(step.loss)
            return Step(step.loss.detach(), step.samples, step.sums)
        return self._accumulated(self._task.split(batch, self.micro_batches))

    def _accumulated(self, parts: Sequence[Batch]) -> Step:
        """The gradients of the mean over all samples, part by part."""
        first = samples = 0
        loss: Tensor | None = None
        sums: dict[str, Tensor] = {}
        for part in parts:
            with self._device.precision():
                step = self._task.step(part)
            first = first or step.samples
            # In units of the first part: with float16 the gradients keep their usual size.
            weighted = step.loss * (step.samples / first)
            self._backward(weighted)
            samples += step.samples
            loss = weighted.detach() if loss is None else loss + weighted.detach()
            for name, value in step.sums.items():
                sums[name] = sums[name] + value if name in sums else value
        assert loss is not None, "a batch has at least one sample"
        gradients = [each.grad for each in self._parameters if each.grad is not None]
        torch._foreach_mul_(gradients, first / samples)
        return Step(loss * (first / samples), samples, sums)

    def _backward(self, loss: Tensor) -> None:
        scaled: Tensor = self._scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def _update(self) -> None:
        """One step of the optimiser. The fused ones leave an overflown step out on the device."""
        try:
            if self._clip_norm:
                self._scaler.unscale_(self._optimizer)
                self.gradient_norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
            self._scaler.step(self._optimizer)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"{self._device.name} has no memory for the optimiser's state, "
                "which does not depend on the batch size",
                hint="free memory on this machine, or train a smaller model",
            ) from error
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def _back_off(self, batch: Batch, reason: str) -> None:
        """Free what the failed attempt left, and split finer.

        Raises:
            TrainingError: the batch can't be split any further.
        """
        self._optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self._device.torch.type == "cuda":
            torch.cuda.empty_cache()
        elif self._device.torch.type == "mps":
            torch.mps.empty_cache()
        before = len(self._task.split(batch, self.micro_batches)) if self.micro_batches > 1 else 1
        wanted = self.micro_batches * 2
        if wanted > MAX_PARTS or len(self._task.split(batch, wanted)) <= before:
            raise TrainingError(
                f"{self._device.name} has too little memory for this model: "
                f"a batch in {before} parts didn't fit, and it can't be split further ({reason})",
                hint="free memory on this machine, or train a smaller model",
            )
        log.warning(
            "a batch didn't fit into the memory of %s (%s); going on with batches in %d parts",
            self._device.name,
            reason,
            wanted,
        )
        self.micro_batches = wanted
