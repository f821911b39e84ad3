"""What the guards do on a real chain: they let the honest pass, and hold up everything else."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from daemonworld import a_world
from localchain import FAST, FEE, RENT, SOL, LocalChain, local_chain
from solders.message import Message
from solders.pubkey import Pubkey

import decloud_trainer
from decloud_trainer.chain import v1
from decloud_trainer.chain.generation import Generation
from decloud_trainer.chain.guard import Guard
from decloud_trainer.chain.rpc import Account, Failure, Rpc
from decloud_trainer.chain.sending import SolanaSender
from decloud_trainer.errors import SpendingRefused
from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.model import Action, ActionKind, OutcomeState
from decloud_trainer.rounds.spending import Ceilings


class Liar(Rpc):
    """An endpoint whose simulations, or a program whose accounts, aren't what they should be."""

    takes_lamports = 0
    submission_bytes: bytes | None = None
    looks = 0

    async def simulated(
        self, message: Message, addresses: Sequence[Pubkey]
    ) -> Failure | list[Account | None]:
        self.looks += 1
        found = await super().simulated(message, addresses)
        if isinstance(found, Failure):
            return found
        me, round_, submission = found
        assert me is not None
        assert submission is not None
        me = replace(me, lamports=me.lamports - self.takes_lamports)
        if self.submission_bytes is not None:
            submission = replace(submission, data=self.submission_bytes)
        return [me, round_, submission]


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decloud_trainer.chain.guard._LOOK_AGAIN_S", 0.0)


def guarded(net: LocalChain, rpc: Rpc, **ceilings: int) -> SolanaSender:
    guard = Guard(rpc, net.wallet, ceilings=Ceilings(**ceilings))
    found = Generation(rpc, net.wallet.pubkey, setting=net.generation)
    return SolanaSender(rpc, net.wallet, found, guard=guard, pace=FAST)


@pytest.mark.parametrize("generation", ["v1.0", "v1.2"])
async def test_an_honest_round_passes(generation: str) -> None:
    """Join, submission and claim of each generation, with ceilings just high enough."""
    async with local_chain(generation) as net:
        sender = guarded(net, net.rpc, transaction=RENT + FEE, round=RENT + 2 * FEE, day=RENT + FEE)
        number = net.open_round()
        actions = [
            Action(ActionKind.JOIN, number),
            Action(ActionKind.SUBMIT, number, "QmPZ9gcCEpqKTo6aq61g2nXGUhM4iCL3ewB6LDXZCtioEB"),
            Action(ActionKind.CLAIM, number),
        ]
        for action in actions:
            outcome = await sender.settle(await sender.prepare(action), fresh=True)
            assert outcome.state is OutcomeState.LANDED
            if action.kind is ActionKind.JOIN:
                net.start_training(number)
            if action.kind is ActionKind.SUBMIT:
                net.complete(number, [(net.trainer, 10_000)])


@pytest.mark.usefixtures("quick_looks")
async def test_a_simulation_that_takes_more_stops_it() -> None:
    """One lamport beyond rent and fee, seen three times: nothing is signed."""
    async with local_chain() as net, Liar(net.endpoints.rpc_url) as liar:
        liar.takes_lamports = 1
        number = net.open_round()
        with pytest.raises(SpendingRefused, match=r"a simulation takes 0\.001738041 SOL"):
            await guarded(net, liar).prepare(Action(ActionKind.JOIN, number))
        assert liar.looks == 3
        assert await net.chain.balance() == 10 * SOL


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("data", [b"", b"another discriminator" * 6, bytes(121), bytes(5000)])
async def test_an_unknown_layout_stops_writing_not_reading(data: bytes) -> None:
    """A program that was upgraded is said to be, and its rounds can still be looked at."""
    async with local_chain() as net, Liar(net.endpoints.rpc_url) as liar:
        liar.submission_bytes = data
        number = net.open_round()
        with pytest.raises(SpendingRefused, match="laid out") as caught:
            await guarded(net, liar).prepare(Action(ActionKind.JOIN, number))
        assert "update decloud-trainer" in caught.value.hint
        assert await net.chain.round(number) is not None


@pytest.mark.usefixtures("quick_looks")
async def test_a_submission_of_another_cid_is_not_signed() -> None:
    """What the simulated program stores must be what we hand in."""
    async with local_chain() as net, Liar(net.endpoints.rpc_url) as liar:
        number = net.open_round()
        sender = guarded(net, liar)
        join = await sender.prepare(Action(ActionKind.JOIN, number))
        await sender.settle(join, fresh=True)
        net.start_training(number)
        submission, _ = v1.submission_address(number, net.wallet.pubkey)
        account = await net.rpc.account(submission)
        assert account is not None
        liar.submission_bytes = account.data  # nothing handed in
        with pytest.raises(SpendingRefused, match="as it should be"):
            await sender.prepare(Action(ActionKind.SUBMIT, number, "Qm" + "a" * 44))


async def test_the_days_ceiling_outlives_a_restart(tmp_path: Path) -> None:
    """The second join of the day is refused with the reason, also by the next daemon; a day
    later it is done, and the round joined before was finished and claimed meanwhile."""
    async with a_world(tmp_path) as world:
        ceilings = Ceilings(day=RENT + FEE)

        def guard(_: object) -> SolanaSender:
            return world.guarded(ceilings)

        first = world.open()
        async with world.daemon(sender=guard) as running:
            await running.until(first, State.JOINED)
            world.net.start_training(first)
            await running.until(first, State.SUBMITTED)
            world.complete(first)
            await running.until(first, State.CLAIMED)
        second = world.open()
        async with world.daemon(sender=guard) as running:
            entry = await running.until_reason(second, "max_cost_per_day")
            assert entry.state is State.SKIPPED
            assert "the last 24 hours would cost" in entry.reason
        assert world.transactions()["JoinRound"] == 1
        world.warp(24 * 3600)
        third = world.open()
        async with world.daemon(sender=guard) as running:
            await running.until(third, State.JOINED)
        assert world.transactions()["JoinRound"] == 2


async def test_the_floor_is_kept_for_claims(tmp_path: Path) -> None:
    """A join that would eat it isn't signed, and says so; a claim uses it."""
    async with local_chain() as net:
        number = net.open_round()
        sender = guarded(net, net.rpc, floor=10 * SOL - RENT - FEE + 1)
        with pytest.raises(SpendingRefused, match="floor_balance"):
            await sender.prepare(Action(ActionKind.JOIN, number))
        sender = guarded(net, net.rpc, floor=10 * SOL - RENT - FEE)
        await sender.prepare(Action(ActionKind.JOIN, number))


async def test_two_joins_at_once_are_counted_before_they_are_recorded() -> None:
    """Of two that are signed at the same time, the second sees the first."""
    async with local_chain() as net:
        one, two = net.open_round(), net.open_round()
        sender = guarded(net, net.rpc, day=RENT + FEE)
        await sender.prepare(Action(ActionKind.JOIN, one))
        with pytest.raises(SpendingRefused, match="max_cost_per_day"):
            await sender.prepare(Action(ActionKind.JOIN, two))


def test_only_the_guard_signs() -> None:
    """No other module of the program calls a wallet's sign."""
    package = Path(decloud_trainer.__file__).parent
    signing = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = ast.unparse(node.func.value)
            if node.func.attr == "sign" and "wallet" in owner:
                signing.add(path.relative_to(package).as_posix())
            if node.func.attr == "sign_message":
                signing.add(path.relative_to(package).as_posix())
    assert signing == {"chain/guard.py", "chain/wallet.py"}
