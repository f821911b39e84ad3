"""What the steps of a round rely on in a Chain, on every program that there is one for."""

from __future__ import annotations

import pytest
from localchain import GRADIENT_CID, MODEL_CID, SOL, local_chain
from solders.keypair import Keypair

from decloud_trainer.chain import v1
from decloud_trainer.errors import NetworkError
from decloud_trainer.rounds.model import Costs, Dataset, RoundStatus, Submission
from decloud_trainer.rounds.ports import Chain

pytestmark = pytest.mark.parametrize("program", ["v1.0", "v1.2"])


async def test_a_round_is_told_as_the_chain_has_it(program: str) -> None:
    """All fields arrive; a round that doesn't exist is None."""
    async with local_chain(program) as net:
        chain: Chain = net.chain
        number = net.post_round(dataset_index=3, reward_lamports=7 * SOL)
        net.settle_slots()
        found = await chain.round(number)
        assert found is not None
        assert (found.id, found.model_cid, found.reward_lamports) == (number, MODEL_CID, 7 * SOL)
        assert found.dataset == Dataset(3, "FashionMnist")
        assert found.creator == str(net.creator.pubkey())
        assert (found.status, found.validator) == (RoundStatus.WAITING_VALIDATOR, None)
        assert found.validator_deadline > found.created_at
        assert await chain.round(number + 1) is None
        assert await chain.round(2**64 - 1) is None


async def test_open_rounds_are_those_that_can_be_joined_now_or_soon(program: str) -> None:
    """Waiting for a validator or for trainers, with either kind of CID; no others."""
    async with local_chain(program) as net:
        chain: Chain = net.chain
        assert list(await chain.open_rounds()) == []
        waiting = net.post_round(cid=GRADIENT_CID)
        joinable = net.open_round()
        training = net.open_round()
        net.run(v1.join_round(training, net.trainer.pubkey()), net.trainer)
        net.start_training(training)
        cancelled = net.post_round()
        net.run(v1.cancel_round(cancelled, net.creator.pubkey()), net.creator)
        net.settle_slots()
        found = {round_.id: round_.status for round_ in await chain.open_rounds()}
        assert found == {
            waiting: RoundStatus.WAITING_VALIDATOR,
            joinable: RoundStatus.WAITING_TRAINERS,
        }


async def test_submissions_are_the_wallets_own(program: str) -> None:
    """Others' submissions are never told; joining and submitting show."""
    async with local_chain(program) as net:
        chain: Chain = net.chain
        other = Keypair()
        net.ledger.airdrop(other.pubkey(), SOL)
        first, second = net.open_round(), net.open_round()
        for number, keypair in ((first, other), (second, other), (second, net.trainer)):
            net.run(v1.join_round(number, keypair.pubkey()), keypair)
        net.settle_slots()
        me = str(net.trainer.pubkey())
        assert await chain.submission(first) is None
        joined = Submission(second, me, "", False, 0, False)
        assert await chain.submission(second) == joined
        assert list(await chain.submissions()) == [joined]
        net.start_training(second)
        net.run(v1.submit_gradients(second, GRADIENT_CID, me), net.trainer)
        net.settle_slots()
        assert list(await chain.submissions()) == [
            Submission(second, me, GRADIENT_CID, True, 0, False)
        ]


async def test_a_claimed_submission_can_be_left_out(program: str) -> None:
    """What isn't claimed is told whatever its CID: none yet, or one of either usual length."""
    async with local_chain(program) as net:
        me, chain = net.trainer, net.chain
        numbers = [net.open_round() for _ in range(4)]
        for number in numbers:
            net.run(v1.join_round(number, me.pubkey()), me)
        for number, cid in zip(numbers, (GRADIENT_CID, GRADIENT_CID, MODEL_CID), strict=False):
            net.start_training(number)
            net.run(v1.submit_gradients(number, cid, me.pubkey()), me)
        net.complete(numbers[0], [(me, 10_000)])
        net.run(v1.claim_reward(numbers[0], me.pubkey(), generation=program), me)
        net.settle_slots()
        assert [one.round_id for one in await chain.submissions()] == numbers
        left = await chain.submissions(unclaimed=True)
        assert [one.round_id for one in left] == numbers[1:]


async def test_money_is_in_lamports(program: str) -> None:
    """The balance is the wallet's; the costs are what joining will take."""
    async with local_chain(program) as net:
        chain: Chain = net.chain
        assert await chain.balance() == 10 * SOL
        assert await chain.costs() == Costs(join_rent_lamports=1_733_040, fee_lamports=5000)


async def test_an_endpoint_that_is_gone_is_a_network_error(program: str) -> None:
    """Every read says so, and none makes up an answer."""
    async with local_chain(program) as net:
        net.faults.switch("rpc_429")
        net.rpc._attempts = 1
        chain: Chain = net.chain
        for read in (chain.open_rounds, chain.submissions, chain.balance, chain.costs):
            with pytest.raises(NetworkError):
                await read()
        for read_one in (chain.round, chain.submission):
            with pytest.raises(NetworkError):
                await read_one(0)
