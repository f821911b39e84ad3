"""A trainer's part in a round, through the client, against the program in a local ledger."""

from __future__ import annotations

import pytest
from localchain import FEE, GRADIENT_CID, MODEL_CID, RENT, SOL, local_chain

from decloud_trainer.rounds.model import Action, ActionKind, OutcomeState, RoundStatus


@pytest.mark.parametrize("program", ["v1.0", "v1.2"])
@pytest.mark.parametrize("setting", ["auto", "as it is"])
async def test_join_submit_and_claim_pay_to_the_lamport(program: str, setting: str) -> None:
    """The same calls earn the reward on both account lists, detected or set by the user."""
    async with local_chain(program) as net:
        chain = net.chain
        sender = net.sender(generation="auto" if setting == "auto" else program)
        number = net.open_round()
        net.settle_slots()
        assert await chain.submission(number) is None
        costs = await chain.costs()
        assert (costs.join_rent_lamports, costs.fee_lamports) == (RENT, FEE)

        intent = await sender.prepare(Action(ActionKind.JOIN, number))
        assert await chain.balance() == 10 * SOL, "prepare must not send"
        joined = await sender.settle(intent, fresh=True)
        assert joined.state is OutcomeState.LANDED
        assert (joined.fee_lamports, joined.wallet_change_lamports) == (FEE, -FEE - RENT)
        submission = await chain.submission(number)
        assert submission is not None
        assert (submission.submitted, submission.gradient_cid) == (False, "")

        net.start_training(number)
        net.settle_slots()
        submit = Action(ActionKind.SUBMIT, number, GRADIENT_CID)
        submitted = await sender.settle(await sender.prepare(submit), fresh=True)
        assert submitted.state is OutcomeState.LANDED
        assert submitted.wallet_change_lamports == -FEE

        net.complete(number, [(net.trainer, 10_000)])
        net.settle_slots()
        round_ = await chain.round(number)
        assert round_ is not None
        assert (round_.status, round_.model_cid) == (RoundStatus.COMPLETED, MODEL_CID)
        claimed = await sender.settle(
            await sender.prepare(Action(ActionKind.CLAIM, number)), fresh=True
        )
        assert claimed.state is OutcomeState.LANDED
        pool = round_.trainers_pool_lamports
        reward = pool if program == "v1.0" else pool - pool * 2 // 100
        assert claimed.wallet_change_lamports == reward - FEE
        assert await chain.balance() == 10 * SOL - RENT - 3 * FEE + reward
        (submission,) = await chain.submissions()
        assert submission.reward_claimed
