"""What a worker can't do any more, seen by trying it in a real child; and what it still can."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from decloud_trainer.checks import sandbox as check
from decloud_trainer.checks.model import Verdict
from decloud_trainer.jobs.alone import run_alone
from decloud_trainer.settings import Settings
from decloud_trainer.training import landlock

pytestmark = pytest.mark.skipif(
    landlock.version() < 3, reason="needs Linux 6.2 or later with Landlock"
)
TRIAL = (sys.executable, "-P", "-m", "decloud_trainer.training.trial")
ALL = {
    *("connect", "send a datagram", "connect to a local service", "write elsewhere"),
    *("change a mode", "look at the daemon", "signal the daemon", "start a program"),
    "start a process",
}


@contextmanager
def servers(folder: Path) -> Iterator[int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as by_port,
        socket.socket(socket.AF_UNIX) as by_path,
    ):
        by_path.bind(str(folder / "s"))
        by_path.listen()
        yield by_port.getsockname()[1]


class World:
    """A home with a wallet, a job's folder, and a folder beside it."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self.job, self.elsewhere, self.data = (folder / n for n in ("job", "elsewhere", "data"))
        for each in (self.job, self.elsewhere, home / "decloud", home / ".config/solana"):
            each.mkdir(parents=True)
        self.wallet = home / "decloud" / "wallet.json"
        self.keypair = home / ".config" / "solana" / "id.json"
        self.mode = self.elsewhere / "file"
        for secret in (self.wallet, self.keypair, self.mode):
            secret.write_text("secret")

    def spec(self, kind: str, **changes: Any) -> dict[str, Any]:
        digits = {"name": "digits", "path": None, "data_dir": str(self.data)}
        model = str(check.SHIPPED_MODEL)
        if kind == "prepare":
            return {"data": digits}
        if kind == "inspect":
            return {"model": model, "max_bytes": 10**7, "device": "cpu", **changes}
        return {
            "model": {"path": model, "sha256": "0" * 64},
            "architecture": "simple_cnn",
            "classes": 10,
            "data": {**digits, **changes},
            "preview": digits,
        }

    def trial(self, kind: str, *words: str, **changes: Any) -> dict[str, Any]:
        with servers(self.elsewhere) as port:
            targets = {
                "port": port,
                "socket": str(self.elsewhere / "s"),
                "read": [str(self.wallet), str(self.keypair), str(self.mode)],
                "write": str(self.elsewhere),
                "mode": str(self.mode),
            }
            job = {"kind": kind, "spec": self.spec(kind, **changes), "folder": str(self.job)}
            done = subprocess.run(
                [*TRIAL, *words],
                input=f"{json.dumps(job)}\n{json.dumps(targets)}\n",
                env={"PATH": os.environ["PATH"], "HOME": str(self.home)}
                | {"DECLOUD_HOME": str(self.home / "decloud")},
                text=True,
                capture_output=True,
                check=False,
                timeout=60,
            )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture
def world(own_home: Path, tmp_path: Path) -> World:
    return World(own_home, tmp_path)


