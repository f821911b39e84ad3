/* The accounts of an instruction, checked as Anchor checks them.
 *
 * Anchor goes through an instruction's list in three rounds, and so does every handler here:
 * first each account in list order is taken and decoded (`take_...`), then new accounts are
 * created (`create_...`), then the remaining constraints hold in list order (`constrain_...`).
 * Within one account: seeds, then mut, then relations.
 */
#pragma once

#include "params.h"
#include "text.h"

/* Reads the input region: accounts, instruction data, program id. See svm.h for the layout. */
static void parse_input(u8 *at) {
    u64 count = *(u64 *)at;
    at += 8;
    memory->account_count = count;
    for (u64 i = 0; i < count; i++) {
        u8 duplicate_of = at[0]; /* the index of an earlier account, or 0xff */
        Account beyond;          /* one behind the table: read only to get past it */
        Account *account = i < LISTED_ACCOUNTS_MAX ? &memory->accounts[i] : &beyond;
        if (duplicate_of != 0xff) {
            if (i < LISTED_ACCOUNTS_MAX) *account = memory->accounts[duplicate_of];
            at += 8;
            continue;
        }
        account->is_signer = at[1];
        account->is_writable = at[2];
        account->executable = at[3];
        account->key = (Pubkey *)(at + 8);
        account->owner = (Pubkey *)(at + 40);
        account->lamports = (u64 *)(at + 72);
        account->data_len = *(u64 *)(at + 80);
        account->data = at + 88;
        at += 88 + account->data_len + INPUT_GROWTH;
        at = (u8 *)(((u64)at + 7) & ~7UL);
        account->rent_epoch = *(u64 *)at;
        at += 8;
    }
    memory->args.left = *(u64 *)at;
    memory->args.at = at + 8;
    memory->program_id = (const Pubkey *)(at + 8 + memory->args.left);
}

/* ---- first: take and decode ---- */

static u64 take(Account **account, const char *name) {
    if (memory->taken >= memory->account_count || memory->taken >= LISTED_ACCOUNTS_MAX)
        return fail_at(name, AccountNotEnoughKeys);
    *account = &memory->accounts[memory->taken++];
    return 0;
}

static u64 take_signer(Account **account, const char *name) {
    TRY(take(account, name));
    return (*account)->is_signer ? 0 : fail_at(name, AccountNotSigner);
}

static u64 take_system_program(void) {
    const char *name = "system_program";
    TRY(take(&memory->system, name));
    if (!same_key(memory->system->key, &SYSTEM_PROGRAM))
        return fail_keys(name, InvalidProgramId, memory->system->key, &SYSTEM_PROGRAM);
    return memory->system->executable ? 0 : fail_at(name, InvalidProgramExecutable);
}

/* An account of this program with that discriminator; `data` is what follows it. */
static u64 take_owned(Account **account, const char *name, u64 discriminator, Reader *data) {
    TRY(take(account, name));
    Account *taken = *account;
    if (same_key(taken->owner, &SYSTEM_PROGRAM) && *taken->lamports == 0)
        return fail_at(name, AccountNotInitialized);
    if (!same_key(taken->owner, memory->program_id))
        return fail_keys(name, AccountOwnedByWrongProgram, taken->owner, memory->program_id);
    data->at = taken->data;
    data->left = taken->data_len;
    data->broken = 0;
    if (data->left < 8) return fail_at(name, AccountDiscriminatorNotFound);
    if (read_int(data, 8) != discriminator) return fail_at(name, AccountDiscriminatorMismatch);
    return 0;
}

/* ---- last: constraints ---- */

static u64 constrain_mut(const Account *account, const char *name) {
    return account->is_writable ? 0 : fail_at(name, ConstraintMut);
}

/* The account is the address that `seeds`, the bump among them, give. */
static u64 constrain_seeds(const Account *account, const char *name, const Slice *seeds,
                           u64 count) {
    Pubkey address;
    if (sol_create_program_address(seeds, count, memory->program_id, &address))
        return fail_at(name, ConstraintSeeds);
    if (!same_key(account->key, &address))
        return fail_keys(name, ConstraintSeeds, account->key, &address);
    return 0;
}

static u64 constrain_has_one(const char *name, const Pubkey *stored, const Account *given) {
    if (same_key(stored, given->key)) return 0;
    return fail_keys(name, ConstraintHasOne, stored, given->key);
}

/* ---- calls to the system program ---- */

enum { SYSTEM_CREATE = 0, SYSTEM_ASSIGN = 1, SYSTEM_TRANSFER = 2, SYSTEM_ALLOCATE = 8 };

/* `to` is null for instructions about `from` alone; `seeds` sign for a program address. */
static u64 call_system(const u8 *data, u64 data_len, const Account *from, const Account *to,
                       const SignerSeeds *seeds) {
    AccountMeta metas[2];
    Instruction instruction = {&SYSTEM_PROGRAM, metas, to ? 2 : 1, data, data_len};
    u64 accounts = memory->account_count;
    if (accounts > LISTED_ACCOUNTS_MAX) accounts = LISTED_ACCOUNTS_MAX;

    metas[0].key = from->key;
    metas[0].is_writable = metas[0].is_signer = 1;
    if (to) {
        metas[1].key = to->key;
        metas[1].is_writable = 1;
        metas[1].is_signer = data[0] == SYSTEM_CREATE;
    }
    /* A failure inside ends the whole transaction there; nothing returns. */
    return sol_invoke_signed_c(&instruction, memory->accounts, accounts, seeds, seeds ? 1 : 0);
}

static void begin_system_data(Writer *data, u8 *buffer, u64 size, u32 instruction) {
    data->at = buffer;
    data->left = size;
    data->broken = 0;
    write_int(data, instruction, 4);
}

static u64 transfer(const Account *from, const Account *to, u64 lamports,
                    const SignerSeeds *seeds) {
    u8 buffer[12];
    Writer data;
    if (lamports == 0) return 0;
    begin_system_data(&data, buffer, sizeof buffer, SYSTEM_TRANSFER);
    write_int(&data, lamports, 8);
    return call_system(buffer, sizeof buffer, from, to, seeds);
}

/* A new, rent-exempt account of this program at a program address.
 *
 * The system program refuses to create at an address that holds lamports, which anyone can send
 * there; then the account is topped up, allocated and assigned instead, as Anchor does it. If it
 * exists already, either way ends in the system program's "already in use" (custom error 0).
 */
static u64 create_account(Account *account, const Account *payer, u64 space,
                          const SignerSeeds *seeds) {
    u64 rent = (ACCOUNT_OVERHEAD + space) * LAMPORTS_PER_BYTE;
    u64 held = *account->lamports;
    u8 buffer[52];
    Writer data;

    if (held == 0) {
        begin_system_data(&data, buffer, sizeof buffer, SYSTEM_CREATE);
        write_int(&data, rent, 8);
        write_int(&data, space, 8);
        write_key(&data, memory->program_id);
        return call_system(buffer, 52, payer, account, seeds);
    }
    TRY(transfer(payer, account, held < rent ? rent - held : 0, 0));
    begin_system_data(&data, buffer, sizeof buffer, SYSTEM_ALLOCATE);
    write_int(&data, space, 8);
    TRY(call_system(buffer, 12, account, 0, seeds));
    begin_system_data(&data, buffer, sizeof buffer, SYSTEM_ASSIGN);
    write_key(&data, memory->program_id);
    return call_system(buffer, 36, account, 0, seeds);
}
