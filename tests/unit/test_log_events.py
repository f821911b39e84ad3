"""Every line of the daemon's log has an event name that can be relied on."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from decloud_trainer.cli.logs import start_logging
from decloud_trainer.watching.loglines import NAMES, TOLD

PACKAGE = Path(__file__).parents[2] / "decloud_trainer"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
# The training's children, stores and the local network write logs of their own.
ELSEWHERE = {"training", "store", "localnet"}


def calls() -> Iterator[tuple[str, str, bool]]:
    """Module, text, and whether it brings a name of its own, of every call of a module's log."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in ELSEWHERE:
            continue
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)) if "getLogger" in source else ():
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.func.attr in LEVELS
            ):
                text = node.args[node.func.attr == "log"]
                assert isinstance(text, ast.Constant), f"{path}: a text that isn't constant"
                own = any(keyword.arg == "extra" for keyword in node.keywords)
                yield ".".join(parts), str(text.value), own


def test_every_line_of_the_log_has_a_name() -> None:
    """A new one needs a line in watching/loglines.py; one that is gone leaves it."""
    found = {(module, text) for module, text, own in calls() if not own}
    named = {(module, text) for module, texts in NAMES.items() for text in texts}
    assert found - named == set(), "give them a name in watching/loglines.py"
    assert named - found == set(), "no such lines any more"


def test_names_are_dotted_words_and_none_is_given_twice() -> None:
    """So that a filter means one thing."""
    names = [name for texts in NAMES.values() for name in texts.values()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", name) for name in names)


def test_what_start_prints_as_json_has_these_names() -> None:
    """The log and `start --json` speak of the same events."""
    printed = set()
    for name in ("cli/session.py", "cli/live.py"):
        printed |= set(re.findall(r'"event": "(\w+)"', (PACKAGE / name).read_text("utf-8")))
    assert printed | {"alarm", "alarm_over"} == set(TOLD)


class LogFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]


@pytest.fixture
def log_lines() -> Iterator[LogFile]:
    """A log in JSON, as the daemon has it."""
    root = logging.getLogger("decloud_trainer")
    before = root.handlers, root.level, root.propagate
    yield LogFile(start_logging("test", verbose=False, as_json=True))
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level, root.propagate = before


def test_a_json_line_has_time_level_event_and_message(log_lines: LogFile) -> None:
    """Fields of the call behind them; a name by the table, or the module where there is none."""
    logging.getLogger("decloud_trainer.chain.watch").info("rounds can be read again")
    logging.getLogger("decloud_trainer.training.course").info("something %s\nelse", "quite")
    fields = {"round": 7, "event": "round", "message": "not this one"}
    extra = {"event": "round", "fields": fields}
    logging.getLogger("decloud_trainer.cli.live").info("round 7 joined", extra=extra)
    one, two, three = log_lines.read()
    assert one["event"] == "watch.read_again"
    assert (one["level"], one["logger"]) == ("info", "chain.watch")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(one["time"]))
    assert (two["event"], two["message"]) == ("training.course", "something quite\nelse")
    assert (three["event"], three["round"], three["message"]) == ("round", 7, "round 7 joined")


def test_an_exception_is_in_its_line(log_lines: LogFile) -> None:
    """One line each, so that nothing has to be put together again."""
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("decloud_trainer.rounds.daemon").exception(
            "unexpected; going on in %g s", 5.0
        )
    (line,) = log_lines.read()
    assert line["event"] == "daemon.unexpected"
    assert str(line["trace"]).endswith("ValueError: broken")
