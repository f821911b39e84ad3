/* A round from its creation to the end of training. Each handler: arguments, accounts, rules,
 * effects, then the log line and the event that tell the world. */
#pragma once

#include "money.h"

static u64 read_round_id(void) {
    memory->round_id = read_int(&memory->args, 8);
    return memory->args.broken ? fail(InstructionDidNotDeserialize) : 0;
}

static i64 now(void) {
    sol_get_clock_sysvar(&memory->clock);
    return memory->clock.unix_timestamp;
}

static u64 is_cid(const Slice *text) { return text->len >= CID_MIN && text->len <= CID_MAX; }

static u64 initialize(void) {
    Counter *counter = &memory->counter;
    TRY(take(&counter->account, "round_counter"));
    TRY(take_signer(&memory->authority, "authority"));
    TRY(take_system_program());
    TRY(create_counter(memory->authority));
    TRY(constrain_mut(memory->authority, "authority"));

    counter->count = 0;
    counter->authority = *memory->authority->key;
    return store_counter();
}

static u64 create_round(void) {
    Round *round = &memory->round;
    Counter *counter = &memory->counter;
    TRY(read_round_id());
    read_string(&memory->args, &round->model_cid);
    round->dataset = read_variant(&memory->args, LAST_DATASET);
    round->reward = read_int(&memory->args, 8);
    if (memory->args.broken) return fail(InstructionDidNotDeserialize);

    TRY(take_counter());
    TRY(take(&round->account, "round"));
    TRY(take(&memory->vault, "vault"));
    TRY(take_signer(&memory->creator, "creator"));
    TRY(take_system_program());
    TRY(create_round_account(memory->creator));
    TRY(constrain_counter());
    TRY(constrain_new_vault());
    TRY(constrain_mut(memory->creator, "creator"));

    REQUIRE(is_cid(&round->model_cid), InvalidCid);
    REQUIRE(round->reward > 0, ZeroReward);
    REQUIRE(memory->round_id == counter->count, InvalidRoundId);

    if (counter->count == U64_MAX) return ARITHMETIC_OVERFLOW;
    counter->count += 1;
    round->id = memory->round_id;
    round->creator = *memory->creator->key;
    round->status = WaitingValidator;
    round->fee_bps = (u16)start_parameters.fee_bps;
    round->created_at = now();
    TRY(after(round->created_at, start_parameters.validator_s, &round->validator_deadline));
    TRY(transfer(memory->creator, memory->vault, round->reward, 0));
    TRY(store_counter());
    TRY(store_round());

    put("Round ");
    put_number(round->id);
    put(" created. Model: ");
    put_bytes(round->model_cid.at, round->model_cid.len);
    put(", Dataset: ");
    put(dataset_names[round->dataset]);
    put(", Reward: ");
    put_number(round->reward);
    put(" lamports");
    end_line();

    Writer *event = begin_event(DISCRIMINATOR(0x1013447557c6077c)); /* RoundCreated */
    write_int(event, round->id, 8);
    write_key(event, &round->creator);
    write_string(event, &round->model_cid);
    write_int(event, round->dataset, 1);
    write_int(event, round->reward, 8);
    write_int(event, (u64)round->validator_deadline, 8);
    return emit(event);
}

static u64 claim_round(void) {
    Round *round = &memory->round;
    TRY(read_round_id());
    TRY(take_round());
    TRY(take_signer(&memory->validator, "validator"));
    TRY(constrain_mut_round());
    TRY(constrain_mut(memory->validator, "validator"));

    i64 time = now();
    REQUIRE(round->status == WaitingValidator, RoundNotWaitingValidator);
    REQUIRE(time <= round->validator_deadline, ValidatorDeadlinePassed);

    round->validator = *memory->validator->key;
    round->status = WaitingTrainers;
    TRY(after(time, start_parameters.join_s, &round->join_deadline));
    TRY(store_round());

    put("Round ");
    put_number(round->id);
    put(" claimed by validator ");
    put_key(&round->validator);
    put(". Join deadline: ");
    put_signed(round->join_deadline);
    end_line();

    Writer *event = begin_event(DISCRIMINATOR(0x9067f0c197b7ef3d)); /* ValidatorClaimed */
    write_int(event, round->id, 8);
    write_key(event, &round->validator);
    write_int(event, (u64)round->join_deadline, 8);
    return emit(event);
}

