"""Money to the lamport: shares, fees, refunds, limits of arithmetic, dust."""

from __future__ import annotations

import struct

import pytest
from program_world import (
    CID,
    PROGRAM,
    SOL,
    START,
    SYSTEM,
    TREASURY,
    World,
    counter_address,
    le8,
    round_address,
    string,
    vault_address,
)
from solders.keypair import Keypair

from decloud_trainer.localnet.program.image import Params

U64_MAX = 2**64 - 1
RENT_FREE = 890_880  # what an account without data must hold, unless it holds nothing
ODD_SHARES = [1, 3, 7, 101, 333, 777, 1234, 2222, 2345, 2977]


def test_the_odd_shares_are_whole() -> None:
    """They add up to 10,000, or the tests below prove nothing."""
    assert sum(ODD_SHARES) == 10_000


@pytest.mark.parametrize("generation", ["v1.0", "v1.2"])
@pytest.mark.parametrize("referred", [False, True])
def test_ten_trainers_with_odd_shares(generation: str, referred: bool) -> None:
    """Each gets the floor of their share less the fee; nothing is lost, nothing left over."""
    world = World(generation)
    reward = 123_456_700_000
    trainers = [world.wallet() for _ in ODD_SHARES]
    referrer = world.wallet()
    actors = {"referrer": referrer.pubkey()} if referred else {}
    shares = list(zip(trainers, ODD_SHARES, strict=True))
    world.validating(*trainers, reward=reward)
    for trainer, bps in shares:
        assert world.set_bps(bps, trainer).ok
    start = {who: world.balance(who) for who in (TREASURY, referrer.pubkey())}
    validator = world.balance(world.validator)
    world.must("complete_validation", **actors)

    def parts(gross: int) -> tuple[int, int, int]:
        fee = gross * 2 // 100 if generation == "v1.2" else 0
        to_referrer = fee // 2 if referred else 0
        return gross - fee, fee - to_referrer, to_referrer

    expected = parts(reward * 1000 // 10_000)
    assert world.balance(world.validator) - validator == expected[0]
    totals = list(expected[1:])
    pool = reward - reward * 1000 // 10_000
    for trainer, bps in shares:
        before = world.balance(trainer)
        event = world.must("claim_reward", trainer=trainer, **actors).events[0]
        gross = pool * bps // 10_000
        net, treasury, to_referrer = parts(gross)
        assert world.balance(trainer) - before == net
        assert event[3] == gross
        if generation == "v1.2":
            assert event[4:] == (treasury, to_referrer)
        totals[0] += treasury
        totals[1] += to_referrer
    assert world.balance(TREASURY) - start[TREASURY] == totals[0]
    assert world.balance(referrer) - start[referrer.pubkey()] == totals[1]
    assert world.balance(vault_address(0)) == 0


def test_the_odd_lamport_of_a_halved_fee_is_the_treasurys() -> None:
    """Gross 900,000,050: fee 18,000,001, referrer 9,000,000, treasury 9,000,001."""
    world = World(params=Params(fee_bps=0)).completed(reward=900_000_050)
    referrer = world.wallet()
    event = world.must("claim_reward", referrer=referrer.pubkey()).events[0]
    assert event[3:] == (900_000_050, 9_000_001, 9_000_000)
    assert world.balance(referrer) == 10 * SOL + 9_000_000


def test_the_treasury_may_be_the_referrer() -> None:
    """Clients of v1.2 name it when nobody referred them; it then gets both halves."""
    world = World().completed()
    before = world.balance(TREASURY)
    event = world.must("claim_reward", referrer=TREASURY).events[0]
    assert event[3:] == (900_000_000, 9_000_000, 9_000_000)
    assert world.balance(TREASURY) - before == 18_000_000


def test_the_trainer_may_refer_themselves() -> None:
    """The same account in two slots is paid twice, rightly."""
    world = World().completed()
    before = world.balance(world.trainer)
    world.must("claim_reward", referrer=world.trainer)
    assert world.balance(world.trainer) - before == 900_000_000 - 9_000_000


def test_a_new_referrer_needs_enough_to_exist() -> None:
    """An account that would be opened with less than its rent makes the claim fail."""
    world = World().completed(reward=10_000_000)
    nobody = Keypair().pubkey()
    outcome = world.call("claim_reward", referrer=nobody)
    assert "InsufficientFundsForRent" in outcome.error
    assert world.call("claim_reward").ok


@pytest.mark.parametrize(("fee_bps", "fee"), [(0, 0), (10_000, SOL)])
def test_fees_of_nothing_and_of_everything(fee_bps: int, fee: int) -> None:
    """A payout of zero succeeds and moves nothing."""
    world = World(params=Params(fee_bps=fee_bps)).completed()
    reward = world.must("claim_reward").events[0][3]
    assert reward == SOL - fee
    assert world.balance(vault_address(0)) == 0


def test_a_reward_near_the_end_of_the_number_range() -> None:
    """No product overflows: the shares of almost 2^64 lamports are exact."""
    world = World("v1.0")
    reward = U64_MAX - 2 * 10**12
    other = world.wallet()
    world.must("initialize")
    world.put(world.creator.pubkey(), b"", SYSTEM, U64_MAX - 10**12)
    assert world.create(reward).ok
    world.must("claim_round")
    for trainer in (world.trainer, other):
        world.must("join_round", trainer=trainer)
    world.must("start_training", le8(0) + bytes(4))
    for trainer in (world.trainer, other):
        world.must("submit_gradients", le8(0) + string(CID), trainer=trainer)
    assert world.set_bps(3333).ok
    assert world.set_bps(6667, other).ok
    completed = world.must("complete_validation")
    fee = reward * 1000 // 10_000
    assert completed.events[1][3] == fee
    before = world.balance(world.trainer)
    claimed = world.must("claim_reward")
    assert claimed.events[0][3] == (reward - fee) * 3333 // 10_000
    assert world.balance(world.trainer) - before == claimed.events[0][3]


def test_a_contribution_over_the_whole_cannot_overdraw_the_vault() -> None:
    """The contract bounds no single contribution; the money does: nothing more than is there."""
    world = World().validating()
    assert world.set_bps(65_535).ok
    world.must("complete_validation")
    outcome = world.call("claim_reward")
    assert outcome.code == 1  # the system program: insufficient lamports
    assert world.balance(vault_address(0)) == 900_000_000


def test_a_share_that_leaves_the_number_range() -> None:
    """The runtime's arithmetic error, not a wrong amount."""
    world = World().validating()
    assert world.set_bps(65_535).ok
    world.must("complete_validation")
    data = bytearray(world.data(round_address(0)))
    struct.pack_into("<Q", data, 53 + 59, U64_MAX)
    world.put(round_address(0), bytes(data), PROGRAM)
    assert "ArithmeticOverflow" in world.call("claim_reward").error


def test_the_last_round_id() -> None:
    """A counter that can't go up refuses instead of starting again at 0."""
    world = World()
    world.must("initialize")
    data = bytearray(world.data(counter_address()))
    data[8:16] = le8(U64_MAX)
    world.put(counter_address(), bytes(data), PROGRAM)
    assert "ArithmeticOverflow" in world.create(round_id=U64_MAX).error


def test_a_clock_at_the_end_of_time() -> None:
    """A deadline that doesn't fit refuses."""
    world = World()
    world.must("initialize")
    world.now = 2**63 - 100
    assert "ArithmeticOverflow" in world.create().error


def test_the_trainers_count_reaches_its_limit() -> None:
    """255 is the most that the count can hold, and the most that may join."""
    world = World(params=Params(max_trainers=255)).waiting_trainers()
    data = bytearray(world.data(round_address(0)))
    data[132 + 59] = 254
    world.put(round_address(0), bytes(data), PROGRAM)
    assert world.must("join_round").events[0][3] == 255
    assert world.call("join_round", trainer=world.wallet()).code == 6010


def test_the_submissions_count_does_not_wrap() -> None:
    """At 255 the runtime's arithmetic error; the submission is not stored."""
    world = World().training()
    data = bytearray(world.data(round_address(0)))
    data[132 + 59 : 134 + 59] = bytes([255, 255])
    world.put(round_address(0), bytes(data), PROGRAM)
    outcome = world.call("submit_gradients", le8(0) + string(CID))
    assert "ArithmeticOverflow" in outcome.error
    assert not world.submission().submitted


def test_a_creator_without_the_money() -> None:
    """The system program's error 1; no round, the counter stays."""
    world = World()
    world.must("initialize")
    world.put(world.creator.pubkey(), b"", SYSTEM, SOL)
    assert world.create(reward=SOL).code == 1
    assert world.data(counter_address())[8:16] == le8(0)


def test_a_reward_below_rent_cannot_be_deposited() -> None:
    """The runtime wants 890,880 lamports or none in an account without data."""
    world = World()
    world.must("initialize")
    outcome = world.create(reward=RENT_FREE - 1)
    assert "InsufficientFundsForRent" in outcome.error
    assert world.create(reward=RENT_FREE).ok


def test_a_claim_that_would_leave_dust_waits_for_others() -> None:
    """It fails while the rest would be too little, and succeeds once the rest is nothing."""
    world = World()
    small = world.wallet()
    world.completed((world.trainer, 9_900), (small, 100), reward=10_000_000)
    assert "InsufficientFundsForRent" in world.call("claim_reward").error
    assert not world.submission().claimed
    world.must("claim_reward", trainer=small)
    world.must("claim_reward")
    assert world.balance(vault_address(0)) == 0


def test_two_claims_in_one_transaction_pass_the_dust() -> None:
    """Only the end of a transaction counts: two halves of a small pool go out together."""
    world = World()
    other = world.wallet()
    world.completed((world.trainer, 5_000), (other, 5_000), reward=1_500_000)
    assert "InsufficientFundsForRent" in world.call("claim_reward").error
    claims = [world.instruction("claim_reward", trainer=who) for who in (world.trainer, other)]
    assert world.send(*claims, signers=[other]).ok
    assert world.balance(vault_address(0)) == 0


def test_a_lamport_of_rounding_blocks_the_last_claim() -> None:
    """Floors leave one lamport over; until someone makes the vault's rent up, the last claim
    fails. Rewards in whole hundred thousands of lamports avoid it."""
    world = World()
    other = world.wallet()
    world.completed((world.trainer, 3_333), (other, 6_667), reward=SOL + 1)
    world.must("claim_reward")
    assert "InsufficientFundsForRent" in world.call("claim_reward", trainer=other).error
    world.svm.airdrop(vault_address(0), RENT_FREE)
    world.must("claim_reward", trainer=other)
    assert world.balance(vault_address(0)) == RENT_FREE + 1


def test_strangers_lamports_do_not_block_a_refund() -> None:
    """The creator gets all that is in the vault."""
    world = World().waiting_validator()
    world.svm.airdrop(vault_address(0), 1)
    before = world.balance(world.creator)
    outcome = world.must("cancel_round")
    assert world.balance(world.creator) - before == SOL + 1
    assert outcome.lines == [f"Round 0 cancelled. Refunded {SOL + 1} lamports"]
    assert world.now == START
