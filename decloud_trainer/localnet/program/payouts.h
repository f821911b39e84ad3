/* Validation and what is paid after it. */
#pragma once

#include "endings.h"

static u64 set_contribution(void) {
    Round *round = &memory->round;
    Submission *submission = &memory->submission;
    TRY(read_round_id());
    u16 contribution_bps = (u16)read_int(&memory->args, 2);
    if (memory->args.broken) return fail(InstructionDidNotDeserialize);
    TRY(take_round());
    TRY(take_submission());
    TRY(take_signer(&memory->validator, "validator"));
    TRY(constrain_round());
    TRY(constrain_submission(&submission->trainer));

    REQUIRE(round->status == Validating, RoundNotValidating);
    REQUIRE(same_key(&round->validator, memory->validator->key), NotValidator);

    /* The round is read-only here: nothing adds the contributions up. */
    submission->contribution_bps = contribution_bps;
    return store_submission();
}

/* Marks the fee as taken and pays it; the caller stores the round. */
static u64 pay_validator_fee(void) {
    Round *round = &memory->round;
    Fees fees;
    u64 fee;
    REQUIRE(!round->fee_taken, FeeAlreadyClaimed);
    round->fee_taken = 1;
    TRY(validator_fee(&fee));
    TRY(pay_out(memory->validator, fee, &fees));

    put("Validator ");
    put_key(&round->validator);
    put(" claimed ");
    put_number(fee);
    put(" lamports fee from round ");
    put_number(round->id);
    end_line();

    Writer *event = begin_event(DISCRIMINATOR(0x10b4381efbff55fb)); /* ValidatorFeeClaimed */
    write_int(event, round->id, 8);
    write_key(event, &round->validator);
    write_int(event, fee, 8);
    write_fees(event, &fees);
    return emit(event);
}

/* The account list that complete_validation and claim_validator_fee share. */
static u64 load_validator_payout(void) {
    TRY(read_round_id());
    TRY(take_round());
    TRY(take(&memory->vault, "vault"));
    TRY(take_fee_accounts());
    TRY(take_signer(&memory->validator, "validator"));
    TRY(take_system_program());
    TRY(constrain_mut_round());
    TRY(constrain_vault());
    TRY(constrain_fee_accounts());
    return constrain_mut(memory->validator, "validator");
}

static u64 complete_validation(void) {
    Round *round = &memory->round;
    TRY(load_validator_payout());

    REQUIRE(round->status == Validating, RoundNotValidating);
    REQUIRE(same_key(&round->validator, memory->validator->key), NotValidator);

    round->status = Completed;
    put("Round ");
    put_number(round->id);
    put(" validation completed");
    end_line();
    Writer *event = begin_event(DISCRIMINATOR(0x4acd1cc617aef194)); /* ValidationCompleted */
    write_int(event, round->id, 8);
    TRY(emit(event));
    TRY(pay_validator_fee());
    return store_round();
}

static u64 claim_validator_fee(void) {
    Round *round = &memory->round;
    TRY(load_validator_payout());

    REQUIRE(round->status == Completed, RoundNotCompleted);
    REQUIRE(same_key(&round->validator, memory->validator->key), NotValidator);

    TRY(pay_validator_fee());
    return store_round();
}

/* The other way to complete a round: the results in one call, no money moves. The submissions
 * aren't in the account list, so their contributions must have been set before; the results only
 * have to add up and go into the event. */
static u64 finalize_round(void) {
    Round *round = &memory->round;
    TRY(read_round_id());
    Reader results = memory->args;
    u64 count = read_int(&memory->args, 4);
    u64 sum = 0;
    for (u64 i = 0; i < count && !memory->args.broken; i++) {
        read_bytes(&memory->args, sizeof(Pubkey));
        sum += read_int(&memory->args, 2);
    }
    if (memory->args.broken) return fail(InstructionDidNotDeserialize);
    TRY(take_round());
    TRY(take_signer(&memory->validator, "validator"));
    TRY(constrain_mut_round());

    REQUIRE(round->status == Validating, RoundNotValidating);
    REQUIRE(same_key(&round->validator, memory->validator->key), NotValidator);
    REQUIRE(sum == ALL_BPS, InvalidContributionSum);

    u64 fee, pool;
    TRY(validator_fee(&fee));
    TRY(trainers_pool(&pool));
    round->status = Completed;
    TRY(store_round());

    put("Round ");
    put_number(round->id);
    put(" validation completed. Validator fee: ");
    put_number(fee);
    put(", Trainers pool: ");
    put_number(pool);
    end_line();

    Writer *event = begin_event(DISCRIMINATOR(0x2bbb11c124f13052)); /* RoundFinalized */
    write_int(event, round->id, 8);
    write_int(event, fee, 8);
    write_int(event, pool, 8);
    write_bytes(event, results.at, (u64)(memory->args.at - results.at));
    return emit(event);
}

static u64 claim_reward(void) {
    Round *round = &memory->round;
    Submission *submission = &memory->submission;
    Fees fees;
    TRY(read_round_id());
    TRY(take_round());
    TRY(take_submission());
    TRY(take(&memory->vault, "vault"));
    TRY(take_fee_accounts());
    TRY(take_signer(&memory->trainer, "trainer"));
    TRY(take_system_program());
    TRY(constrain_round());
    TRY(constrain_submission(memory->trainer->key));
    TRY(constrain_has_one("submission", &submission->trainer, memory->trainer));
    TRY(constrain_vault());
    TRY(constrain_fee_accounts());
    TRY(constrain_mut(memory->trainer, "trainer"));

    REQUIRE(round->status == Completed, RoundNotCompleted);
    REQUIRE(submission->submitted, NotSubmitted);
    REQUIRE(!submission->reward_claimed, RewardAlreadyClaimed);
    REQUIRE(submission->contribution_bps > 0, NoContribution);

    u64 pool, reward;
    TRY(trainers_pool(&pool));
    TRY(share(pool, submission->contribution_bps, &reward));
    submission->reward_claimed = 1;
    TRY(pay_out(memory->trainer, reward, &fees));
    TRY(store_submission());

    put("Trainer ");
    put_key(&submission->trainer);
    put(" claimed ");
    put_number(reward);
    put(" lamports from round ");
    put_number(round->id);
    end_line();

    Writer *event = begin_event(DISCRIMINATOR(0x311c57549e30e5af)); /* RewardClaimed */
    write_int(event, round->id, 8);
    write_key(event, &submission->trainer);
    write_int(event, reward, 8);
    write_fees(event, &fees);
    return emit(event);
}
