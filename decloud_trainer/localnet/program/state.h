/* The program's accounts: layouts, addresses, decoding, creation. */
#pragma once

#include "accounts.h"
#include "datasets.h"

#define COUNTER_DISCRIMINATOR DISCRIMINATOR(0xf402a5f0a80a01ee)
#define ROUND_DISCRIMINATOR DISCRIMINATOR(0x577fa533494e74ae)
#define SUBMISSION_DISCRIMINATOR DISCRIMINATOR(0x3ac29f9e4b66b2c5)

#define COUNTER_SPACE 49
#define ROUND_SPACE 208
#define SUBMISSION_SPACE 121
/* 200 bytes hold a round with the longest CID. Behind them one little-endian u64: bit 0..7 is
 * "the validator fee has been paid", the rest the end of validation in Unix seconds. */
#define ROUND_TAIL 200
#define LATEST_TIME ((1L << 55) - 1)

enum RoundStatus {
    WaitingValidator,
    WaitingTrainers,
    Training,
    Validating,
    Completed,
    Expired,
    Cancelled,
};

/* One seed of an address; BPF can't return a struct of two words, so this is no function. */
#define SEED(at, len) {(const u8 *)(at), len}

/* ---- round counter ---- */

static u64 take_counter(void) {
    Counter *counter = &memory->counter;
    Reader data;
    TRY(take_owned(&counter->account, "round_counter", COUNTER_DISCRIMINATOR, &data));
    counter->count = read_int(&data, 8);
    read_key(&data, &counter->authority);
    counter->bump = (u8)read_int(&data, 1);
    return data.broken ? fail_at("round_counter", AccountDidNotDeserialize) : 0;
}

static u64 store_counter(void) {
    const Counter *counter = &memory->counter;
    Writer data = {counter->account->data, counter->account->data_len, 0};
    write_int(&data, COUNTER_DISCRIMINATOR, 8);
    write_int(&data, counter->count, 8);
    write_key(&data, &counter->authority);
    write_int(&data, counter->bump, 1);
    return data.broken ? fail_at("round_counter", AccountDidNotSerialize) : 0;
}

static u64 constrain_counter(void) {
    const Counter *counter = &memory->counter;
    Slice seeds[2] = {SEED("round_counter", 13), SEED(&counter->bump, 1)};
    TRY(constrain_seeds(counter->account, "round_counter", seeds, 2));
    return constrain_mut(counter->account, "round_counter");
}

static u64 create_counter(const Account *payer) {
    Counter *counter = &memory->counter;
    Slice seeds[2] = {SEED("round_counter", 13), SEED(&counter->bump, 1)};
    SignerSeeds signer = {seeds, 2};
    Pubkey address;
    sol_try_find_program_address(seeds, 1, memory->program_id, &address, &counter->bump);
    if (!same_key(counter->account->key, &address))
        return fail_keys("round_counter", ConstraintSeeds, counter->account->key, &address);
    return create_account(counter->account, payer, COUNTER_SPACE, &signer);
}

/* ---- round ---- */

static u64 take_round(void) {
    Round *round = &memory->round;
    Reader data;
    TRY(take_owned(&round->account, "round", ROUND_DISCRIMINATOR, &data));
    round->id = read_int(&data, 8);
    read_key(&data, &round->creator);
    read_string(&data, &round->model_cid);
    round->dataset = read_variant(&data, LAST_DATASET);
    round->reward = read_int(&data, 8);
    round->status = read_variant(&data, Cancelled);
    read_key(&data, &round->validator);
    round->fee_bps = (u16)read_int(&data, 2);
    round->baseline_score = (u32)read_int(&data, 4);
    round->created_at = (i64)read_int(&data, 8);
    round->validator_deadline = (i64)read_int(&data, 8);
    round->join_deadline = (i64)read_int(&data, 8);
    round->submit_deadline = (i64)read_int(&data, 8);
    round->trainers = (u8)read_int(&data, 1);
    round->submissions = (u8)read_int(&data, 1);
    round->bump = (u8)read_int(&data, 1);
    round->vault_bump = (u8)read_int(&data, 1);
    if (data.broken || round->model_cid.len > CID_MAX || round->account->data_len < ROUND_SPACE)
        return fail_at("round", AccountDidNotDeserialize);
    data.at = round->account->data + ROUND_TAIL;
    data.left = 8;
    round->fee_taken = (u8)read_int(&data, 1);
    round->validation_deadline = (i64)read_int(&data, 7);
    return 0;
}

static u64 store_round(void) {
    const Round *round = &memory->round;
    Writer data = {round->account->data, round->account->data_len, 0};
    write_int(&data, ROUND_DISCRIMINATOR, 8);
    write_int(&data, round->id, 8);
    write_key(&data, &round->creator);
    write_string(&data, &round->model_cid);
    write_int(&data, round->dataset, 1);
    write_int(&data, round->reward, 8);
    write_int(&data, round->status, 1);
    write_key(&data, &round->validator);
    write_int(&data, round->fee_bps, 2);
    write_int(&data, round->baseline_score, 4);
    write_int(&data, (u64)round->created_at, 8);
    write_int(&data, (u64)round->validator_deadline, 8);
    write_int(&data, (u64)round->join_deadline, 8);
    write_int(&data, (u64)round->submit_deadline, 8);
    write_int(&data, round->trainers, 1);
    write_int(&data, round->submissions, 1);
    write_int(&data, round->bump, 1);
    write_int(&data, round->vault_bump, 1);
    if (data.broken || round->account->data_len < ROUND_SPACE)
        return fail_at("round", AccountDidNotSerialize);
    data.at = round->account->data + ROUND_TAIL;
    data.left = 8;
    write_int(&data, round->fee_taken, 1);
    write_int(&data, (u64)round->validation_deadline, 7);
    return 0;
}