static u64 join_round(void) {
    Round *round = &memory->round;
    Submission *submission = &memory->submission;
    TRY(read_round_id());
    TRY(take_round());
    TRY(take(&submission->account, "submission"));
    TRY(take_signer(&memory->trainer, "trainer"));
    TRY(take_system_program());
    TRY(create_submission(memory->trainer));
    TRY(constrain_mut_round());
    TRY(constrain_mut(memory->trainer, "trainer"));

    REQUIRE(round->status == WaitingTrainers, RoundNotWaitingTrainers);
    REQUIRE(now() <= round->join_deadline, JoinDeadlinePassed);
    REQUIRE(round->trainers < start_parameters.max_trainers, MaxTrainersReached);

    round->trainers += 1; /* below max_trainers, which is at most 255 */
    submission->round_id = round->id;
    submission->trainer = *memory->trainer->key;
    TRY(store_submission());
    TRY(store_round());

    put("Trainer ");
    put_key(&submission->trainer);
    put(" joined round ");
    put_number(round->id);
    put(". Total trainers: ");
    put_number(round->trainers);
    end_line();

    Writer *event = begin_event(DISCRIMINATOR(0x2c0ac486b8b15956)); /* TrainerJoined */
    write_int(event, round->id, 8);
    write_key(event, &submission->trainer);
    write_int(event, round->trainers, 1);
    return emit(event);
}

static u64 start_training(void) {
    Round *round = &memory->round;
    TRY(read_round_id());
    u32 baseline_score = (u32)read_int(&memory->args, 4);
    if (memory->args.broken) return fail(InstructionDidNotDeserialize);
    TRY(take_round());
    TRY(take_signer(&memory->validator, "validator"));
    TRY(constrain_mut_round());
    TRY(constrain_mut(memory->validator, "validator"));

    REQUIRE(round->status == WaitingTrainers, RoundNotWaitingTrainers);
    REQUIRE(same_key(&round->validator, memory->validator->key), NotValidator);
    REQUIRE(round->trainers > 0, NoTrainers);

    round->baseline_score = baseline_score;
    round->status = Training;
    TRY(after(now(), start_parameters.submit_s, &round->submit_deadline));
    TRY(store_round());

    put("Training started for round ");
    put_number(round->id);
    put(". Baseline: ");
    put_number(baseline_score);
    put(", Submit deadline: ");
    put_signed(round->submit_deadline);
    end_line();

    Writer *event = begin_event(DISCRIMINATOR(0x7103d2316c59bd52)); /* TrainingStarted */
    write_int(event, round->id, 8);
    write_int(event, baseline_score, 4);
    write_int(event, (u64)round->submit_deadline, 8);
    write_int(event, round->trainers, 1);
    return emit(event);
}

/* The caller stores the round. */
static u64 begin_validation(i64 time) {
    Round *round = &memory->round;
    round->status = Validating;
    TRY(after(time, start_parameters.validation_s, &round->validation_deadline));
    Writer *event = begin_event(DISCRIMINATOR(0x18339f73ca5d54bb)); /* TrainingEnded */
    write_int(event, round->id, 8);
    write_int(event, round->submissions, 1);
    return emit(event);
}

static u64 submit_gradients(void) {
    Round *round = &memory->round;
    Submission *submission = &memory->submission;
    Slice cid;
    TRY(read_round_id());
    read_string(&memory->args, &cid);
    if (memory->args.broken) return fail(InstructionDidNotDeserialize);
    TRY(take_round());
    TRY(take_submission());
    TRY(take_signer(&memory->trainer, "trainer"));
    TRY(constrain_mut_round());
    TRY(constrain_submission(memory->trainer->key));
    TRY(constrain_has_one("submission", &submission->trainer, memory->trainer));
    TRY(constrain_mut(memory->trainer, "trainer"));

    i64 time = now();
    REQUIRE(is_cid(&cid), InvalidCid);
    REQUIRE(round->status == Training, RoundNotTraining);
    REQUIRE(time <= round->submit_deadline, SubmitDeadlinePassed);
    REQUIRE(!submission->submitted, AlreadySubmitted);

    submission->gradient_cid = cid;
    submission->submitted = 1;
    if (round->submissions == 255) return ARITHMETIC_OVERFLOW;
    round->submissions += 1;
    TRY(store_submission());

    put("Trainer ");
    put_key(&submission->trainer);
    put(" submitted gradients for round ");
    put_number(round->id);
    put(". CID: ");
    put_bytes(cid.at, cid.len);
    end_line();

    Writer *event = begin_event(DISCRIMINATOR(0xecb8808791fdbb0d)); /* GradientsSubmitted */
    write_int(event, round->id, 8);
    write_key(event, &submission->trainer);
    write_string(event, &cid);
    write_int(event, round->submissions, 1);
    TRY(emit(event));

    if (round->submissions == round->trainers) {
        put("All ");
        put_number(round->trainers);
        put(" trainers submitted. Moving to validation.");
        end_line();
        TRY(begin_validation(time));
    }
    return store_round();
}
