/* Everything an instruction works on, in one struct at the start of the VM's heap. */
#pragma once

#include "borsh.h"

#define LISTED_ACCOUNTS_MAX 7 /* no instruction lists more; later accounts are ignored */
#define LINE_MAX 512
#define EVENT_MAX (12 * 1024) /* more than instruction data (10 KiB in a call by a program) */

typedef struct {
    char text[LINE_MAX];
    u64 len;
} Line;

/* The accounts below as decoded values; state.h reads and writes them. */
typedef struct {
    Account *account;
    u64 count;
    Pubkey authority;
    u8 bump;
} Counter;

typedef struct {
    Account *account;
    u64 id;
    Pubkey creator;
    Slice model_cid;
    u8 dataset;
    u64 reward;
    u8 status;
    Pubkey validator;
    u16 fee_bps;
    u32 baseline_score;
    i64 created_at;
    i64 validator_deadline;
    i64 join_deadline;
    i64 submit_deadline;
    u8 trainers;
    u8 submissions;
    u8 bump;
    u8 vault_bump;
    /* behind the published layout, where no client looks */
    u8 fee_taken;
    i64 validation_deadline;
} Round;

typedef struct {
    Account *account;
    u64 round_id;
    Pubkey trainer;
    Slice gradient_cid;
    u8 submitted;
    u16 contribution_bps;
    u8 reward_claimed;
    u8 bump;
} Submission;

typedef struct {
    const Pubkey *program_id;
    Reader args;        /* instruction data behind the discriminator */
    u64 round_id;       /* the first argument of all instructions but initialize */
    u64 account_count;  /* as given, may exceed the table */
    u64 taken;          /* how many of them have a role by now */
    Account accounts[LISTED_ACCOUNTS_MAX];

    Counter counter;
    Round round;
    Submission submission;
    Account *vault;
    Account *creator;
    Account *validator;
    Account *trainer;
    Account *authority;
    Account *treasury;
    Account *referrer; /* null: none */
    Account *system;

    Clock clock;
    Line line;
    Writer event_writer;
    u8 event[EVENT_MAX];
} Memory;

_Static_assert(sizeof(Memory) <= HEAP_SIZE, "the VM gives a program 32 KiB of heap");

#define memory ((Memory *)HEAP_START)