/* The round at the address of the id that the instruction names. */
static u64 constrain_round(void) {
    const Round *round = &memory->round;
    Slice seeds[3] = {SEED("round", 5), SEED(&memory->round_id, 8), SEED(&round->bump, 1)};
    return constrain_seeds(round->account, "round", seeds, 3);
}

static u64 constrain_mut_round(void) {
    TRY(constrain_round());
    return constrain_mut(memory->round.account, "round");
}

static u64 create_round_account(const Account *payer) {
    Round *round = &memory->round;
    Slice seeds[3] = {SEED("round", 5), SEED(&memory->round_id, 8), SEED(&round->bump, 1)};
    SignerSeeds signer = {seeds, 3};
    Pubkey address;
    sol_try_find_program_address(seeds, 2, memory->program_id, &address, &round->bump);
    if (!same_key(round->account->key, &address))
        return fail_keys("round", ConstraintSeeds, round->account->key, &address);
    return create_account(round->account, payer, ROUND_SPACE, &signer);
}

/* ---- vault: a system account without data, the round's money ---- */

static u64 constrain_vault(void) {
    Slice seeds[3] = {SEED("vault", 5), SEED(&memory->round_id, 8),
                      SEED(&memory->round.vault_bump, 1)};
    TRY(constrain_seeds(memory->vault, "vault", seeds, 3));
    return constrain_mut(memory->vault, "vault");
}

/* For a round that doesn't exist yet: finds the bump as well. */
static u64 constrain_new_vault(void) {
    Slice seeds[2] = {SEED("vault", 5), SEED(&memory->round_id, 8)};
    Pubkey address;
    sol_try_find_program_address(seeds, 2, memory->program_id, &address,
                                 &memory->round.vault_bump);
    if (!same_key(memory->vault->key, &address))
        return fail_keys("vault", ConstraintSeeds, memory->vault->key, &address);
    return constrain_mut(memory->vault, "vault");
}

static u64 pay_from_vault(const Account *to, u64 lamports) {
    Slice seeds[3] = {SEED("vault", 5), SEED(&memory->round_id, 8),
                      SEED(&memory->round.vault_bump, 1)};
    SignerSeeds signer = {seeds, 3};
    return transfer(memory->vault, to, lamports, &signer);
}

/* ---- submission ---- */

static u64 take_submission(void) {
    Submission *submission = &memory->submission;
    Reader data;
    TRY(take_owned(&submission->account, "submission", SUBMISSION_DISCRIMINATOR, &data));
    submission->round_id = read_int(&data, 8);
    read_key(&data, &submission->trainer);
    read_string(&data, &submission->gradient_cid);
    submission->submitted = read_bool(&data);
    submission->contribution_bps = (u16)read_int(&data, 2);
    submission->reward_claimed = read_bool(&data);
    submission->bump = (u8)read_int(&data, 1);
    return data.broken ? fail_at("submission", AccountDidNotDeserialize) : 0;
}

static u64 store_submission(void) {
    const Submission *submission = &memory->submission;
    Writer data = {submission->account->data, submission->account->data_len, 0};
    write_int(&data, SUBMISSION_DISCRIMINATOR, 8);
    write_int(&data, submission->round_id, 8);
    write_key(&data, &submission->trainer);
    write_string(&data, &submission->gradient_cid);
    write_int(&data, submission->submitted, 1);
    write_int(&data, submission->contribution_bps, 2);
    write_int(&data, submission->reward_claimed, 1);
    write_int(&data, submission->bump, 1);
    return data.broken ? fail_at("submission", AccountDidNotSerialize) : 0;
}

/* The submission of that trainer to the round that the instruction names. */
static u64 constrain_submission(const Pubkey *trainer) {
    const Submission *submission = &memory->submission;
    Slice seeds[4] = {SEED("submission", 10), SEED(&memory->round_id, 8),
                      SEED(trainer, sizeof(Pubkey)), SEED(&submission->bump, 1)};
    TRY(constrain_seeds(submission->account, "submission", seeds, 4));
    return constrain_mut(submission->account, "submission");
}

static u64 create_submission(const Account *trainer) {
    Submission *submission = &memory->submission;
    Slice seeds[4] = {SEED("submission", 10), SEED(&memory->round_id, 8),
                      SEED(trainer->key, sizeof(Pubkey)), SEED(&submission->bump, 1)};
    SignerSeeds signer = {seeds, 4};
    Pubkey address;
    sol_try_find_program_address(seeds, 3, memory->program_id, &address, &submission->bump);
    if (!same_key(submission->account->key, &address))
        return fail_keys("submission", ConstraintSeeds, submission->account->key, &address);
    return create_account(submission->account, trainer, SUBMISSION_SPACE, &signer);
}
