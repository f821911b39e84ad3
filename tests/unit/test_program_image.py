"""The compiled program that is shipped, and the start parameters written into it."""

from __future__ import annotations

import pytest

from decloud_trainer.errors import CorruptionError, SettingsError
from decloud_trainer.localnet.program.image import FILES, Params, patch, program_image

GENERATIONS = sorted(FILES)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_defaults_are_what_is_compiled_in(generation: str) -> None:
    """Default parameters leave the shipped bytes as they are."""
    image = program_image(generation, Params())
    assert image[:4] == b"\x7fELF"
    assert patch(image, Params()) == image


@pytest.mark.parametrize("generation", GENERATIONS)
def test_parameters_change_their_own_bytes_only(generation: str) -> None:
    """48 bytes behind the marker, six little-endian numbers, nothing else."""
    plain = program_image(generation, Params())
    image = program_image(generation, Params(1, 2, 3, 4, 5, 6))
    start = plain.index(b"decloud-start-1\0") + 16
    assert image[start : start + 48] == b"".join(n.to_bytes(8, "little") for n in range(1, 7))
    assert (image[:start], image[start + 48 :]) == (plain[:start], plain[start + 48 :])
    assert patch(image, Params()) == plain


def test_the_generations_differ() -> None:
    """Two programs, not one under two names."""
    assert program_image("v1.0", Params()) != program_image("v1.2", Params())


@pytest.mark.parametrize("generation", ["v1.1", "v2.0", "1.2", ""])
def test_other_generations_are_refused(generation: str) -> None:
    """With the names of those that there are."""
    with pytest.raises(SettingsError) as caught:
        program_image(generation, Params())
    assert repr(generation) in caught.value.message
    assert "v1.0, v1.2" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, 0) for name in ("validator_s", "join_s", "submit_s", "validation_s")],
        ("join_s", -1),
        ("submit_s", 2**63),
        ("fee_bps", -1),
        ("fee_bps", 10_001),
        ("max_trainers", 0),
        ("max_trainers", 256),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: int) -> None:
    """The message names the parameter and the value."""
    with pytest.raises(SettingsError, match=f"^{name} is {value}, "):
        Params(**{name: value})


def test_an_image_without_the_block_is_refused() -> None:
    """Neither a file without it nor one with two is patched."""
    image = program_image("v1.2", Params())
    with pytest.raises(CorruptionError):
        patch(image.replace(b"decloud-start-1", b"decloud-start-2"), Params())
    with pytest.raises(CorruptionError):
        patch(image + image, Params())


@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_path_of_the_builder_is_shipped(generation: str) -> None:
    """Builds are the same on every machine."""
    image = program_image(generation, Params())
    for trace in (b"/home/", b"/tmp/", b"/work", b".c\0", b"clang"):
        assert trace not in image
