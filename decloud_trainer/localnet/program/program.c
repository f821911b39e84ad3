/* The DECLOUD round program, v1.2; with -DDECLOUD_V1_0, v1.0.
 *
 * A re-implementation for the local network: the published contract decides, and where it is
 * silent the choices are marked in the sources. One translation unit, from the VM upwards:
 *
 *   svm.h       the virtual machine's types and system calls
 *   errors.h    codes, names and messages
 *   borsh.h     reading and writing values
 *   memory.h    all working state, on the VM's heap
 *   text.h      log lines, Anchor's error line, events
 *   params.h    start parameters (patched by image.py), fixed keys
 *   accounts.h  the input region, Anchor's account checks, calls to the system program
 *   state.h     layouts and addresses of counter, round, vault, submission
 *   money.h     shares, fees, payouts
 *   rounds.h    initialize, create, claim, join, start, submit
 *   endings.h   check, cancel, abort
 *   payouts.h   contributions, completion, fee and reward claims
 */
#include "payouts.h"

/* One instruction: its discriminator, the line that Anchor logs for it, its handler. */
#define INSTRUCTION(discriminator, Name, handler)        \
    case DISCRIMINATOR(discriminator):                   \
        sol_log_("Instruction: " Name, 13 + sizeof(Name) - 1); \
        return handler();

static u64 dispatch(u64 discriminator) {
    switch (discriminator) {
        INSTRUCTION(0xafaf6d1f0d989bed, "Initialize", initialize)
        INSTRUCTION(0xe5daeca9e7508670, "CreateRound", create_round)
        INSTRUCTION(0xb4491763bacd0ec8, "ClaimRound", claim_round)
        INSTRUCTION(0xbfde5619eaae9df9, "JoinRound", join_round)
        INSTRUCTION(0xc8dc0b1bb3b473c0, "StartTraining", start_training)
        INSTRUCTION(0x1c8b3fd1fbddef36, "SubmitGradients", submit_gradients)
        INSTRUCTION(0x951f46dd890522d8, "CheckRound", check_round)
        INSTRUCTION(0xe5b117aef2b4b4f2, "SetContribution", set_contribution)
        INSTRUCTION(0x76fcfd313e15f38c, "CompleteValidation", complete_validation)
        INSTRUCTION(0xefa0fe0bfe903594, "FinalizeRound", finalize_round)
        INSTRUCTION(0x106394573c39fa91, "ClaimValidatorFee", claim_validator_fee)
        INSTRUCTION(0x955fb5f25e5a9ea2, "ClaimReward", claim_reward)
        INSTRUCTION(0x524686362e609408, "CancelRound", cancel_round)
#ifndef DECLOUD_V1_0
        INSTRUCTION(0x0fa52fc66ccf96d0, "AbortRound", abort_round)
#endif
        default:
            return fail(InstructionFallbackNotFound);
    }
}

u64 entrypoint(u8 *input) {
    parse_input(input);
    REQUIRE(same_key(memory->program_id, &PROGRAM_ID), DeclaredProgramIdMismatch);
    REQUIRE(memory->args.left >= 8, InstructionMissing);
    return dispatch(read_int(&memory->args, 8));
}
