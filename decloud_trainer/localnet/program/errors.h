/* Error numbers, their names, and the log line that Anchor prints for them.
 *
 * A function that can fail returns 0 or what the program is to return to the runtime: a custom
 * code in the low 32 bits, or one of the runtime's own errors in the high ones.
 */
#pragma once

#include "svm.h"

#define TRY(call)                      \
    do {                               \
        u64 failure_ = (call);         \
        if (failure_) return failure_; \
    } while (0)
#define REQUIRE(condition, code) \
    do {                         \
        if (!(condition)) return fail(code); \
    } while (0)

/* Of the runtime: an amount or a time left its range. The contract has no code for it. */
#define ARITHMETIC_OVERFLOW (24UL << 32)

enum {
    /* Anchor's */
    InstructionMissing = 100,
    InstructionFallbackNotFound = 101,
    InstructionDidNotDeserialize = 102,
    ConstraintMut = 2000,
    ConstraintHasOne = 2001,
    ConstraintSeeds = 2006,
    AccountDiscriminatorNotFound = 3001,
    AccountDiscriminatorMismatch = 3002,
    AccountDidNotDeserialize = 3003,
    AccountDidNotSerialize = 3004,
    AccountNotEnoughKeys = 3005,
    AccountOwnedByWrongProgram = 3007,
    InvalidProgramId = 3008,
    InvalidProgramExecutable = 3009,
    AccountNotSigner = 3010,
    AccountNotInitialized = 3012,
    DeclaredProgramIdMismatch = 4100,
    /* the contract's */
    InvalidCid = 6000,
    ZeroReward,
    InvalidRoundId,
    CannotCancel,
    RoundNotWaitingValidator,
    ValidatorDeadlinePassed,
    RoundNotWaitingTrainers,
    NotValidator,
    NoTrainers,
    JoinDeadlinePassed,
    MaxTrainersReached,
    RoundNotTraining,
    SubmitDeadlinePassed,
    AlreadySubmitted,
    RoundNotCompleted,
    NotSubmitted,
    RewardAlreadyClaimed,
    NoContribution,
    FeeAlreadyClaimed,
    InvalidContributionSum,
    RoundNotValidating,
    InvalidTreasury, /* this one and the next two: not in v1.0 */
    CannotAbort,
    InvalidCreator,
};

/* Arrays inside the struct instead of pointers: pointers in constant data would need relocations
 * that the loader's format makes awkward. */
typedef struct {
    u16 code;
    char name[30];
    char message[64];
} ErrorText;

#define ERROR(name, message) {name, #name, message}

static const ErrorText error_texts[] = {
    ERROR(InstructionMissing, "Instruction discriminator not provided"),
    ERROR(InstructionFallbackNotFound, "Fallback functions are not supported"),
    ERROR(InstructionDidNotDeserialize, "The program could not deserialize the given instruction"),
    ERROR(ConstraintMut, "A mut constraint was violated"),
    ERROR(ConstraintHasOne, "A has one constraint was violated"),
    ERROR(ConstraintSeeds, "A seeds constraint was violated"),
    ERROR(AccountDiscriminatorNotFound, "No discriminator was found on the account"),
    ERROR(AccountDiscriminatorMismatch, "Account discriminator did not match what was expected"),
    ERROR(AccountDidNotDeserialize, "Failed to deserialize the account"),
    ERROR(AccountDidNotSerialize, "Failed to serialize the account"),
    ERROR(AccountNotEnoughKeys, "Not enough account keys given to the instruction"),
    ERROR(AccountOwnedByWrongProgram,
          "The given account is owned by a different program than expected"),
    ERROR(InvalidProgramId, "Program ID was not as expected"),
    ERROR(InvalidProgramExecutable, "Program account is not executable"),
    ERROR(AccountNotSigner, "The given account did not sign"),
    ERROR(AccountNotInitialized, "The program expected this account to be already initialized"),
    ERROR(DeclaredProgramIdMismatch,
          "The declared program id does not match the actual program id"),
    ERROR(InvalidCid, "A CID has 46 to 64 characters"),
    ERROR(ZeroReward, "The reward must be more than zero"),
    ERROR(InvalidRoundId, "The round id is not the next one of the counter"),
    ERROR(CannotCancel, "The round can no longer be cancelled"),
    ERROR(RoundNotWaitingValidator, "The round is not waiting for a validator"),
    ERROR(ValidatorDeadlinePassed, "The deadline for validators has passed"),
    ERROR(RoundNotWaitingTrainers, "The round is not waiting for trainers"),
    ERROR(NotValidator, "The signer is not the validator of this round"),
    ERROR(NoTrainers, "No trainer has joined the round"),
    ERROR(JoinDeadlinePassed, "The deadline for joining has passed"),
    ERROR(MaxTrainersReached, "The round has its maximum number of trainers"),
    ERROR(RoundNotTraining, "The round is not in training"),
    ERROR(SubmitDeadlinePassed, "The deadline for submissions has passed"),
    ERROR(AlreadySubmitted, "This trainer has already submitted gradients"),
    ERROR(RoundNotCompleted, "The round is not completed"),
    ERROR(NotSubmitted, "This trainer submitted no gradients"),
    ERROR(RewardAlreadyClaimed, "The reward has already been claimed"),
    ERROR(NoContribution, "The contribution of this submission is zero"),
    ERROR(FeeAlreadyClaimed, "The validator fee has already been claimed"),
    ERROR(InvalidContributionSum, "The contributions must add up to 10000"),
    ERROR(RoundNotValidating, "The round is not in validation"),
#ifndef DECLOUD_V1_0
    ERROR(InvalidTreasury, "The treasury account is not the network's treasury"),
    ERROR(CannotAbort, "The round cannot be aborted in its present state"),
    ERROR(InvalidCreator, "The account is not the creator of this round"),
#endif
};

static u64 text_len(const char *text) {
    u64 len = 0;
    while (text[len]) len++;
    return len;
}
