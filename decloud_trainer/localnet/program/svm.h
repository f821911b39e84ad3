/* What the Solana virtual machine offers a program: types, system calls, the input region.
 *
 * clang's BPF back end allows 512 bytes of stack per function and five arguments, so everything
 * larger than a few words lives on the VM's zero-filled heap (`struct Memory` in accounts.h).
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef signed long i64;

_Static_assert(sizeof(u64) == 8 && sizeof(u32) == 4, "BPF is a 64-bit target");

#define U64_MAX 0xffffffffffffffffUL
#define I64_MAX 0x7fffffffffffffffL
#define HEAP_START 0x300000000UL
#define HEAP_SIZE (32 * 1024)
#define INPUT_GROWTH 10240 /* spare room that the loader leaves behind every account's data */

typedef struct {
    u8 bytes[32];
} Pubkey;

/* The layouts below are the C calling convention of the runtime; not ours to change. */
typedef struct {
    Pubkey *key;
    u64 *lamports;
    u64 data_len;
    u8 *data;
    Pubkey *owner;
    u64 rent_epoch;
    u8 is_signer;
    u8 is_writable;
    u8 executable;
} Account;

typedef struct {
    const u8 *at;
    u64 len;
} Slice;

typedef struct {
    const Slice *seeds;
    u64 count;
} SignerSeeds;

typedef struct {
    const Pubkey *key;
    u8 is_writable;
    u8 is_signer;
} AccountMeta;

typedef struct {
    const Pubkey *program;
    const AccountMeta *accounts;
    u64 account_count;
    const u8 *data;
    u64 data_len;
} Instruction;

typedef struct {
    u64 slot;
    i64 epoch_start;
    u64 epoch;
    u64 leader_schedule_epoch;
    i64 unix_timestamp;
} Clock;

extern void sol_log_(const char *text, u64 len);
extern void sol_log_pubkey(const Pubkey *key);
extern void sol_log_data(const Slice *fields, u64 count);
extern u64 sol_get_clock_sysvar(Clock *clock);
extern u64 sol_create_program_address(const Slice *seeds, u64 count, const Pubkey *program,
                                      Pubkey *address);
extern u64 sol_try_find_program_address(const Slice *seeds, u64 count, const Pubkey *program,
                                        Pubkey *address, u8 *bump);
extern u64 sol_invoke_signed_c(const Instruction *instruction, const Account *accounts,
                               u64 account_count, const SignerSeeds *signers, u64 signer_count);
extern void sol_memmove_(void *to, const void *from, u64 len);

static const Pubkey SYSTEM_PROGRAM = {{0}};

static u64 same_key(const Pubkey *a, const Pubkey *b) {
    for (u32 i = 0; i < 32; i++)
        if (a->bytes[i] != b->bytes[i]) return 0;
    return 1;
}
