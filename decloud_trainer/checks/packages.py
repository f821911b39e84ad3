"""Which packages are installed, and whether they are new enough. Imports none of them."""

from __future__ import annotations

import platform
import re
from importlib import metadata

from decloud_trainer import __version__
from decloud_trainer.checks.model import Check, failed, passed, warned

PACKAGE = "decloud-trainer"
SHOWN = ("torch", "torchvision", "solana", "solders", "numpy", "aiohttp", "click")

_REQUIREMENT = re.compile(r"([\w.-]+)\s*((?:[<>=!~]=?[^,;]+,?)*)")
_BOUND = re.compile(r"(>=|<)\s*([\d.]+)")


def versions() -> dict[str, str]:
    """This program, Python, and the packages that matter; ``not installed`` for what is missing."""
    found = {PACKAGE: __version__, "python": platform.python_version()}
    return found | {name: _version(name) or "not installed" for name in SHOWN}


def python_check() -> Check:
    """Is this Python new enough? The bound is the one of the installed package."""
    version, wanted = platform.python_version(), _python_bound()
    if not is_within(version, wanted):
        return failed(
            "python",
            f"{version}; {wanted} is needed",
            "make a virtual environment with a newer Python and install there",
            version=version,
        )
    return passed("python", f"{version} ({wanted})", version=version)


def packages_check() -> Check:
    """Is every package there that this one requires, in a version that it accepts?"""
    try:
        requirements = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return warned(
            "packages",
            "not known: this runs from a folder, not from an installation",
            "python -m pip install -e . (in the project's folder)",
        )
    wanted = dict(_parsed(line) for line in requirements if "extra ==" not in line)
    found = {name: _version(name) for name in wanted}
    wrong = [
        f"{name} {version or 'is missing'} ({wanted[name] or 'any version'} is needed)"
        for name, version in found.items()
        if version is None or not is_within(version, wanted[name])
    ]
    if wrong:
        return failed(
            "packages",
            "; ".join(wrong),
            f"python -m pip install --upgrade {PACKAGE}",
            versions=found,
        )
    heavy = ", ".join(f"{name} {found[name]}" for name in SHOWN[:4] if name in found)
    return passed("packages", f"{len(found)} installed, among them {heavy}", versions=found)


def is_within(version: str, bounds: str) -> bool:
    """Does a version satisfy the bounds ``>=`` and ``<`` among these? Others are left to pip."""
    release = _release(version)
    return all(
        release >= _release(bound) if sign == ">=" else release < _release(bound)
        for sign, bound in _BOUND.findall(bounds)
    )


def _release(version: str) -> tuple[int, ...]:
    """``2.15.0+cpu`` -> (2, 15): without trailing zeros, so that 2.4 equals 2.4.0."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _parsed(requirement: str) -> tuple[str, str]:
    """``torch<3,>=2.4`` -> its name and its bounds."""
    found = _REQUIREMENT.match(requirement.partition(";")[0].strip())
    assert found is not None, requirement
    return found[1], found[2].strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python_bound() -> str:
    try:
        return metadata.metadata(PACKAGE)["Requires-Python"] or ">=3.11"
    except metadata.PackageNotFoundError:
        return ">=3.11"
