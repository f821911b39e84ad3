"""Whole rounds among the actors, on the real program and real servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from decloud_trainer.chain import v1
from decloud_trainer.errors import SettingsError
from decloud_trainer.localnet.actors.competitor import EXECUTED
from decloud_trainer.localnet.network import LocalNetwork
from decloud_trainer.localnet.options import LocalOptions
from decloud_trainer.rounds.model import Round, RoundStatus, Submission

PATIENCE_S = 60
QUICK = {"slot_ms": 100, "poll_s": 0.1}


def round_of(network: LocalNetwork, round_id: int) -> Round:
    account = network.ledger.account(v1.round_address(round_id)[0])
    assert account is not None
    return v1.decode_round(account.data)


def submission_of(network: LocalNetwork, round_id: int, trainer: str) -> Submission:
    account = network.ledger.account(v1.submission_address(round_id, trainer)[0])
    assert account is not None
    return v1.decode_submission(account.data)


async def test_the_good_one_earns_and_the_others_dont() -> None:
    """Three rounds with all characters: shares sum to the whole and follow the work alone."""
    options = LocalOptions(
        rounds=3, competitors=("good", "lazy", "hostile"), min_trainers=3, **QUICK
    )
    async with asyncio.timeout(PATIENCE_S), LocalNetwork(options) as network:
        trainers = {
            name: (await network.event("ready", competitor=name))["trainer"]
            for name in options.competitors
        }
        for round_id in range(3):
            report = await network.report(round_id)
            good, lazy, hostile = (report.of(trainers[name]) for name in options.competitors)
            assert good is not None
            assert lazy is not None
            assert hostile is not None
            assert report.baseline == pytest.approx(54.22, abs=0.01)
            assert good.improvement > 20
            assert (lazy.improvement, lazy.bps) == (0, 0)
            assert hostile.bps == 0
            # A pickle with code, bytes that are no file, work with the sign turned round.
            assert "Unpickling" in hostile.error or hostile.improvement < 0
            assert sum(score.bps for score in report.trainers) == 10_000
            await network.event("rewarded", round_id=round_id, competitor="good")
        assert not (Path(network.endpoints.state) / "actors" / EXECUTED).exists()
        assert [round_of(network, n).status for n in range(3)] == [RoundStatus.COMPLETED] * 3
        assert round_of(network, 0).baseline_score == 5422
        submission = submission_of(network, 0, trainers["good"])
        assert (submission.contribution_bps, submission.reward_claimed) == (10_000, True)
        account = network.ledger.account(Pubkey.from_string(trainers["good"]))
        assert account is not None
        # 0.09 SOL less the treasury's 2 %, three times; less rent and fees.
        assert account.lamports > 1_000_000_000 + 3 * 88_200_000 - 10_000_000


async def test_a_killed_network_goes_on_where_it_was(tmp_path: Path) -> None:
    """A v1.0 network stopped between join and score completes its round after the restart."""
    state = {"state": tmp_path / "state", "generation": "v1.0", **QUICK}
    async with asyncio.timeout(PATIENCE_S):
        async with LocalNetwork(LocalOptions(competitors=("good",), **state)) as network:
            genesis = network.endpoints.genesis_hash
            joined = await network.event("joined", round_id=0)
        async with LocalNetwork(LocalOptions(rounds=0, **state)) as network:
            assert network.endpoints.genesis_hash == genesis
            report = await network.report(0)
            assert [score.trainer for score in report.trainers] == [joined["trainer"]]
            await network.event("rewarded", round_id=0)
            assert submission_of(network, 0, joined["trainer"]).reward_claimed


async def test_a_round_without_trainers_is_given_back() -> None:
    """After the join deadline the validator has the program return the reward."""
    options = LocalOptions(competitors=(), **QUICK)
    async with asyncio.timeout(PATIENCE_S), LocalNetwork(options) as network:
        creator = Pubkey.from_string((await network.event("posted"))["creator"])
        await network.event("claimed", round_id=0)
        before = network.ledger.account(creator)
        network.ledger.warp(options.join_s + 5)
        checked = await network.event("checked", round_id=0)
        assert checked["status"] == "Expired"
        after = network.ledger.account(creator)
        assert before is not None
        assert after is not None
        assert after.lamports - before.lamports == options.reward_lamports


async def test_a_round_about_data_that_nobody_has_is_refused(tmp_path: Path) -> None:
    """Posting says so, instead of a round that can't be scored."""
    async with LocalNetwork(LocalOptions(actors=False)) as network:
        with pytest.raises(SettingsError, match="need the folder"):
            await network.post_round(reward_lamports=10**8, dataset="mnist")
        with pytest.raises(SettingsError, match="no test images"):
            await network.post_round(reward_lamports=10**8, dataset="mnist", data=tmp_path)
        with pytest.raises(SettingsError, match="can't be about"):
            await network.post_round(reward_lamports=10**8, dataset="imdb")
