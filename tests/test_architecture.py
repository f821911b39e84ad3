"""The house plan: imports run downwards, without cycles, and `--help` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "decloud_trainer"

# Floors from the ground up; a room may import from its own floor's table entry and below.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("faultpoints",),
    ("files", "masking", "names", "money", "retryafter"),
    ("kinds", "migration"),
    ("settings",),
    ("config", "presets"),
    ("store",),
    ("training",),
    ("jobs",),
    ("rounds",),
    ("chain", "ipfs"),
    ("watching",),
    ("localnet",),
    ("services",),
    ("plans",),
    ("wiring",),
    ("checks",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
ONLY = {
    "store": {"errors", "files"},
    "training": {"errors", "files", "names", "store"},
    "names": set(),
    "money": set(),
}
IMPORTED_ONLY_BY = {
    "settings": {"config", "presets", "services", "plans", "wiring", "checks", "cli"},
    "config": {"presets", "checks", "cli"},
    "services": {"plans", "wiring", "checks", "cli"},
    "plans": {"wiring", "checks", "cli"},
    "wiring": {"checks", "cli"},
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append((".".join(parts), path))
    return found


def imported(path: Path) -> set[str]:
    """Every module of the package that the file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            names.add(base)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {n.removeprefix("decloud_trainer.") for n in names if n.startswith("decloud_trainer.")}


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_its_place_in_the_plan() -> None:
    """A new top-level module must be given a floor."""
    rooms = {room(name) for name, _ in modules()} - {"__init__", "data"}
    assert rooms <= set(FLOOR_OF), rooms - set(FLOOR_OF)


def test_imports_run_downwards() -> None:
    """A module imports only from below its own floor, and from few rooms where that is promised."""
    wrong = []
    for name, path in modules():
        for target in imported(path):
            upper, lower = room(name), room(target)
            if upper == lower or lower not in FLOOR_OF:
                continue
            runs_down = FLOOR_OF[upper] > FLOOR_OF[lower] or (upper, lower) == ("presets", "config")
            allowed = lower in ONLY.get(upper, {lower})
            wanted = upper in IMPORTED_ONLY_BY.get(lower, {upper})
            if not (runs_down and allowed and wanted):
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_modules_form_no_cycle() -> None:
    """No module reaches itself through imports, on one floor either."""
    known = {name.removesuffix(".__init__"): path for name, path in modules()}
    graph = {
        name: {t for t in imported(path) if t in known and t != name}
        for name, path in known.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_localnet_actors_are_a_second_opinion() -> None:
    """The actors share no code with the training that they judge, nor with its daemon.

    The nouns of a round (`rounds.model`) are what the chain's decoder speaks.
    """
    for name, path in modules():
        if name.startswith("localnet.actors"):
            shared = {t for t in imported(path) if room(t) in ("training", "rounds", "jobs")}
            assert all(t == "rounds.model" or t.startswith("rounds.model.") for t in shared), name


def test_only_training_imports_torch() -> None:
    """torch stays in the training core, and in the local network's actors."""
    for name, path in modules():
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if any(n.split(".")[0] in ("torch", "torchvision") for n in names):
                assert room(name) == "training" or name.startswith("localnet.actors"), name


@pytest.mark.parametrize("words", [["--help"], ["start", "--help"], ["localnet", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    """Help appears at once: no torch, no Solana, no server library behind it."""
    code = (
        "import sys, contextlib, io\n"
        "from decloud_trainer.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main({words!r})\n"
        "heavy = ['torch', 'torchvision', 'solders', 'solana', 'aiohttp', 'requests', 'numpy',\n"
        "         'cryptography']\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
