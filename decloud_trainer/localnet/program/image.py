"""The compiled program with start parameters written into it.

The account lists are the contract's and have no place for parameters, so the program keeps them
in one marked block of constants (params.h), which is patched here before it is loaded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from importlib import resources

from decloud_trainer.errors import CorruptionError, SettingsError

FILES = {"v1.0": "decloud_v1_0.so", "v1.2": "decloud_v1_2.so"}
MARKER = b"decloud-start-1\0"
VALUES = struct.Struct("<qqqqQQ")
LONGEST_S = 10 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class Params:
    """What the network leaves open: durations in seconds, the validator's fee, the crowd.

    Raises:
        SettingsError: a value outside of its range.
    """

    validator_s: int = 3600
    join_s: int = 600
    submit_s: int = 3600
    validation_s: int = 3600
    fee_bps: int = 1000
    max_trainers: int = 10

    def __post_init__(self) -> None:
        for name in ("validator_s", "join_s", "submit_s", "validation_s"):
            _within(name, getattr(self, name), 1, LONGEST_S)
        _within("fee_bps", self.fee_bps, 0, 10_000)
        _within("max_trainers", self.max_trainers, 1, 255)


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{name} is {value}, but must be from {low} to {high}")


def program_image(generation: str, params: Params) -> bytes:
    """The ELF file to load for that generation (``v1.0`` or ``v1.2``).

    Raises:
        SettingsError: no program of that generation is shipped.
        CorruptionError: the shipped file is missing or damaged.
    """
    if generation not in FILES:
        raise SettingsError(
            f"the local network has no program of generation {generation!r}",
            hint=f"choose one of {', '.join(FILES)}",
        )
    name = FILES[generation]
    try:
        image = resources.files(__package__).joinpath(name).read_bytes()
    except OSError as error:
        raise CorruptionError(
            f"the compiled program {name} is missing from the package",
            hint="install decloud-trainer again, or compile it with `make program`",
        ) from error
    return patch(image, params)


def patch(image: bytes, params: Params) -> bytes:
    """`image` with `params` in its marked block.

    Raises:
        CorruptionError: the block isn't there exactly once.
    """
    start = image.find(MARKER)
    if start < 0 or image.find(MARKER, start + 1) >= 0:
        raise CorruptionError(
            "the compiled program has no block of start parameters",
            hint="install decloud-trainer again, or compile it with `make program`",
        )
    start += len(MARKER)
    values = VALUES.pack(
        *(params.validator_s, params.join_s, params.submit_s, params.validation_s),
        *(params.fee_bps, params.max_trainers),
    )
    return image[:start] + values + image[start + len(values) :]
