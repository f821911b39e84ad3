"""GbmCVNNPricer: trains a complex-valued network on simulated payoffs, and prices with it."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from decloud_trainer.errors import DecloudError, SettingsError
from decloud_trainer.store.aio import AsyncStore
from decloud_trainer.store.chain import Store
from decloud_trainer.training.checkpoint import Checkpoint
from decloud_trainer.training.choices import Choices
from decloud_trainer.training.commit_plan import (
    DEFAULT_MESSAGE,
    CommitPlan,
    CommitReport,
    filled_message,
)
from decloud_trainer.training.commits import Commits
from decloud_trainer.training.device import Device, choose_device
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.loop import train
from decloud_trainer.training.pricing.config import GbmCVNNPricerConfig, TrainingConfig
from decloud_trainer.training.pricing.options import INPUTS, call_from_put
from decloud_trainer.training.pricing.saving import bytes_tensor, checkpoint_of
from decloud_trainer.training.pricing.simulation import (
    MAX_POSITION,
    ContractSampler,
    path_generator,
    price_of,
)
from decloud_trainer.training.results import Progress
from decloud_trainer.training.state import Plan, Training
from decloud_trainer.training.task import Step

Batch = tuple[Tensor, Tensor]

MESSAGE_FIELDS = ("step", "loss", "batch")
# There is no end of samples; an epoch is what the display and the running means span.
EPOCH_BATCHES = 1000


@dataclass(frozen=True, slots=True)
class PricerReport:
    """What a call of `train` did.

    Attributes:
        losses: of each batch.
        seconds: until the last batch was trained on.
        waited_s: for the commits that were not yet made then.
        commits: what became of its commits; None without a chain.
    """

    losses: tuple[float, ...]
    seconds: float
    waited_s: float
    commits: CommitReport | None


class PricerTask:
    """Contracts in, the spectra of their simulated payoffs out; squared error on both parts.

    What is drawn follows from the seed and from how many contracts were drawn before, so any batch
    can be had again.
    """

    def __init__(
        self, config: GbmCVNNPricerConfig, model: nn.Module, batch_size: int, device: Device
    ) -> None:
        self.model = model
        self.losses: list[Tensor] = []
        self._params = config.cfg.sim_params
        self._simulation = config.cfg.monte_carlo()
        self._sampler = ContractSampler(config.domain_bounds, self._params.mc_seed)
        self._batch_size = batch_size
        self._step, self._position = config.global_step, config.sobol_skip
        self._device = device
        ends = [config.domain_bounds[name] for name in INPUTS]
        self._scaling = Scaling(torch.tensor(ends, dtype=torch.float64), self._params.torch_dtype)

    @property
    def batches_per_epoch(self) -> int:
        return EPOCH_BATCHES

    def position(self, step: int) -> int:
        """Contracts drawn before this step of the run."""
        return self._position + (step - self._step) * self._batch_size

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """(inputs (B, 6), targets (B, network_size)), both complex, on the device."""
        for number in range(start, EPOCH_BATCHES):
            yield self._batch(self.position((epoch - 1) * EPOCH_BATCHES + number))

    def _batch(self, position: int) -> Batch:
        first = self._params.skip + position
        if first + self._batch_size > MAX_POSITION:
            raise DecloudError(
                f"the Sobol sequence ends after {MAX_POSITION:,} contracts",
                hint="begin a new pricer with another mc_seed",
            )
        contracts = self._sampler.draw(first, self._batch_size)
        on_device = contracts.to(self._device.torch, self._params.torch_dtype)
        generator = path_generator(self._params.mc_seed, first, self._device.torch)
        with torch.no_grad():
            target = self._simulation.target(on_device, generator)
        return self._scaling(contracts).to(self._device.torch), target

    def step(self, batch: Batch) -> Step:
        inputs, target = batch
        difference = torch.view_as_real(self.model(inputs) - target)
        loss = difference.square().sum(dim=-1).mean()
        self.losses.append(loss.detach())
        return Step(loss, len(inputs), {})

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        parts = min(parts, len(batch[0]) // 2)
        if parts < 2:
            return [batch]
        return list(zip(*(each.tensor_split(parts) for each in batch), strict=True))

    def metrics(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        return {}

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing: samples follow from the seed and the step."""
        return {}


