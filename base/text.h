/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_TEXT_H
#define CMEK_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

/*
 * Text forms of bytes and numbers. Decoders are strict: no white space, no sign, no leftover bits, no other length.
 * They return the number of bytes written, or -EINVAL, or -ENOSPC when the result would exceed max.
 */
#define CMEK_HEX_LEN(n) ((n) * 2)
#define CMEK_B64URL_LEN(n) (((n) * 4 + 2) / 3) /* RFC 4648 s5, no padding */
#define CMEK_B64URL_DECODED(n) ((n) * 3 / 4)
#define CMEK_B64_LEN(n) (((n) + 2) / 3 * 4) /* RFC 4648 s4, padded */

/* Encoders write LEN(n) characters and a NUL. */
void cmek_hex_encode(const void *in, size_t n, char *out);
void cmek_b64url_encode(const void *in, size_t n, char *out);
void cmek_b64_encode(const void *in, size_t n, char *out);
long cmek_hex_decode(const char *in, size_t len, void *out, size_t max); /* either case */
long cmek_b64url_decode(const char *in, size_t len, void *out, size_t max);
long cmek_b64_decode(const char *in, size_t len, void *out, size_t max);

/* RFC 9562 text form, lower case; decode takes either case. out: 37 bytes. 0 or -EINVAL. */
#define CMEK_UUID_TEXT 37
void cmek_uuid_encode(const uint8_t uuid[16], char out[CMEK_UUID_TEXT]);
int cmek_uuid_decode(const char *text, uint8_t uuid[16]);

/* Decimal, the whole string, at most max: 0 or -EINVAL / -ERANGE. */
int cmek_parse_u64(const char *text, uint64_t max, uint64_t *ret);
/* The same with an optional K, M, G, T (powers of 1024, an "iB" may follow) behind it: "4096", "64K", "64MiB". */
int cmek_parse_size(const char *text, uint64_t max, uint64_t *ret);
/* "30s", "5m", "2h", "7d", or "90" (seconds): seconds. */
int cmek_parse_duration(const char *text, uint64_t *ret_seconds);

/* "2026-11-22T10:11:12Z" (RFC 3339, UTC). out: 21 bytes. Decode takes just that form: 0 or -EINVAL. */
#define CMEK_TIME_TEXT 21
void cmek_time_encode(int64_t unix_seconds, char out[CMEK_TIME_TEXT]);
int cmek_time_decode(const char *text, int64_t *ret_unix_seconds);

#endif
