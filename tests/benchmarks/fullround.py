"""A round on a whole dataset through a local network: what was previewed, scored and paid.

The validator scores with code of its own, on the same files. Debian has those of Fashion-MNIST in
its package dataset-fashion-mnist.

    python -m tests.benchmarks.fullround --data /usr/share/datasets/fashion-mnist --max-batches 300
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent))

from solders.keypair import Keypair
from terminal import run, running

from decloud_trainer.localnet.network import LocalNetwork
from decloud_trainer.localnet.options import Endpoints, LocalOptions
from decloud_trainer.localnet.remote import airdrop
from decloud_trainer.localnet.reports import RoundReport

NAME = "fashionmnist"
Status = dict[str, Any]


async def play(data: Path, epochs: int, max_batches: int) -> tuple[str, Status, RoundReport]:
    """One round beside a competitor: our address, what `status` shows in the end, the scores."""
    options = LocalOptions(dataset=NAME, data=data, min_trainers=2)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, {"HOME": folder, "DECLOUD_HOME": folder}),
    ):
        async with LocalNetwork(options) as network:
            keypair = Keypair()
            settings = {
                "rpc_url": network.endpoints.rpc_url,
                "ws_url": network.endpoints.ws_url,
                "gateways": network.endpoints.gateway_url,
                "pinata_api_url": network.endpoints.pin_api_url,
                "pinata_upload_url": network.endpoints.pin_upload_url,
                "epochs": epochs,
                "max_batches": max_batches,
            }
            changes = [f"--set={key}={value}" for key, value in settings.items()]
            changes.append(f"--add-path={NAME}:{data}")
            await asyncio.to_thread(_earn, keypair, network.endpoints, changes)
            shown = await asyncio.to_thread(run, "status", "0", "--json")
            return str(keypair.pubkey()), dict(json.loads(shown.out)), await network.report(0)


def _earn(keypair: Keypair, network: Endpoints, changes: list[str]) -> None:
    """The trainer's side, by its commands, until the reward is claimed."""
    secrets = {"private_key": str(keypair), "pinata_jwt": network.pin_jwt}
    words = ("--secrets-stdin", "--non-interactive", "--network", "localnet")
    for done in (run("config", *changes), run("setup", *words, stdin=json.dumps(secrets))):
        assert done.code == 0, done.err
    airdrop(network.rpc_url, str(keypair.pubkey()), 10**9)
    with running("start", "--json", "--max-rounds", "1") as daemon:
        daemon.until(event="round", round=0, state="claimed")


def measure() -> None:
    """The share that both scores give beside the one that the chain gave."""
    options = argparse.ArgumentParser("python -m tests.benchmarks.fullround", description=__doc__)
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--data", type=Path, required=True, help="folder with the IDX files")
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--max-batches", type=int, default=0, help="of an epoch; 0: all")
    asked = options.parse_args()
    own, status, report = asyncio.run(play(asked.data, asked.epochs, asked.max_batches))
    here = status["here"]
    print(f"previewed {here['preview_before']:.2f} -> {here['preview_after']:.2f} %")
    for each in report.trainers:
        name = "ours" if each.trainer == own else "competitor"
        print(f"scored: {name} {each.after} % ({each.improvement:+.2f} points)")
    previewed = here["preview_after"] - here["preview_before"]
    others = sum(each.improvement for each in report.trainers if each.trainer != own)
    share = status["submission"]["contribution_bps"] / 100
    print(f"share {share:.2f} %, by preview {100 * previewed / (previewed + others):.2f} %")


if __name__ == "__main__":
    measure()