class Scaling:
    """Contracts within their bounds -> complex numbers with real parts in -1..1."""

    def __init__(self, ends: Tensor, dtype: torch.dtype) -> None:
        self._middle = ends.mean(dim=1)
        self._half = (ends[:, 1] - ends[:, 0]) / 2
        self._dtype = dtype

    def __call__(self, contracts: Tensor) -> Tensor:
        real = ((contracts.double().cpu() - self._middle) / self._half).to(self._dtype)
        return torch.complex(real, torch.zeros_like(real))


class GbmCVNNPricer:
    """Puts and calls under Black-Scholes, learned from simulation.

    Args:
        config: a new one, or the snapshot of another pricer, which is then gone on with.
        device, threads: as everywhere in training.
    """

    def __init__(
        self, config: GbmCVNNPricerConfig, *, device: str = "auto", threads: int = 0
    ) -> None:
        self._device = choose_device(device, threads)
        params = config.cfg.sim_params
        model = copy.deepcopy(config.cvnn).to(self._device.torch, params.torch_dtype)
        self._config = dataclasses.replace(config, cvnn=model)
        self._set_random_state()

    def train(
        self,
        training_config: TrainingConfig,
        *,
        blockchain_store: Store | AsyncStore | None = None,
        auto_commit: bool = False,
        commit_interval: int | None = None,
        commit_message_template: str = DEFAULT_MESSAGE,
        progress: Callable[[Progress], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> PricerReport:
        """Train so many batches more.

        Works within a running event loop, too: it blocks, but needs none. Commits are made beside
        it, and one that fails stops nothing; the report tells.

        Args:
            blockchain_store: the chain of versions to commit to.
            auto_commit: commit the state at the end.
            commit_interval: and after every so many batches of this call.
            commit_message_template: text with ``{step}``, ``{loss}`` and ``{batch}``.

        Raises:
            SettingsError: the arguments don't go together, or the template is wrong.
            Diverged: the loss is no longer finite, or has run away. This pricer is then of no use
                any more; its newest version is.
        """
        plan = CommitPlan(auto_commit, commit_interval, commit_message_template)
        plan.check(has_store=blockchain_store is not None, known=MESSAGE_FIELDS)
        store = (
            blockchain_store.sync if isinstance(blockchain_store, AsyncStore) else blockchain_store
        )
        task = PricerTask(self._config, self._config.cvnn, training_config.batch_size, self._device)
        training = self._training(task, training_config, commit_interval or 0)
        hooks = Hooks(time.monotonic, progress, should_stop)
        commits = Commits(store) if store is not None and auto_commit else None
        began, committed = hooks.clock(), -1
        try:
            for moment in train(training, training.step + training_config.num_batches, hooks):
                if moment.kind == "commit" and commits is not None:
                    self._commit(commits, plan, training, task)
                    committed = training.step
            if commits is not None and training.step != committed:
                self._commit(commits, plan, training, task)
            else:
                self._stand(training, task)
            trained_s = hooks.clock() - began
        finally:
            report = commits.close() if commits is not None else None
        losses = tuple(torch.stack(task.losses).tolist()) if task.losses else ()
        return PricerReport(losses, trained_s, hooks.clock() - began - trained_s, report)

    def _stand(self, training: Training[Batch], task: PricerTask) -> Checkpoint:
        """Take over where the training stands; that state, copied once."""
        kept = training.snapshot()
        self._config = dataclasses.replace(
            self._config,
            optimizer_state=kept.part("optimizer"),
            global_step=training.step,
            sobol_skip=task.position(training.step),
        )
        return checkpoint_of(self._with_random_state(), kept.part("model"))

    def _commit(
        self, commits: Commits, plan: CommitPlan, training: Training[Batch], task: PricerTask
    ) -> None:
        loss = float(task.losses[-1]) if task.losses else float("nan")
        step, batch = training.step, training.step - training.plan.commit_from
        message = filled_message(plan.message, {"step": step, "loss": loss, "batch": batch})
        metrics = {"step": float(step)} | ({"loss": loss} if task.losses else {})
        commits.offer(self._stand(training, task), message, metrics)

    def snapshot(self) -> GbmCVNNPricerConfig:
        """Copies of the whole state, on the CPU; another pricer made with it goes on from here."""
        config = self._with_random_state()
        state = config.optimizer_state
        return dataclasses.replace(
            config,
            cvnn=copy.deepcopy(config.cvnn).cpu(),
            optimizer_state=None if state is None else {k: v.clone() for k, v in state.items()},
        )

    def put_prices(self, contracts: Tensor) -> Tensor:
        """The network's prices of puts: (C, 6) -> (C,) float64 on the CPU."""
        model = self._config.cvnn
        ends = [self._config.domain_bounds[name] for name in INPUTS]
        scaling = Scaling(
            torch.tensor(ends, dtype=torch.float64), self._config.cfg.sim_params.torch_dtype
        )
        was_training = model.training
        model.eval()
        with torch.inference_mode():
            spectrum = model(scaling(contracts).to(self._device.torch))
        model.train(was_training)
        return price_of(spectrum).double().cpu()

    def check_within(self, inputs: Mapping[str, float]) -> None:
        """Raises SettingsError: a value is outside of the bounds that the network knows."""
        for name, (low, high) in self._config.domain_bounds.items():
            if not low <= inputs[name] <= high:
                raise SettingsError(
                    f"{name} {inputs[name]:g} is outside of {low:g} to {high:g}, which this pricer "
                    "was trained for",
                    hint="train one with other domain_bounds",
                )

    def call_prices(self, contracts: Tensor) -> Tensor:
        """By put-call parity with the discounted forward: (C, 6) -> (C,)."""
        return call_from_put(contracts.double(), self.put_prices(contracts))

    def _training(
        self, task: PricerTask, wanted: TrainingConfig, commit_every: int
    ) -> Training[Batch]:
        """The core's training, where this pricer stands."""
        config, device = self._config, self._device
        choices = Choices(
            device=device.name,
            threads=device.threads,
            memory_format=device.memory_format,
            total_steps=config.global_step + wanted.num_batches,
        )
        plan = Plan(
            wanted.learning_rate,
            config.cfg.sim_params.mc_seed,
            commit_every=commit_every,
            commit_from=config.global_step,
        )
        training = Training(task, plan, device, choices)
        held = config.optimizer_state
        if config.global_step or held:
            fresh = training.snapshot()
            optimizer = {f"optimizer/{name}": value for name, value in (held or {}).items()}
            epoch = {"epoch": config.global_step // EPOCH_BATCHES + 1}
            tally = {**fresh.document["tally"], **epoch}
            document = {**fresh.document, "step": config.global_step, "tally": tally}
            training.restore(Checkpoint(document, {**fresh.tensors, **optimizer}))
        return training

    def _with_random_state(self) -> GbmCVNNPricerConfig:
        """This pricer's own configuration, with torch's generators as they are now."""
        return dataclasses.replace(
            self._config,
            torch_cpu_rng_state=bytes(torch.get_rng_state().numpy()),
            torch_cuda_rng_states=_cuda_states(),
        )

    def _set_random_state(self) -> None:
        config = self._config
        if config.torch_cpu_rng_state is not None:
            torch.set_rng_state(bytes_tensor(config.torch_cpu_rng_state))
        if config.torch_cuda_rng_states and self._device.torch.type == "cuda":
            torch.cuda.set_rng_state_all([bytes_tensor(s) for s in config.torch_cuda_rng_states])


def _cuda_states() -> tuple[bytes, ...]:
    if not torch.cuda.is_available():
        return ()
    return tuple(bytes(state.cpu().numpy()) for state in torch.cuda.get_rng_state_all())
