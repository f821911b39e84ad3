/* The ways a round ends without a reward: time-outs, cancel, abort. */
#pragma once

#include "rounds.h"

enum ExpireReason { NoValidator, NoneJoined, NoneSubmitted };

static const char expire_reasons[][16] = {"NoValidator", "NoTrainers", "NoSubmissions"};

static void put_refund(u64 lamports) {
    put(". Refunded ");
    put_number(lamports);
    put(" lamports");
    end_line();
}

static u64 expire(enum ExpireReason reason) {
    Round *round = &memory->round;
    u64 refund;
    TRY(refund_creator(&refund));
    round->status = Expired;
    put("Round ");
    put_number(round->id);
    put(" expired (");
    put(expire_reasons[reason]);
    put(")");
    put_refund(refund);

    Writer *event = begin_event(DISCRIMINATOR(0x5d7859ad5c7c4626)); /* RoundExpired */
    write_int(event, round->id, 8);
    write_int(event, reason, 1);
    write_int(event, refund, 8);
    return emit(event);
}

/* Anyone may call it at any time; where no deadline has passed it succeeds and changes nothing. */
static u64 check_round(void) {
    Round *round = &memory->round;
    TRY(read_round_id());
    TRY(take_round());
    TRY(take(&memory->vault, "vault"));
    TRY(take(&memory->creator, "creator"));
    TRY(take_system_program());
    TRY(constrain_mut_round());
    TRY(constrain_has_one("round", &round->creator, memory->creator));
    TRY(constrain_vault());
    TRY(constrain_mut(memory->creator, "creator"));

    i64 time = now();
    if (round->status == WaitingValidator && time > round->validator_deadline) {
        TRY(expire(NoValidator));
    } else if (round->status == WaitingTrainers && time > round->join_deadline &&
               round->trainers == 0) {
        TRY(expire(NoneJoined));
    } else if (round->status == Training && time > round->submit_deadline) {
        if (round->submissions == 0) {
            TRY(expire(NoneSubmitted));
        } else {
            put("Training ended for round ");
            put_number(round->id);
            put(". Submissions: ");
            put_number(round->submissions);
            end_line();
            TRY(begin_validation(time));
        }
    } else if (round->status == Validating && time > round->validation_deadline) {
        TRY(expire(NoneSubmitted)); /* the contract has no reason of its own for this one */
    } else {
        return 0;
    }
    return store_round();
}

static u64 cancel_round(void) {
    Round *round = &memory->round;
    u64 refund;
    TRY(read_round_id());
    TRY(take_round());
    TRY(take(&memory->vault, "vault"));
    TRY(take_signer(&memory->creator, "creator"));
    TRY(take_system_program());
    TRY(constrain_mut_round());
    TRY(constrain_has_one("round", &round->creator, memory->creator));
    TRY(constrain_vault());
    TRY(constrain_mut(memory->creator, "creator"));

    REQUIRE(round->status == WaitingValidator, CannotCancel);

    round->status = Cancelled;
    TRY(refund_creator(&refund));
    TRY(store_round());
    put("Round ");
    put_number(round->id);
    put(" cancelled");
    put_refund(refund);

    Writer *event = begin_event(DISCRIMINATOR(0xee8d69afb69e0f07)); /* RoundCancelled */
    write_int(event, round->id, 8);
    return emit(event);
}

#ifndef DECLOUD_V1_0
static u64 abort_round(void) {
    Round *round = &memory->round;
    u64 refund;
    TRY(read_round_id());
    TRY(take_round());
    TRY(take(&memory->vault, "vault"));
    TRY(take(&memory->creator, "creator"));
    TRY(take_signer(&memory->validator, "validator"));
    TRY(take_system_program());
    TRY(constrain_mut_round());
    TRY(constrain_vault());
    TRY(constrain_mut(memory->creator, "creator"));
    TRY(constrain_mut(memory->validator, "validator"));

    REQUIRE(round->status == WaitingTrainers || round->status == Training ||
                round->status == Validating,
            CannotAbort);
    REQUIRE(same_key(&round->validator, memory->validator->key), NotValidator);
    REQUIRE(same_key(&round->creator, memory->creator->key), InvalidCreator);

    round->status = Cancelled;
    TRY(refund_creator(&refund));
    TRY(store_round());
    put("Round ");
    put_number(round->id);
    put(" aborted by validator ");
    put_key(&round->validator);
    put_refund(refund);

    Writer *event = begin_event(DISCRIMINATOR(0x5aa0a1418555454c)); /* RoundAborted */
    write_int(event, round->id, 8);
    write_key(event, &round->validator);
    write_int(event, refund, 8);
    return emit(event);
}
#endif