def inside(code: str, *, network: bool = False, **bounds: int) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has confined itself."""
    start = (
        "import ctypes, os, resource, socket, sys, threading\n"
        "from pathlib import Path\n"
        "from decloud_trainer.training import landlock, sandbox, seccomp\n"
        "from decloud_trainer.training.sandbox import Bounds\n"
        "reads = (*map(Path, sandbox._SYSTEM), *sandbox._python())\n"
        "access = landlock.Access(reads, (Path.cwd(),))\n"
        "def walls():\n"
        f"    return sandbox.confine(access, Bounds(**{bounds}), network={network})\n"
        "def refused(attempt, *arguments):\n"
        "    try:\n"
        "        attempt(*arguments)\n"
        "    except (OSError, MemoryError) as error:\n"
        "        print(type(error).__name__, error)\n"
        "    else:\n"
        "        print('it worked')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("kind", ["inspect", "train"])
def test_a_worker_reaches_nothing_but_its_job(world: World, kind: str) -> None:
    """No connection, no datagram, no wallet, no file outside, no other process, no program."""
    found = world.trial(kind)
    assert found["possible"] == []
    assert found["missing"] == []
    assert found["landlock"] >= 3
    assert found["limits"]["core_bytes"] == 0
    assert {"memory_bytes", "file_bytes", "open_files"} <= set(found["limits"])


def test_the_attempts_are_real_ones(world: World) -> None:
    """Without the sandbox every one of them works."""
    found = world.trial("inspect", "--no-sandbox")
    read = {f"read {path}" for path in (world.wallet, world.keypair, world.mode)}
    assert set(found["possible"]) == ALL | read


def test_what_prepares_data_has_the_network_alone(world: World) -> None:
    """A download needs it; local services, other files and processes are as far away as ever."""
    assert world.trial("prepare")["possible"] == ["connect", "send a datagram"]


def test_a_dataset_folder_around_the_keys_doesn_t_give_them_away(world: World) -> None:
    """Whoever points a dataset at the whole home still keeps our home and Solana's."""
    (world.home / "pictures").mkdir()
    assert world.trial("train", path=str(world.home))["possible"] == []


def test_memory_files_and_descriptors_are_bounded(tmp_path: Path) -> None:
    """Each excess is an error in the worker: MemoryError, File too large, Too many open files."""
    code = (
        f"os.chdir({str(tmp_path)!r}); access = landlock.Access(reads, (Path.cwd(),)); walls()\n"
        "refused(bytearray, 1 << 29)\n"
        "refused(Path('large').write_bytes, bytes(2_000_000))\n"
        "held = []\n"
        "refused(lambda: [held.append(os.dup(0)) for _ in range(100)])\n"
        "print(os.path.getsize('large'))\n"
    )
    done = inside(code, memory_bytes=1 << 28, file_bytes=1_000_000, open_files=50)
    assert done.stdout.splitlines() == [
        "MemoryError ",
        "OSError [Errno 27] File too large",
        "OSError [Errno 24] Too many open files",
        "1000000",
    ], done.stderr


def test_processor_time_is_bounded() -> None:
    """A worker that goes on computing is ended by the system."""
    done = inside("walls()\nwhile True: pass", cpu_s=1)
    assert done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_no_way_around(tmp_path: Path) -> None:
    """io_uring, raw and netlink sockets, namespaces, kernel keys, another process' limits, and
    what Landlock doesn't watch: all refused, while threads and pipes of sockets work."""
    code = (
        "walls()\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(number, *arguments):\n"
        "    if libc.syscall(number, *arguments) == -1:\n"
        "        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"
        "x86 = os.uname().machine == 'x86_64'\n"
        "refused(call, 425, 1, ctypes.create_string_buffer(120))\n"
        "refused(call, 250 if x86 else 219, 0, -3, 0)\n"
        "refused(call, 272 if x86 else 97, 0x10000000)\n"
        "refused(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)\n"
        "refused(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW)\n"
        "refused(socket.socket, socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "refused(resource.prlimit, os.getppid(), resource.RLIMIT_NOFILE)\n"
        f"refused(os.truncate, {str(tmp_path / 'file')!r}, 0)\n"
        f"refused(os.listdir, {str(tmp_path)!r})\n"
        "a, b = socket.socketpair()\n"
        "thread = threading.Thread(target=a.send, args=(b'from a thread',))\n"
        "thread.start(); thread.join(); print(b.recv(100).decode())\n"
        "os.kill(os.getpid(), 0)\n"
    )
    (tmp_path / "file").write_text("x")
    done = inside(code)
    *refusals, last = done.stdout.splitlines()
    assert [line for line in refusals if "Error" not in line] == []
    assert len(refusals) == 9
    assert last == "from a thread", done.stderr


def test_a_thread_that_runs_already_can_t_connect_either(world: World) -> None:
    """The filter of system calls holds for all threads, also for those that began before it."""
    code = (
        "go, gone = threading.Event(), threading.Event()\n"
        "def late():\n"
        "    go.wait()\n"
        "    refused(socket.socket, socket.AF_INET)\n"
        "thread = threading.Thread(target=late); thread.start()\n"
        "walls(); go.set(); thread.join()\n"
    )
    assert "PermissionError" in inside(code).stdout


