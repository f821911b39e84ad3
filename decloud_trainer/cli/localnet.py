"""``localnet``: a complete DECLOUD network on this machine, and the means to steer it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer.cli.amounts import SOL, SPAN, WHOLE_SPAN
from decloud_trainer.cli.output import JSON_OPTION, accuracy_text, folded, print_json, print_pairs
from decloud_trainer.errors import SettingsError
from decloud_trainer.files import home_dir, make_private_dir, write_atomic
from decloud_trainer.localnet.faults import NAMES as FAULTS
from decloud_trainer.money import format_sol

if TYPE_CHECKING:
    from decloud_trainer.localnet.options import Endpoints, LocalOptions

DATASETS = ("digits", "mnist", "fashionmnist")
FAULT_LIST = "\n".join(f"  {name.replace('_', '-'):<20} {text}" for name, text in FAULTS.items())
FOLDER = click.Path(file_okay=False, path_type=Path)
CODES = """\b
Exit codes:
  0  done
  1  the network doesn't answer, or its program refuses
  2  wrong usage, or no network is running
"""
RPC_URL = click.option(
    "--rpc-url", metavar="URL", help="Of a network that this home's `up` didn't start."
)


@click.group()
def localnet() -> None:
    """Run a complete local DECLOUD network on this machine.

    A Solana ledger with the DECLOUD program, a pin service with an IPFS gateway, a creator, a
    validator and competitors: everything listens on this machine alone, and the money is play
    money.
    """


UP_EPILOG = """\b
Examples:
  decloud-trainer localnet up
  decloud-trainer localnet up --rounds 3 --competitors good,lazy,hostile
  decloud-trainer localnet up --dataset fashionmnist --data ~/fashion
  decloud-trainer localnet up --state ~/my-network
\b
Exit codes:
  0  ended by Ctrl-C or SIGTERM
  1  another network has the state folder
  2  a wrong option, or a port is taken
  4  the state folder is damaged
