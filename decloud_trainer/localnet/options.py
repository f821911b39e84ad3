"""What a local network is started with, and where it can be found then."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from decloud_trainer.errors import SettingsError
from decloud_trainer.localnet.actors.datasets import check_data
from decloud_trainer.localnet.program.image import FILES, Params

COMPETITORS = ("good", "lazy", "hostile")


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """Everything has a default that suits a first look. Wrong values are a SettingsError.

    Attributes:
        rpc_port, pin_port: 0 = any free one. The WebSocket port is the RPC port + 1.
        generation: which program runs: ``v1.0`` or ``v1.2``.
        validator_s, join_s, submit_s, validation_s: the program's four durations in seconds.
        fee_bps: the validator's part of a reward.
        slot_ms: the length of a slot.
        state: the folder that keeps the network over restarts; None = a temporary one.
        actors: whether creator, validator and competitors run.
        rounds, reward_lamports, interval_s: what the creator posts after the start.
        dataset, data: what those rounds are about, and the folder of its data.
        competitors: some of ``good``, ``lazy``, ``hostile``.
        min_trainers, join_grace_s: the validator starts the training once so many have joined
            and so long after that, or when joining is over.
        poll_s: how often the actors look.
        seed: of the competitors' training.
    """

    rpc_port: int = 0
    pin_port: int = 0
    generation: str = "v1.2"
    validator_s: int = 3600
    join_s: int = 600
    submit_s: int = 3600
    validation_s: int = 3600
    fee_bps: int = 1000
    max_trainers: int = 10
    slot_ms: int = 400
    state: Path | None = None
    actors: bool = True
    rounds: int = 1
    reward_lamports: int = 100_000_000
    interval_s: float = 0.0
    dataset: str = "digits"
    data: Path | None = None
    competitors: tuple[str, ...] = ("good",)
    min_trainers: int = 1
    join_grace_s: float = 0.0
    poll_s: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.generation not in FILES:
            raise SettingsError(
                f"there is no local program of generation {self.generation!r}",
                hint=f"choose one of {', '.join(FILES)}",
            )
        _check_port("rpc_port", self.rpc_port, 65_534)  # the next one is the WebSocket's
        _check_port("pin_port", self.pin_port, 65_535)
        self.params()
        _check_range("min_trainers", self.min_trainers, 1, self.max_trainers)
        _check_range("slot_ms", self.slot_ms, 10, 60_000)
        _check_range("rounds", self.rounds, 0, 1000)
        _check_range("reward_lamports", self.reward_lamports, 1, 10**15)
        for name in ("interval_s", "join_grace_s"):
            _check_range(name, getattr(self, name), 0, 10**6)
        _check_range("poll_s", self.poll_s, 0.05, 3600)
        check_data(self.dataset, self.data)
        for name in self.competitors:
            if name not in COMPETITORS or self.competitors.count(name) > 1:
                raise SettingsError(
                    f"{name!r} can't be a competitor here",
                    hint=f"name each of {', '.join(COMPETITORS)} at most once",
                )

    def params(self) -> Params:
        """The program's start parameters."""
        return Params(
            validator_s=self.validator_s,
            join_s=self.join_s,
            submit_s=self.submit_s,
            validation_s=self.validation_s,
            fee_bps=self.fee_bps,
            max_trainers=self.max_trainers,
        )


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running local network is. Everything is on loopback.

    Attributes:
        control_url: for the clock and the fault switchboard.
        pin_jwt, pin_key, pin_secret: the pin service's fixed local credentials; no secrets.
        state: the folder with its ledger, its pins and the actors' keys and logs.
        pids: of its processes, by name; ``network`` is the one that serves.
    """

    rpc_url: str
    ws_url: str
    gateway_url: str
    pin_api_url: str
    pin_upload_url: str
    control_url: str
    program_id: str
    genesis_hash: str
    generation: str
    pin_jwt: str
    pin_key: str
    pin_secret: str
    state: str
    pids: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> Endpoints:
        """What a running network has written there.

        Raises:
            SettingsError: no network, or not such a file.
        """
        try:
            known = json.loads(path.read_bytes())
            return cls(**{field.name: known[field.name] for field in fields(cls)})
        except FileNotFoundError as error:
            raise SettingsError(
                "no local network is running",
                hint="start one in another terminal: decloud-trainer localnet up",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"{path} is not what a local network writes",
                hint="delete it and start the network again: decloud-trainer localnet up",
            ) from error


def _check_port(name: str, value: int, last: int) -> None:
    if value and not 1024 <= value <= last:
        raise SettingsError(f"{name} {value} is no port to use; choose 1024 to {last}")


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise SettingsError(f"{name} is {value}; it must be {least:,} to {most:,}")