def test_an_old_kernel_has_the_other_walls_and_it_is_said() -> None:
    """Without Landlock the network is still gone; what is missing is a sentence for the log."""
    code = (
        "landlock.version = lambda: 0\n"
        "found = walls()\n"
        "print(found.landlock, found.seccomp, *found.missing)\n"
        "refused(socket.socket, socket.AF_INET)\n"
    )
    done = inside(code)
    said, tried = done.stdout.splitlines()
    assert said.startswith("0 True files are not restricted (no Landlock: ")
    assert tried.startswith("PermissionError")


def test_another_processor_has_the_other_walls_and_it_is_said() -> None:
    """Where the numbers of the system calls aren't known, files are restricted all the same."""
    code = (
        "seccomp.platform.machine = lambda: 'riscv64'\n"
        "found = walls()\n"
        "print(found.seccomp, *found.missing)\n"
        "refused(os.listdir, '/etc')\n"
    )
    said, tried = inside(code).stdout.splitlines()
    assert said.startswith("False network and processes are not restricted (no filter of system")
    assert tried.startswith("PermissionError")


@pytest.mark.slow
async def test_a_whole_training_with_data_of_the_user_runs_inside(
    world: World, tmp_path: Path
) -> None:
    """Decoding, tuning, training, checkpoints, preview and artefact: nothing of it is missing a
    right, and the log has no warning."""
    import hashlib

    import numpy as np

    from decloud_trainer.training.data import datasets
    from decloud_trainer.training.spec import DataSpec

    digits = datasets.load(DataSpec("digits", None, tmp_path / "made"))
    own = tmp_path / "own"
    own.mkdir()
    for name, split in (("train", digits.split("train")), ("test", digits.split("test"))):
        np.save(own / f"x_{name}.npy", np.asarray(split.inputs[:300]))
        np.save(own / f"y_{name}.npy", np.asarray(split.labels[:300]))
    sha256 = hashlib.sha256(check.SHIPPED_MODEL.read_bytes()).hexdigest()
    spec = world.spec("train", path=str(own))
    spec |= {"preview": spec["data"], "precision": "auto", "checkpoint_every_s": 0.01}
    spec["model"] = {**spec["model"], "sha256": sha256}
    logs: list[str] = []

    def look(folder: Path) -> None:
        assert (folder / "gradient.pt").is_file()
        logs.append((folder / "worker.log").read_text())

    result = await run_alone("train", spec, before_removal=look, timeout_s=120)
    assert result["preview"]["samples"] == 300
    assert logs == [""]
    assert (world.home / "decloud" / "cache" / "tuning" / "tuning.json").is_file()


async def test_the_doctor_says_what_children_are_kept_from(world: World) -> None:
    """One line; what is missing makes it a warning, with what to do."""
    line = await check.sandbox_check(Settings(device="cpu"), str(world.keypair))
    assert line.verdict is Verdict.PASS
    assert "can't reach the network, local services, other files, the daemon" in line.text
    assert "Landlock" in line.text
    assert "all children together: " in line.text
    assert line.numbers["possible"] == []
    line = await check.sandbox_check(Settings(device="cpu", sandbox=False), str(world.keypair))
    assert line.verdict is Verdict.WARN
    assert line.fix == "decloud-trainer config --set sandbox=true"
    assert f"read {world.keypair}" in line.numbers["possible"]


async def test_the_doctor_names_a_wall_that_is_missing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a kernel without Landlock."""

    async def tried(*_: object) -> dict[str, Any]:
        missing = ["files are not restricted (no Landlock: too old)"]
        return {"landlock": 0, "missing": missing, "possible": ["read /x"], "limits": {}}

    monkeypatch.setattr(check, "try_out", tried)
    line = await check.sandbox_check(Settings(), None)
    assert line.verdict is Verdict.WARN
    assert "can reach other files; files are not restricted (no Landlock" in line.text
    assert "Linux 6.2" in line.fix
