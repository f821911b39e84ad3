/* Log lines and events, each built in a buffer on the heap and handed over in one call. */
#pragma once

#include "borsh.h"
#include "errors.h"
#include "memory.h"

static void put_bytes(const void *bytes, u64 len) {
    Line *line = &memory->line;
    if (len > LINE_MAX - line->len) len = LINE_MAX - line->len;
    sol_memmove_(line->text + line->len, bytes, len);
    line->len += len;
}

static void put(const char *text) { put_bytes(text, text_len(text)); }

static void put_number(u64 value) {
    char digits[20];
    u32 first = sizeof digits;
    do {
        digits[--first] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    put_bytes(digits + first, sizeof digits - first);
}

static void put_signed(i64 value) {
    if (value < 0) put("-");
    put_number(value < 0 ? 0 - (u64)value : (u64)value);
}

/* Base58: the key as one 256-bit number in eight 32-bit limbs, divided by 58^5 nine times. */
static void put_key(const Pubkey *key) {
    static const char alphabet[] = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    const u64 five_digits = 58UL * 58 * 58 * 58 * 58;
    char digits[45];
    u32 limbs[8];
    u32 first = sizeof digits;
    u32 zeros = 0;

    for (u32 i = 0; i < 8; i++)
        limbs[i] = (u32)key->bytes[4 * i] << 24 | (u32)key->bytes[4 * i + 1] << 16 |
                   (u32)key->bytes[4 * i + 2] << 8 | key->bytes[4 * i + 3];
    while (first) {
        u64 rest = 0;
        for (u32 i = 0; i < 8; i++) {
            rest = rest << 32 | limbs[i];
            limbs[i] = (u32)(rest / five_digits);
            rest %= five_digits;
        }
        for (u32 i = 0; i < 5; i++) {
            digits[--first] = alphabet[rest % 58];
            rest /= 58;
        }
    }
    while (zeros < 32 && key->bytes[zeros] == 0) zeros++;
    while (first < sizeof digits && digits[first] == '1') first++;
    first -= zeros; /* one '1' for each leading zero byte, no more */
    put_bytes(digits + first, sizeof digits - first);
}

static void end_line(void) {
    sol_log_(memory->line.text, memory->line.len);
    memory->line.len = 0;
}

static const ErrorText *error_text(u64 code) {
    for (u32 i = 0; i < sizeof error_texts / sizeof error_texts[0]; i++)
        if (error_texts[i].code == code) return &error_texts[i];
    return 0;
}

/* Logs Anchor's line for `code`, about the account `name` if there is one, and returns it. */
static u64 fail_at(const char *name, u64 code) {
    const ErrorText *error = error_text(code);
    memory->line.len = 0;
    if (name) {
        put("AnchorError caused by account: ");
        put(name);
    } else {
        put("AnchorError occurred");
    }
    put(". Error Code: ");
    put(error ? error->name : "Unknown");
    put(". Error Number: ");
    put_number(code);
    put(". Error Message: ");
    put(error ? error->message : "");
    put(".");
    end_line();
    return code;
}

static u64 fail(u64 code) { return fail_at(0, code); }

/* As `fail_at`, followed by what was found and what was expected, as Anchor shows them. */
static u64 fail_keys(const char *name, u64 code, const Pubkey *found, const Pubkey *expected) {
    fail_at(name, code);
    sol_log_("Left:", 5);
    sol_log_pubkey(found);
    sol_log_("Right:", 6);
    sol_log_pubkey(expected);
    return code;
}

/* An event: its discriminator and fields through the writer, then one `Program data:` line. */
static Writer *begin_event(u64 discriminator) {
    Writer *event = &memory->event_writer;
    event->at = memory->event;
    event->left = EVENT_MAX;
    event->broken = 0;
    write_int(event, discriminator, 8);
    return event;
}

static u64 emit(const Writer *event) {
    Slice data = {memory->event, EVENT_MAX - event->left};
    if (event->broken) return fail(AccountDidNotSerialize);
    sol_log_data(&data, 1);
    return 0;
}
