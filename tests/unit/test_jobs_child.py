"""What goes into a child and what comes out of it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decloud_trainer.jobs.child import (
    MAX_LINE_BYTES,
    Child,
    WorkerLog,
    child_environment,
    process_started,
)


@pytest.fixture
def log(tmp_path: Path) -> Any:
    log = WorkerLog(tmp_path / "worker.log", keep_bytes=1000)
    yield log
    log.close()


def heard(log: WorkerLog, *chunks: bytes) -> tuple[Child, list[dict[str, Any]]]:
    progress: list[dict[str, Any]] = []
    child = Child(log, progress.append)
    for chunk in chunks:
        child.pipe_data_received(1, chunk)
    return child, progress


def test_the_environment_holds_no_secrets() -> None:
    """Only listed names pass: keys, tokens and unknown variables stay behind."""
    environ = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "LC_ALL": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "0",
        "DECLOUD_PRIVATE_KEY": "secret",
        "SOLANA_PRIVATE_KEY": "secret",
        "PINATA_JWT": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HTTPS_PROXY": "http://me:secret@proxy",
    }
    expected = {name: environ[name] for name in list(environ)[:4]}
    assert child_environment("train", environ) == expected
    assert child_environment("inspect", environ) == expected


def test_only_preparing_data_gets_the_proxy() -> None:
    """The kind that downloads gets what a download needs."""
    environ = {"HTTPS_PROXY": "http://proxy", "SSL_CERT_FILE": "/ca.pem", "PINATA_JWT": "x"}
    assert set(child_environment("prepare", environ)) == {"HTTPS_PROXY", "SSL_CERT_FILE"}


def test_relative_module_paths_survive_the_change_of_folder() -> None:
    """PYTHONPATH means the same to the child, which works elsewhere."""
    kept = child_environment("train", {"PYTHONPATH": f"src{os.pathsep}/abs"})["PYTHONPATH"]
    assert kept == f"{Path.cwd() / 'src'}{os.pathsep}/abs"


def test_events_arrive_however_they_are_cut(log: WorkerLog) -> None:
    """Lines are put together from any pieces; the final event is kept."""
    stream = (
        b'{"event":"heartbeat"}\n{"event":"progress","epoch":1}\n{"event":"result","result":{}}\n'
    )
    child, progress = heard(log, *(stream[i : i + 1] for i in range(len(stream))))
    assert progress == [{"epoch": 1}]
    assert child.final == {"event": "result", "result": {}}
    assert (child.fault, child.spoke) == ("", True)


@pytest.mark.parametrize(
    "line",
    [
        *(b"Downloading...", b"[]", b"7", b"", b'{"event":"unknown"}', b'{"epoch":1}'),
        *(b"[" * 100_000, b'{"event":"progress","a":' + b"[" * 40 + b"]" * 40 + b"}"),
    ],
)
def test_garbage_is_a_fault_and_ends_the_listening(log: WorkerLog, line: bytes) -> None:
    """After a line that is no event nothing is believed any more."""
    child, progress = heard(log, line + b'\n{"event":"progress","epoch":1}\n')
    assert "no event" in child.fault
    assert child.attention.is_set()
    assert progress == []


def test_a_giant_line_is_a_fault_before_it_fills_the_memory(log: WorkerLog) -> None:
    """A line without an end is given up at the limit."""
    chunk = b"x" * 65536
    child, _ = heard(log, *[chunk] * (MAX_LINE_BYTES // len(chunk) + 1), chunk)
    assert "more than 1,048,576 bytes" in child.fault
    assert child.final is None


def test_numbers_that_json_lacks_become_null(log: WorkerLog) -> None:
    """A loss of NaN or infinity neither ends the job nor reaches the database."""
    line = b'{"event":"progress","a":NaN,"b":-Infinity,"c":1e999,"d":1.5}\n'
    child, progress = heard(log, line)
    assert child.fault == ""
    assert progress == [{"a": None, "b": None, "c": None, "d": 1.5}]


def test_words_after_the_final_event_are_ignored(log: WorkerLog) -> None:
    """The first result counts; a late heartbeat or a library's goodbye does no harm."""
    child, _ = heard(
        log, b'{"event":"result","result":{"n":1}}\n{"event":"result","result":{"n":2}}\nbye\n'
    )
    assert child.final == {"event": "result", "result": {"n": 1}}
    assert child.fault == ""


@given(st.lists(st.binary(max_size=200), max_size=8))
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_the_listener(chunks: list[bytes]) -> None:
    """Whatever comes, it is an event or a fault, never an exception."""
    log = WorkerLog(Path(os.devnull))
    try:
        heard(log, *chunks)
    finally:
        log.close()


def test_the_log_keeps_its_end(tmp_path: Path, log: WorkerLog) -> None:
    """A chatty worker fills no disk: the file is cut to its last bytes now and then."""
    for number in range(20_000):
        log.write(f"line {number}\n".encode())
    path = tmp_path / "worker.log"
    assert path.stat().st_size < 1000 + 70_000
    assert path.read_bytes().endswith(b"line 19999\n")
    assert log.last_lines(2) == "line 19998\nline 19999"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_is_no_way_out_of_the_folder(tmp_path: Path) -> None:
    """A link in place of the log isn't followed."""
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "linked.log").symlink_to(target)
    with pytest.raises(OSError, match=r"linked\.log"):
        WorkerLog(tmp_path / "linked.log")
    assert target.read_text() == "precious"


def test_a_process_is_known_by_its_start() -> None:
    """The same process has the same mark, another one another, a gone one none."""
    mine = process_started(os.getpid())
    assert mine == process_started(os.getpid()) != ""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert process_started(other.pid) not in ("", mine)
        other.kill()
    assert process_started(other.pid) == ""
