/* Start parameters and fixed keys.
 *
 * The account lists of the contract leave no place for parameters, so they stand in one block of
 * constant data that image.py finds by its marker and patches before the program is loaded.
 * Volatile: the compiler must read the block and not fold these defaults into the code.
 */
#pragma once

#include "svm.h"

typedef struct {
    char marker[16];
    i64 validator_s;  /* from create_round: how long a validator may claim the round */
    i64 join_s;       /* from claim_round */
    i64 submit_s;     /* from start_training */
    i64 validation_s; /* from the start of validation */
    u64 fee_bps;      /* of the reward, to the validator */
    u64 max_trainers;
} StartParameters;

static const volatile StartParameters start_parameters = {
    "decloud-start-1", 3600, 600, 3600, 3600, 1000, 10,
};

/* HvQ8c3BBCsibJpH74UDXbvqEidJymzFYyGjNjRn7MYwC */
static const Pubkey PROGRAM_ID = {{
    0xfb, 0x68, 0xed, 0x99, 0xb3, 0x0d, 0x51, 0xdd, 0x90, 0x69, 0x59, 0x2d, 0xd1, 0x45, 0xab, 0xb4,
    0xf4, 0x98, 0xfb, 0x7d, 0x5d, 0xbc, 0x70, 0x9d, 0x81, 0xdd, 0x2a, 0x87, 0x54, 0x99, 0xbe, 0x43,
}};

#ifndef DECLOUD_V1_0
/* FzuCxi65QyFXAGbHcXB28RXqyBZSZ5KXLQxeofx1P9K2 */
static const Pubkey TREASURY = {{
    0xde, 0xd8, 0xc0, 0xba, 0x42, 0x4a, 0xaf, 0xa1, 0xff, 0x94, 0x35, 0xa2, 0x3d, 0x18, 0xd8, 0xa9,
    0xba, 0x45, 0x6f, 0x71, 0x64, 0xc1, 0x84, 0xa9, 0x13, 0xf2, 0x73, 0xfb, 0x07, 0x69, 0x11, 0x85,
}};
#endif

/* Rent as it has been on every cluster since genesis: 3480 lamports per byte-year, two years. */
#define LAMPORTS_PER_BYTE 6960UL
#define ACCOUNT_OVERHEAD 128UL

#define CID_MIN 46
#define CID_MAX 64
#define ALL_BPS 10000UL
