"""``make soak``: one daemon, thousands of rounds; what it holds meanwhile, and what it leaves.

The daemon is the command `start` in a process of its own, on a local network whose clock is moved
forward by a quarter of a day after each 50 rounds. Of these, 43 are paid, 5 are aborted by their
validator, and 2 are about a dataset that isn't accepted. Between them, when nothing is under way,
its memory, files, threads and disk are measured. At the end everything is counted on chain.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from localchain import SOL, LocalChain, local_chain
from loopback import serving
from processes import descendants, free_port, processes_in
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from decloud_trainer.chain import v1
from decloud_trainer.ipfs.cid import V1
from decloud_trainer.localnet.actors.shipped import MODEL
from decloud_trainer.localnet.ledger import Commitment
from decloud_trainer.localnet.pin_server import make_pin_app
from decloud_trainer.localnet.pin_store import Part, PinStore
from decloud_trainer.localnet.posting import dataset_index
from decloud_trainer.localnet.program.image import Params
from decloud_trainer.rounds import intents
from decloud_trainer.rounds.entry import Entry, State
from decloud_trainer.rounds.intake import Scope
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.ledger import lines

COMMANDS = {
    "scripted": [sys.executable, str(Path(__file__).with_name("scripteddaemon.py"))],
    "real": [sys.executable, "-m", "decloud_trainer"],
}
REWARD = SOL // 20
CHUNK, ABORTED, SKIPPED = 50, 5, 2
FORWARD_S = 6 * 3600
# A round may take so long before the run is given up; and the daemon's start and end.
PATIENCE_S, START_S = 300.0, 60.0
# From the last claim on chain to a daemon that has recorded it and rests.
REST_S = 1.0
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """What the daemon held at a moment when nothing was under way; megabytes are 10^6 bytes.

    Attributes:
        at_s: seconds since the first round.
        pss_mb: resident memory, of what is shared with other processes only its part.
        home_mb: its folder: journal, jobs with their logs, models, the log.
    """

    rounds: int
    at_s: float
    rss_mb: float
    pss_mb: float
    fds: int
    threads: int
    children: int
    journal_mb: float
    home_mb: float


@dataclass
class Soak:
    """A network, its other people, and the one daemon."""

    net: LocalChain
    cid: str
    home: Path
    command: list[str]
    config: dict[str, Any]
    at_once: int
    samples: list[Sample] = field(default_factory=list)
    paid: list[int] = field(default_factory=list)
    aborted: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    began: float = 0.0
    _daemon: subprocess.Popen[bytes] | None = None
    _opened: Journal | None = None

    @property
    def journal(self) -> Journal:
        """The daemon's, read beside it."""
        if self._opened is None:
            self._opened = Journal(self.home / "journal.sqlite")
        return self._opened

    @property
    def scope(self) -> Scope:
        return Scope(str(self.net.ledger.genesis_hash), str(v1.PROGRAM_ID), self.net.wallet.pubkey)

    @property
    def daemon(self) -> subprocess.Popen[bytes]:
        assert self._daemon is not None
        return self._daemon

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """The daemon, from its start to its end by a signal."""
        out = self.home.with_suffix(".out")
        self._daemon = daemon = self._start(out)
        try:
            yield
        finally:
            daemon.send_signal(signal.SIGINT)
            code = await asyncio.to_thread(daemon.wait, START_S)
            told = await asyncio.to_thread(out.read_text, "utf-8", "replace")
        assert code == 0, (code, told[-4000:])

    def _start(self, out: Path) -> subprocess.Popen[bytes]:
        self.home.mkdir(mode=0o700, parents=True)
        (self.home / "config.json").write_text(json.dumps(self.config), "utf-8")
        with out.open("wb") as file:
            return subprocess.Popen(
                [*self.command, "start", "--plain"],
                env={**os.environ, "DECLOUD_HOME": str(self.home), "XDG_CACHE_HOME": f"{out}.d"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    # The other people

    async def rounds(self, count: int, *, chunk: int, most_s: float) -> None:
        """So many rounds, some at once; a sample after each chunk, and no other after `most_s`."""
        await self._until("listening", lambda: (self.home / "journal.sqlite").exists())
        self.began = time.monotonic()
        for start in range(0, count, chunk):
            if time.monotonic() - self.began > most_s:
                print("  no more time", flush=True)
                break
            self.net.ledger.airdrop(self.net.creator.pubkey(), chunk * SOL // 10)
            self.net.ledger.airdrop(self.net.validator.pubkey(), SOL)
            slots = asyncio.Semaphore(self.at_once)
            some = range(start, min(start + chunk, count))
            await asyncio.gather(*(self._round(position % CHUNK, slots) for position in some))
            await self._until("at rest", self._rests)
            await asyncio.sleep(REST_S)
            self.samples.append(await asyncio.to_thread(self._sample))
            show(self.samples[-1])
            self.net.ledger.warp(FORWARD_S)

    async def _round(self, position: int, slots: asyncio.Semaphore) -> None:
        async with slots:
            if position in range(10, 10 + SKIPPED):
                await self._skipped()
            elif position % (CHUNK // ABORTED) == 5:
                await self._aborted()
            else:
                await self._paid()

    async def _paid(self) -> None:
        number = await self._joined()
        self.net.start_training(number)
        await self._until(f"round {number} submitted", lambda: self._submission(number).submitted)
        self.net.complete(number, [(self.net.trainer, 10_000)])
        claimed = lambda: self._submission(number).reward_claimed  # noqa: E731
        await self._until(f"round {number} claimed", claimed)
        self.paid.append(number)

    async def _aborted(self) -> None:
        number = await self._joined()
        self.net.start_training(number)
        creator, validator = self.net.creator.pubkey(), self.net.validator.pubkey()
        self.net.run(v1.abort_round(number, creator, validator), self.net.validator)
        self.aborted.append(number)

    async def _skipped(self) -> None:
        number = self.net.open_round(
            cid=self.cid, reward_lamports=REWARD, dataset_index=dataset_index("mnist")
        )
        await self._until(f"round {number} seen", lambda: self._state(number) is State.SKIPPED)
        creator, validator = self.net.creator.pubkey(), self.net.validator.pubkey()
        self.net.run(v1.abort_round(number, creator, validator), self.net.validator)
        self.skipped.append(number)

    async def _joined(self) -> int:
        number = self.net.open_round(
            cid=self.cid, reward_lamports=REWARD, dataset_index=dataset_index("digits")
        )
        await self._until(f"round {number} joined", lambda: self._submission(number) is not None)
        return number

    async def _until(self, what: str, holds: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds():
                    assert self.daemon.poll() is None, "the daemon has ended"
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            rows = [(e.key.round_id, e.state.value, e.reason) for e in self._entries()[-20:]]
            raise AssertionError(f"not {what} within {PATIENCE_S:g} s: {rows}") from None

    def _rests(self) -> bool:
        """No round is in work, and no child of the daemon lives."""
        at_work = self.journal.active_ids(self.scope.key(0))
        return not at_work and not descendants(self.daemon.pid)

    def _submission(self, number: int) -> Any:
        address, _ = v1.submission_address(number, self.net.wallet.pubkey, v1.PROGRAM_ID)
        account = self.net.ledger.account(address)
        if account is None:
            return None
        return v1.decode_submission(account.data, address=address, program=v1.PROGRAM_ID)

    def _entries(self) -> list[Entry]:
        return self.journal.entries(self.scope.key(0))

    def _state(self, number: int) -> State | None:
        found = self.journal.entry(self.scope.key(number))
        return found.state if found else None

    # Measuring

    def _sample(self) -> Sample:
        """Also has the metrics scraped, as a server would."""
        pid = self.daemon.pid
        url = f"http://127.0.0.1:{self.config['metrics_port']}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert b"decloud_rounds" in answer.read()
        process = Path(f"/proc/{pid}")
        files = [path for path in self.home.rglob("*") if path.is_file()]
        return Sample(
            rounds=len(self.paid) + len(self.aborted) + len(self.skipped),
            at_s=time.monotonic() - self.began,
            rss_mb=_kilobytes(process / "status", "VmRSS") / 1000,
            pss_mb=_kilobytes(process / "smaps_rollup", "Pss") / 1000,
            fds=len(list((process / "fd").iterdir())),
            threads=len(list((process / "task").iterdir())),
            children=len(descendants(pid)),
            journal_mb=sum(p.stat().st_size for p in self.home.glob("journal.sqlite*")) / 1e6,
            home_mb=sum(path.stat().st_size for path in files) / 1e6,
        )

    # Counting

    def count(self) -> None:
        """After the daemon's end: outcomes on chain, money to the lamport, nothing left behind."""
        states = {entry.key.round_id: entry.state for entry in self._entries()}
        wanted = dict.fromkeys(self.paid, State.CLAIMED)
        wanted |= dict.fromkeys(self.aborted, State.LOST)
        wanted |= dict.fromkeys(self.skipped, State.SKIPPED)
        assert states == wanted, {n: s for n, s in states.items() if s is not wanted.get(n)}
        owed = [number for number in self.paid if not self._submission(number).reward_claimed]
        assert not owed, owed
        booked = lines(intents.sent(self.journal))
        self.journal.close()
        assert all(line.landed for line in booked), [line for line in booked if not line.landed]
        done = Counter(line.kind.value for line in booked)
        account = self.net.ledger.account(self.net.trainer.pubkey())
        assert account is not None
        gained = account.lamports - 10 * SOL
        assert sum(line.change_lamports for line in booked) == gained, (booked, gained)
        assert done["claim"] == done["submit"] == len(self.paid), done
        assert done["join"] == len(self.paid) + len(self.aborted), done
        on_chain = self._paid_by(self.net.trainer.pubkey())
        assert on_chain == sum(done.values()), (on_chain, done)
        left = [p for p in self.home.rglob(".*") if p.suffix in (".tmp", ".part")]
        assert not left, left
        orphans = processes_in(self.home)
        assert not orphans, orphans
        print(
            f"  {len(self.paid)} claimed, {len(self.aborted)} lost to aborts, {len(self.skipped)} "
            f"skipped, as on chain; 0 lamports owed; {on_chain} transactions, none refused;\n"
            f"  ledger = balance ({gained:+,} lamports); no orphans, no temporary files"
        )

    def _paid_by(self, wallet: Pubkey) -> int:
        """How many transactions on chain that wallet paid for, refused ones too."""
        found, before = 0, None
        while page := self.net.ledger.mentioning(wallet, Commitment.PROCESSED, before=before):
            messages = (VersionedTransaction.from_bytes(landed.wire).message for landed in page)
            found += sum(message.account_keys[0] == wallet for message in messages)
            before = page[-1].signature
        return found


def _kilobytes(path: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", path.read_text("ascii"), re.M)
    assert found, name
    return int(found[1])


@contextlib.asynccontextmanager
async def soak(folder: Path, worker: str, at_once: int) -> AsyncIterator[Soak]:
    """A network and a daemon at work; leaving ends the daemon, and then the network."""
    store = PinStore(folder / "pins")
    pin, _ = store.add([Part((), MODEL)], V1, network="public", name="model")
    params = Params(join_s=3600, submit_s=3600)
    async with (
        local_chain("v1.2", slot_s=0.1, params=params) as net,
        serving(make_pin_app(store, faults=net.faults)) as url,
    ):
        net.ledger.airdrop(v1.TREASURY, SOL)  # its first cut is too small for rent
        config = {
            "network": "localnet",
            "private_key": str(net.trainer),
            "rpc_url": net.endpoints.rpc_url,
            "ws_url": net.endpoints.ws_url,
            "gateways": [url],
            "pinata_api_url": url,
            "pinata_upload_url": url,
            "pinata_jwt": "localnet-jwt",
            "datasets": ["custom"],
            "dataset_mappings": {"custom": "digits"},
            "max_concurrent_rounds": at_once,
            # Of 50 rounds, five are lost by the same validator's doing: that is no alarm here.
            "max_losses": 0,
            "max_cost_per_day": 0,
            "quiet_hours": 0,  # a quarter of a day passes at once
            "threads": 1,
            "max_batches": 8,
            "metrics_port": free_port(),
        }
        run = Soak(net, pin.cid, folder / "home", COMMANDS[worker], config, at_once)
        async with run.started():
            yield run
        run.count()


HEADS = "  rounds   hours  RSS MB  PSS MB  files  threads  children  journal MB  home MB"


def show(one: Sample) -> None:
    print(
        f"  {one.rounds:>6,}  {one.at_s / 3600:6.3f}  {one.rss_mb:6.1f}  {one.pss_mb:6.1f}  "
        f"{one.fds:5}  {one.threads:7}  {one.children:8}  {one.journal_mb:10.2f}  "
        f"{one.home_mb:7.1f}",
        flush=True,
    )


def summarize(samples: list[Sample]) -> None:
    """The growth over the second half, when everything has been used for a while."""
    late = samples[len(samples) // 2 :]
    if len(late) < 3:
        print("  too few samples for a slope")
        return
    memory = [one.rss_mb for one in late]
    hours = [one.at_s / 3600 for one in late]
    thousands = [one.rounds / 1000 for one in late]
    per_hour, noise = slope(hours, memory)
    per_thousand, _ = slope(thousands, memory)
    files = [one.fds for one in late]
    print(
        f"  RSS over the last {len(late)} samples: {per_hour:+.2f} (standard error {noise:.2f}) MB "
        f"per hour of wall time,\n  {per_thousand:+.3f} MB per 1,000 rounds; open files from "
        f"{min(files)} to {max(files)}"
    )


def slope(x: list[float], y: list[float]) -> tuple[float, float]:
    """Of the line of least squares, and its standard error."""
    fit = statistics.linear_regression(x, y)
    mean = statistics.fmean(x)
    spread = sum((one - mean) ** 2 for one in x)
    pairs = zip(x, y, strict=True)
    rest = sum((b - fit.intercept - fit.slope * a) ** 2 for a, b in pairs)
    return fit.slope, (rest / (len(x) - 2) / spread) ** 0.5


async def run(folder: Path, worker: str, rounds: int, at_once: int, most_s: float) -> None:
    print(f"{rounds:,} rounds, {worker} worker, {at_once} at once\n{HEADS}", flush=True)
    async with soak(folder, worker, at_once) as soaking:
        chunk = CHUNK if worker == "scripted" else 4
        await soaking.rounds(rounds, chunk=chunk, most_s=most_s)
    summarize(soaking.samples)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000, help="with the scripted worker")
    parser.add_argument("--real", type=int, default=20, help="with the real worker")
    parser.add_argument("--at-once", type=int, default=10, help="rounds under way at once")
    parser.add_argument("--minutes", type=float, default=1e9, help="at most, of each worker")
    asked = parser.parse_args()
    most_s = asked.minutes * 60
    with tempfile.TemporaryDirectory(prefix="decloud-soak-") as folder:
        if asked.rounds:
            home = Path(folder) / "scripted"
            asyncio.run(run(home, "scripted", asked.rounds, asked.at_once, most_s))
        if asked.real:
            asyncio.run(run(Path(folder) / "real", "real", asked.real, 2, most_s))


if __name__ == "__main__":
    main()