"""


@localnet.command(epilog=UP_EPILOG)
@click.option("--rpc-port", default=8899, show_default=True, help="0: any free one; WebSocket: +1.")
@click.option("--pin-port", default=8901, show_default=True, help="0: any free one.")
@click.option("--generation", default="v1.2", show_default=True, help="The program: v1.0 or v1.2.")
@click.option("--rounds", default=1, show_default=True, help="Rounds to post.")
@click.option("--every", type=SPAN, default="0", help="Time between rounds (0: all at once).")
@click.option("--reward", type=SOL, default="0.1", show_default=True, help="Reward of each round.")
@click.option("--dataset", type=click.Choice(DATASETS), default="digits", show_default=True)
@click.option("--data", type=FOLDER, help="Folder with the dataset's IDX files.")
@click.option(
    "--competitors", default="good", show_default=True, help="Some of good,lazy,hostile; or none."
)
@click.option(
    "--min-trainers",
    type=int,
    default=None,
    help="Trainers the validator waits for.  [default: competitors + 1, so that you can join]",
)
@click.option("--join-grace", type=SPAN, default="0", help="And how long after the last of them.")
@click.option(
    "--validator-s",
    type=WHOLE_SPAN,
    default="1h",
    show_default=True,
    help="A validator's time to take a round.",
)
@click.option(
    "--join-s", type=WHOLE_SPAN, default="10m", show_default=True, help="Trainers' time to join."
)
@click.option(
    "--submit-s", type=WHOLE_SPAN, default="1h", show_default=True, help="Trainers' time to submit."
)
@click.option(
    "--validation-s",
    type=WHOLE_SPAN,
    default="1h",
    show_default=True,
    help="The validator's time to score.",
)
@click.option("--slot-ms", default=400, show_default=True, help="Length of a slot in ms.")
@click.option("--seed", default=0, show_default=True, help="Of the competitors.")
@click.option("--state", type=FOLDER, help="Folder that keeps the network over restarts.")
@click.option("--no-actors", is_flag=True, help="Only ledger, pins and gateway.")
@JSON_OPTION
def up(as_json: bool, **given: Any) -> None:
    """Start the network and run it until Ctrl-C.

    With --json it prints one line when it is ready: all endpoints and process ids.
    """
    import asyncio

    asyncio.run(_run(_options(**given), as_json))


def _options(
    *,
    every: float,
    reward: int,
    competitors: str,
    min_trainers: int | None,
    join_grace: float,
    no_actors: bool,
    **same: Any,
) -> LocalOptions:
    from decloud_trainer.localnet.options import LocalOptions

    names = tuple(name.strip() for name in competitors.split(","))
    names = tuple(name for name in names if name not in ("", "none"))
    return LocalOptions(
        interval_s=every,
        reward_lamports=reward,
        competitors=names,
        min_trainers=len(names) + 1 if min_trainers is None else min_trainers,
        join_grace_s=join_grace,
        actors=not no_actors,
        **same,
    )


async def _run(options: LocalOptions, as_json: bool) -> None:
    import asyncio
    import signal

    from decloud_trainer.localnet.network import LocalNetwork

    ending = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)

    def hear(actor: str, event: dict[str, Any]) -> None:
        if event["event"] == "ended":
            click.echo(f"the {actor} has ended (exit code {event['exit_code']})", err=True)
        elif not as_json:
            click.echo(folded(*_told(event)))

    async with LocalNetwork(options, hear=hear) as network:
        path = _endpoints_path()
        make_private_dir(path.parent)
        own = _encoded(network.endpoints)
        write_atomic(path, own)
        try:
            _show(network.endpoints, as_json)
            await ending.wait()
        finally:
            if path.exists() and path.read_bytes() == own:  # not a later network's
                path.unlink()
    if not as_json:
        click.echo("the local network has ended")


def _show(endpoints: Endpoints, as_json: bool) -> None:
    if as_json:
        print_json(endpoints.to_json())
        return
    click.echo("A local DECLOUD network is running. Ctrl-C ends it.\n")
    print_pairs(
        {
            "Solana RPC": endpoints.rpc_url,
            "WebSocket": endpoints.ws_url,
            "IPFS gateway": endpoints.gateway_url,
            "Pin service": f"{endpoints.pin_api_url} (JWT {endpoints.pin_jwt})",
            "Program": f"{endpoints.program_id} ({endpoints.generation})",
            "Genesis hash": endpoints.genesis_hash,
            "State": endpoints.state,
            "Processes": ", ".join(f"{name} {pid}" for name, pid in endpoints.pids.items()),
        }
    )
    click.echo("\nIn another terminal: decloud-trainer setup --network localnet\n")


def _told(event: dict[str, Any]) -> tuple[str, str]:
    """An actor's report for people: what it is about, and what happened."""
    who = event.get("competitor", "")
    if event["event"] == "ready":
        address = event.get("trainer") or event["validator"]
        return f"{who or 'validator'}: ", f"ready as {address}"
    return f"round {event['round_id']}: ", _happened(event, who)


def _happened(event: dict[str, Any], who: str) -> str:
    match event["event"]:
        case "posted":
            return f"posted, model {event['model_cid']}"
        case "started":
            return f"training started, baseline {event['baseline_score'] / 100:.2f} %"
        case "scored":
            return _scores(event)
        case "checked":
            return f"{event['status']} after a time-out"
        case "joined" | "submitted" | "rewarded":
            return f"{who} {event['event']}"
        case other:
            return f"{other} by the validator"


def _scores(event: dict[str, Any]) -> str:
    if event["baseline"] is None:
        return f"can't be scored, all share equally ({event['error']})"
    parts = [
        f"{score['trainer'][:8]}... {accuracy_text(score['after'])} for {score['bps'] / 100:.2f} %"
        for score in event["scores"]
    ]
    return f"baseline {accuracy_text(event['baseline'])}; " + ", ".join(parts) + " of the pool"


AIRDROP_EPILOG = """\b
Examples:
  decloud-trainer localnet airdrop ADDRESS
  decloud-trainer localnet airdrop ADDRESS 2.5

"""


@localnet.command(epilog=AIRDROP_EPILOG + CODES)
@click.argument("address")
@click.argument("amount", metavar="[SOL]", type=SOL, default="1")
@RPC_URL
@JSON_OPTION
def airdrop(address: str, amount: int, rpc_url: str | None, as_json: bool) -> None:
    """Give an address play money from the faucet (1 SOL)."""
    from decloud_trainer.localnet.remote import airdrop as give

    drop = give(rpc_url or _running().rpc_url, address, amount)
    if as_json:
        print_json(asdict(drop))
    else:
        balance = format_sol(drop.balance_lamports)
        click.echo(f"{drop.address} got {format_sol(drop.lamports)} and has {balance}")


