/* Borsh: little-endian integers, strings with a 32-bit length, raw keys.
 *
 * Readers and writers are sticky: the first step that doesn't fit marks them broken, later steps
 * do nothing, and the caller asks once at the end.
 */
#pragma once

#include "svm.h"

typedef struct {
    const u8 *at;
    u64 left;
    u8 broken;
} Reader;

typedef struct {
    u8 *at;
    u64 left;
    u8 broken;
} Writer;

/* A discriminator as its eight bytes read from left to right, as the contract prints them. */
#define DISCRIMINATOR(bytes) __builtin_bswap64(bytes##UL)

static const u8 *read_bytes(Reader *from, u64 len) {
    const u8 *start = from->at;
    if (from->broken || len > from->left) {
        from->broken = 1;
        return 0;
    }
    from->at += len;
    from->left -= len;
    return start;
}

static u64 read_int(Reader *from, u32 size) {
    const u8 *bytes = read_bytes(from, size);
    u64 value = 0;
    if (bytes)
        for (u32 i = 0; i < size; i++) value |= (u64)bytes[i] << (8 * i);
    return value;
}

static u8 read_bool(Reader *from) {
    u64 value = read_int(from, 1);
    if (value > 1) from->broken = 1;
    return (u8)value;
}

/* An enum without fields is its variant's index, one byte. */
static u8 read_variant(Reader *from, u8 last) {
    u64 value = read_int(from, 1);
    if (value > last) from->broken = 1;
    return (u8)value;
}

static void read_key(Reader *from, Pubkey *key) {
    const u8 *bytes = read_bytes(from, sizeof(Pubkey));
    if (bytes) sol_memmove_(key, bytes, sizeof(Pubkey));
}

/* One well-formed UTF-8 sequence at `at`: its length, or 0. No overlong forms, no surrogates. */
static u64 utf8_sequence(const u8 *at, u64 left) {
    u8 lead = at[0];
    u8 low = 0x80, high = 0xbf; /* range of the second byte */
    u64 len = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (len == 0 || lead > 0xf4 || len > left) return 0;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    for (u64 i = 1; i < len; i++) {
        if (at[i] < low || at[i] > high) return 0;
        low = 0x80;
        high = 0xbf;
    }
    return len;
}

static u64 is_utf8(const Slice *text) {
    u64 at = 0;
    while (at < text->len) {
        u64 len = utf8_sequence(text->at + at, text->len - at);
        if (!len) return 0;
        at += len;
    }
    return 1;
}

/* The string stays where it is; the slice points to it. */
static void read_string(Reader *from, Slice *text) {
    text->len = read_int(from, 4);
    text->at = read_bytes(from, text->len);
    if (!text->at)
        text->len = 0;
    else if (!is_utf8(text))
        from->broken = 1;
}

static void write_bytes(Writer *to, const void *bytes, u64 len) {
    if (to->broken || len > to->left) {
        to->broken = 1;
        return;
    }
    sol_memmove_(to->at, bytes, len);
    to->at += len;
    to->left -= len;
}

static void write_int(Writer *to, u64 value, u32 size) {
    if (to->broken || size > to->left) {
        to->broken = 1;
        return;
    }
    for (u32 i = 0; i < size; i++) to->at[i] = (u8)(value >> (8 * i));
    to->at += size;
    to->left -= size;
}

static void write_key(Writer *to, const Pubkey *key) { write_bytes(to, key, sizeof(Pubkey)); }

static void write_string(Writer *to, const Slice *text) {
    write_int(to, text->len, 4);
    write_bytes(to, text->at, text->len);
}
