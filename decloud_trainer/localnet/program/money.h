/* Amounts: floors, nothing overflows unnoticed. */
#pragma once

#include "state.h"

#define PLATFORM_FEE_PERCENT 2UL

/* floor(amount * bps / 10000), exact also where the product doesn't fit in 64 bits. */
static u64 share(u64 amount, u64 bps, u64 *part) {
    u64 whole = amount / ALL_BPS;
    u64 rest = amount % ALL_BPS * bps / ALL_BPS;
    if (bps && whole > (U64_MAX - rest) / bps) return ARITHMETIC_OVERFLOW;
    *part = whole * bps + rest;
    return 0;
}

static u64 validator_fee(u64 *fee) {
    return share(memory->round.reward, memory->round.fee_bps, fee);
}

static u64 trainers_pool(u64 *pool) {
    u64 fee;
    TRY(validator_fee(&fee));
    if (fee > memory->round.reward) return ARITHMETIC_OVERFLOW;
    *pool = memory->round.reward - fee;
    return 0;
}

static u64 after(i64 start, i64 seconds, i64 *end) {
    if (__builtin_add_overflow(start, seconds, end) || *end > LATEST_TIME || *end < 0)
        return ARITHMETIC_OVERFLOW;
    return 0;
}

typedef struct {
    u64 treasury;
    u64 referrer;
} Fees;

/* Pays `gross` out of the vault: the platform's part to treasury and referrer, the rest to `to`.
 * The odd lamport of a halved fee is the treasury's. v1.0 knows no platform fee. */
static u64 pay_out(const Account *to, u64 gross, Fees *fees) {
    fees->treasury = fees->referrer = 0;
#ifndef DECLOUD_V1_0
    u64 fee = gross / 100 * PLATFORM_FEE_PERCENT + gross % 100 * PLATFORM_FEE_PERCENT / 100;
    fees->referrer = memory->referrer ? fee / 2 : 0;
    fees->treasury = fee - fees->referrer;
    TRY(pay_from_vault(memory->treasury, fees->treasury));
    if (memory->referrer) TRY(pay_from_vault(memory->referrer, fees->referrer));
#endif
    return pay_from_vault(to, gross - fees->treasury - fees->referrer);
}

/* Back to the creator goes all that the vault holds: lamports that a stranger sent there would
 * otherwise stay behind as dust, for which the runtime refuses the whole transaction. */
static u64 refund_creator(u64 *lamports) {
    *lamports = *memory->vault->lamports;
    return pay_from_vault(memory->creator, *lamports);
}

/* ---- account lists that payouts share ---- */

static u64 take_fee_accounts(void) {
#ifndef DECLOUD_V1_0
    TRY(take(&memory->treasury, "treasury"));
    TRY(take(&memory->referrer, "referrer"));
    /* Anchor's "none": the program itself in the slot of an optional account */
    if (same_key(memory->referrer->key, memory->program_id)) memory->referrer = 0;
#endif
    return 0;
}

static u64 constrain_fee_accounts(void) {
#ifndef DECLOUD_V1_0
    TRY(constrain_mut(memory->treasury, "treasury"));
    if (!same_key(memory->treasury->key, &TREASURY))
        return fail_keys("treasury", InvalidTreasury, memory->treasury->key, &TREASURY);
    if (memory->referrer) TRY(constrain_mut(memory->referrer, "referrer"));
#endif
    return 0;
}

static void write_fees(Writer *event, const Fees *fees) {
#ifndef DECLOUD_V1_0
    write_int(event, fees->treasury, 8);
    write_int(event, fees->referrer, 8);
#else
    (void)event;
    (void)fees;
#endif
}