ROUND_EPILOG = """\b
Examples:
  decloud-trainer localnet round --reward 0.5
  decloud-trainer localnet round --dataset fashionmnist --data ~/fashion \\
      --model mine.pt

"""


@localnet.command("round", epilog=ROUND_EPILOG + CODES)
@click.option("--reward", type=SOL, default="0.1", show_default=True)
@click.option("--dataset", type=click.Choice(DATASETS), default="digits", show_default=True)
@click.option("--data", type=FOLDER, help="Folder with the dataset's IDX files.")
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The model file; without it the package's partly trained SimpleCNN.",
)
@JSON_OPTION
def post_round(
    reward: int, dataset: str, data: Path | None, model: Path | None, as_json: bool
) -> None:
    """Post one more round, paid for by the faucet.

    --data tells the network where the data is: from now on all rounds about this dataset are
    scored on it.
    """
    from decloud_trainer.localnet.posting import post_one

    posted = post_one(_running(), reward_lamports=reward, dataset=dataset, data=data, model=model)
    if as_json:
        print_json({**asdict(posted), "reward_lamports": reward, "dataset": dataset})
    else:
        click.echo(f"round {posted.round_id}: {format_sol(reward)} for {posted.model_cid}")


WARP_EPILOG = """\b
Examples:
  decloud-trainer localnet warp 10m
  decloud-trainer localnet warp 3600

"""


@localnet.command(epilog=WARP_EPILOG + CODES)
@click.argument("span", metavar="TIME", type=SPAN)
@RPC_URL
@JSON_OPTION
def warp(span: float, rpc_url: str | None, as_json: bool) -> None:
    """Move the ledger's clock forward by 90, 90s, 10m, 1.5h or 2d."""
    from decloud_trainer.localnet.remote import control

    status = control(_control_url(rpc_url), "warp", seconds=span)
    if as_json:
        print_json(status)
    else:
        click.echo(f"the ledger's clock stands at {status['unix_timestamp']}")


FAULT_EPILOG = f"""\b
Faults:
{FAULT_LIST}
\b
Examples:
  decloud-trainer localnet fault rpc-429 --count 5
  decloud-trainer localnet fault pin-down --seconds 20
  decloud-trainer localnet fault pin-down --off

"""


@localnet.command(epilog=FAULT_EPILOG + CODES)
@click.argument("name")
@click.option("--count", type=click.IntRange(1), help="Strike so often.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Strike for so long.")
@click.option("--off", is_flag=True, help="Switch it off.")
@RPC_URL
@JSON_OPTION
def fault(
    name: str,
    count: int | None,
    seconds: float | None,
    off: bool,
    rpc_url: str | None,
    as_json: bool,
) -> None:
    """Have the network do something wrong: until told, --count times, or for --seconds."""
    from decloud_trainer.localnet.remote import control

    if off and (count or seconds):
        raise SettingsError("--off takes no --count and no --seconds")
    chosen = name.replace("-", "_")
    status = control(
        _control_url(rpc_url), "fault", name=chosen, on=not off, count=count, seconds=seconds
    )
    if as_json:
        print_json(status)
    else:
        click.echo("faults that are on: " + (", ".join(status["faults"]) or "none"))


def _endpoints_path() -> Path:
    return home_dir() / "localnet.json"


def _encoded(endpoints: Endpoints) -> bytes:
    import json

    return json.dumps(endpoints.to_json(), indent=2).encode()


def _running() -> Endpoints:
    """The network that `up` started from this home; SettingsError when there is none."""
    from decloud_trainer.localnet.options import Endpoints

    endpoints = Endpoints.load(_endpoints_path())
    try:
        os.kill(endpoints.pids["network"], 0)
    except ProcessLookupError as error:
        raise SettingsError(
            "no local network is running (the last one was killed)",
            hint="start one in another terminal: decloud-trainer localnet up",
        ) from error
    return endpoints


def _control_url(rpc_url: str | None) -> str:
    return f"{rpc_url.rstrip('/')}/control" if rpc_url else _running().control_url
