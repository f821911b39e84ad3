"""One real round on a local network in a temporary home, from posting to reward."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from decloud_trainer import config as settings_file
from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.chain.wallet import create_keypair_file
from decloud_trainer.errors import DecloudError
from decloud_trainer.localnet.network import LocalNetwork
from decloud_trainer.localnet.options import LocalOptions
from decloud_trainer.localnet.remote import airdrop
from decloud_trainer.localnet.reports import TrainerReport
from decloud_trainer.rounds import intents, ledger
from decloud_trainer.rounds.entry import Entry
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import ActionKind, Round, Submission

FUNDS_LAMPORTS = 1_000_000_000
EPOCHS = 2
# A demo that isn't done by then has a fault worth reporting.
PATIENCE_S = 240.0

Hear = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """What the round brought, each number from where it is decided: the accuracies from the
    validator, the share and the reward from the chain, the preview from the trainer.

    Attributes:
        balance_change_lamports: the wallet's balance after minus before, read from the chain.
    """

    round_id: int
    dataset: str
    trainers: int
    accuracy_before: float
    accuracy_after: float
    preview_accuracy: float
    contribution_bps: int
    gradient_cid: str
    join_signature: str
    submit_signature: str
    claim_signature: str
    reward_lamports: int
    fees_lamports: int
    rent_lamports: int
    net_lamports: int
    balance_change_lamports: int
    reward_claimed: bool
    seconds: float

    @property
    def problems(self) -> list[str]:
        """Why this demo must not count as a success; empty when it does."""
        found = []
        if not self.reward_claimed or self.reward_lamports <= 0:
            found.append("no reward arrived on chain")
        if self.balance_change_lamports != self.net_lamports:
            found.append("the wallet's balance doesn't match the transactions")
        if abs(self.preview_accuracy - self.accuracy_after) > 0.01:
            found.append("the preview differs from the validator's score")
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


async def run_demo(
    competitors: tuple[str, ...], reward_lamports: int, slot_ms: int, hear: Hear
) -> Summary:
    """Run it.

    Args:
        hear: called with who says it (``network``, an actor, or ``trainer``) and the event.

    Raises:
        DecloudError: it didn't come to a claimed reward.
    """
    began = time.monotonic()
    options = LocalOptions(
        rounds=1,
        reward_lamports=reward_lamports,
        competitors=competitors,
        min_trainers=1 + len(competitors),
        slot_ms=slot_ms,
        poll_s=0.3,
        join_s=120,
        submit_s=180,
        validation_s=180,
    )
    with tempfile.TemporaryDirectory(prefix="decloud-demo-") as folder:
        home = Path(folder)
        async with LocalNetwork(options, hear=hear) as network:
            where = network.endpoints
            hear("network", {"event": "up", "rpc_url": where.rpc_url, "gateway": where.gateway_url})
            wallet = create_keypair_file(home / "wallet.json").pubkey
            before = await asyncio.to_thread(airdrop, where.rpc_url, wallet, FUNDS_LAMPORTS)
            hear("network", {"event": "funded", "wallet": wallet, "lamports": FUNDS_LAMPORTS})
            settings_file.update(
                {
                    "network": "localnet",
                    "rpc_url": where.rpc_url,
                    "ws_url": where.ws_url,
                    "gateways": [where.gateway_url],
                    "pinata_api_url": where.pin_api_url,
                    "pinata_upload_url": where.pin_upload_url,
                    "pinata_jwt": where.pin_jwt,
                    "keypair_path": str(home / "wallet.json"),
                    "dataset_mappings": {"custom": "digits"},
                    "epochs": EPOCHS,
                },
                path=home / "config.json",
            )
            round_id = await _daemon(home, hear)
            report = (await network.report(round_id)).of(wallet)
            async with Rpc(where.rpc_url) as rpc:
                chain = SolanaChain(rpc, wallet)
                round, submission = await chain.round(round_id), await chain.submission(round_id)
                balance = await chain.balance()
            with contextlib.closing(Journal(home / "journal.sqlite")) as journal:
                entry = next(row for row in journal.entries() if row.key.round_id == round_id)
                book = ledger.lines(intents.sent(journal, entry))
    if round is None or submission is None or report is None:
        raise DecloudError(f"round {round_id} ended without our submission: {entry.reason}")
    return _summary(
        round,
        submission,
        report,
        entry,
        book,
        balance_change=balance - before.balance_lamports,
        seconds=time.monotonic() - began,
    )


async def _daemon(home: Path, hear: Hear) -> int:
    """Run the daemon as users do, until a round of its own is final; that round's id."""
    # Nothing of the user's own set-up may leak into the demo: no key, no setting.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DECLOUD_", "SOLANA_", "PINATA_", "KUBO_", "PINNING_API_"))
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "decloud_trainer", "start", "--json"),
        env={**kept, "DECLOUD_HOME": str(home)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    complaints = asyncio.create_task(process.stderr.read())
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for line in process.stdout:
                event = json.loads(line)
                hear("trainer", event)
                if event.get("state") in ("claimed", "lost", "failed"):
                    return int(event["round"])
        text = (await complaints).decode(errors="replace").strip()
        raise DecloudError(f"the daemon ended before the round was over: {text[-2000:]}")
    except TimeoutError as error:
        raise DecloudError(f"the round was not over after {PATIENCE_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 20)
        if process.returncode is None:
            process.kill()
        complaints.cancel()


def _summary(
    round: Round,
    submission: Submission,
    report: TrainerReport,
    entry: Entry,
    book: list[ledger.Line],
    *,
    balance_change: int,
    seconds: float,
) -> Summary:
    signatures = {line.kind: line.signature for line in book}
    sums = ledger.totals(book)
    return Summary(
        round_id=round.id,
        dataset=f"{round.dataset} (trained on {entry.facts.train_on})",
        trainers=round.trainers_count,
        accuracy_before=report.before if report.before is not None else 0.0,
        accuracy_after=report.after if report.after is not None else 0.0,
        preview_accuracy=entry.facts.preview_after or 0.0,
        contribution_bps=submission.contribution_bps,
        gradient_cid=submission.gradient_cid,
        join_signature=signatures.get(ActionKind.JOIN, ""),
        submit_signature=signatures.get(ActionKind.SUBMIT, ""),
        claim_signature=signatures.get(ActionKind.CLAIM, ""),
        reward_lamports=sums.rewards_lamports,
        fees_lamports=sums.fees_lamports,
        rent_lamports=sums.rent_lamports,
        net_lamports=sums.net_lamports,
        balance_change_lamports=balance_change,
        reward_claimed=submission.reward_claimed,
        seconds=round_to_tenth(seconds),
    )


def round_to_tenth(seconds: float) -> float:
    return int(seconds * 10) / 10
