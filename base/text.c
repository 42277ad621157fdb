/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Text forms of bytes, numbers, durations and times, strict in what they take. Knows no locale and no file.
 */
#include "config.h"

#include "base/text.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char hex_digits[] = "0123456789abcdef";
static const char b64_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char b64url_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

void cmek_hex_encode(const void *in, size_t n, char *out)
{
	const uint8_t *p = in;
	size_t i;

	for (i = 0; i < n; i++) {
		*out++ = hex_digits[p[i] >> 4];
		*out++ = hex_digits[p[i] & 15];
	}
	*out = '\0';
}

long cmek_hex_decode(const char *in, size_t len, void *out, size_t max)
{
	uint8_t *p = out;
	int high, low;
	size_t i;

	if (len % 2)
		return -EINVAL;
	if (len / 2 > max)
		return -ENOSPC;
	for (i = 0; i < len; i += 2) {
		high = hex_value(in[i]);
		low = hex_value(in[i + 1]);
		if (high < 0 || low < 0)
			return -EINVAL;
		*p++ = (uint8_t)(high << 4 | low);
	}
	return (long)(len / 2);
}

static char *encode64(const char *alphabet, const uint8_t *in, size_t n, char *out)
{
	uint32_t bits;

	for (; n >= 3; n -= 3, in += 3) {
		bits = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
		*out++ = alphabet[bits >> 18];
		*out++ = alphabet[bits >> 12 & 63];
		*out++ = alphabet[bits >> 6 & 63];
		*out++ = alphabet[bits & 63];
	}
	if (n > 0) {
		bits = (uint32_t)in[0] << 16 | (n == 2 ? (uint32_t)in[1] << 8 : 0);
		*out++ = alphabet[bits >> 18];
		*out++ = alphabet[bits >> 12 & 63];
		if (n == 2)
			*out++ = alphabet[bits >> 6 & 63];
	}
	return out;
}

void cmek_b64url_encode(const void *in, size_t n, char *out)
{
	*encode64(b64url_alphabet, in, n, out) = '\0';
}

void cmek_b64_encode(const void *in, size_t n, char *out)
{
	char *end = encode64(b64_alphabet, in, n, out);

	while ((end - out) % 4)
		*end++ = '=';
	*end = '\0';
}

static int b64_value(char c, char plus, char slash)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == plus)
		return 62;
	if (c == slash)
		return 63;
	return -1;
}

/*
 * Unpadded text. One text per byte string: bits that the last character has too many must be zero (RFC 4648 s3.5), for
 * names in the store are compared as text.
 */
static long decode64(const char *in, size_t len, char plus, char slash, uint8_t *out, size_t max)
{
	uint32_t bits = 0;
	unsigned n_bits = 0;
	size_t i, done = 0;
	int value;

	if (len % 4 == 1)
		return -EINVAL;
	if (len / 4 * 3 + (len % 4 ? len % 4 - 1 : 0) > max)
		return -ENOSPC;
	for (i = 0; i < len; i++) {
		value = b64_value(in[i], plus, slash);
		if (value < 0)
			return -EINVAL;
		bits = bits << 6 | (uint32_t)value;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			out[done++] = (uint8_t)(bits >> n_bits);
			bits &= (1u << n_bits) - 1;
		}
	}
	return bits ? -EINVAL : (long)done;
}

long cmek_b64url_decode(const char *in, size_t len, void *out, size_t max)
{
	return decode64(in, len, '-', '_', out, max);
}

long cmek_b64_decode(const char *in, size_t len, void *out, size_t max)
{
	if (len % 4)
		return -EINVAL;
	if (len > 0 && in[len - 1] == '=')
		len--;
	if (len % 4 == 3 && in[len - 1] == '=')
		len--;
	return decode64(in, len, '+', '/', out, max);
}

void cmek_uuid_encode(const uint8_t uuid[16], char out[CMEK_UUID_TEXT])
{
	size_t i;

	for (i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = hex_digits[uuid[i] >> 4];
		*out++ = hex_digits[uuid[i] & 15];
	}
	*out = '\0';
}

int cmek_uuid_decode(const char *text, uint8_t uuid[16])
{
	char hex[32];
	size_t i, n = 0;

	if (strlen(text) != CMEK_UUID_TEXT - 1)
		return -EINVAL;
	for (i = 0; i < CMEK_UUID_TEXT - 1; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (text[i] != '-')
				return -EINVAL;
		} else {
			hex[n++] = text[i];
		}
	}
	for (i = 0; i < n; i++)
		if (hex_value(hex[i]) < 0)
			return -EINVAL;
	return cmek_hex_decode(hex, n, uuid, 16) == 16 ? 0 : -EINVAL;
}

/* Digits at *text, which is left behind them. -EINVAL when there is none; 0 or -ERANGE past 64 bits. */
static int digits(const char **text, uint64_t *ret)
{
	const char *p = *text;
	bool overflow = false;
	uint64_t value = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			overflow = true;
	*text = p;
	*ret = value;
	return overflow ? -ERANGE : 0;
}

int cmek_parse_u64(const char *text, uint64_t max, uint64_t *ret)
{
	uint64_t value;
	int rc = digits(&text, &value);

	if (rc == -EINVAL || *text)
		return -EINVAL;
	if (rc || value > max)
		return -ERANGE;
	*ret = value;
	return 0;
}

int cmek_parse_size(const char *text, uint64_t max, uint64_t *ret)
{
	static const char units[] = "KMGT";
	uint64_t value, factor = 1;
	const char *unit;
	int rc;

	rc = digits(&text, &value);
	if (rc == -EINVAL)
		return -EINVAL;
	if (*text) {
		unit = strchr(units, *text >= 'a' && *text <= 'z' ? *text - 'a' + 'A' : *text);
		if (!unit)
			return -EINVAL;
		factor <<= 10 * (unit - units + 1);
		text++;
		if (*text && strcmp(text, "iB") != 0)
			return -EINVAL;
	}
	if (rc || __builtin_mul_overflow(value, factor, &value) || value > max)
		return -ERANGE;
	*ret = value;
	return 0;
}

int cmek_parse_duration(const char *text, uint64_t *ret_seconds)
{
	uint64_t value, factor = 1;
	int rc;

	rc = digits(&text, &value);
	if (rc == -EINVAL)
		return -EINVAL;
	switch (*text) {
	case '\0':
		break;
	case 's':
		text++;
		break;
	case 'm':
		factor = 60;
		text++;
		break;
	case 'h':
		factor = 3600;
		text++;
		break;
	case 'd':
		factor = 86400;
		text++;
		break;
	default:
		return -EINVAL;
	}
	if (*text)
		return -EINVAL;
	if (rc || __builtin_mul_overflow(value, factor, &value))
		return -ERANGE;
	*ret_seconds = value;
	return 0;
}

#define TIME_MIN INT64_C(-62167219200) /* 0000-01-01T00:00:00Z */
#define TIME_MAX INT64_C(253402300799) /* 9999-12-31T23:59:59Z */

void cmek_time_encode(int64_t unix_seconds, char out[CMEK_TIME_TEXT])
{
	struct tm tm;
	time_t t;

	if (unix_seconds < TIME_MIN)
		unix_seconds = TIME_MIN;
	if (unix_seconds > TIME_MAX)
		unix_seconds = TIME_MAX;
	t = (time_t)unix_seconds;
	gmtime_r(&t, &tm);
	/* The remainders are no-ops after the clamp; they let the compiler see that 20 characters are enough. */
	snprintf(out, CMEK_TIME_TEXT, "%04u-%02u-%02uT%02u:%02u:%02uZ", (unsigned)(tm.tm_year + 1900) % 10000,
		 (unsigned)(tm.tm_mon + 1) % 100, (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100,
		 (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

int cmek_time_decode(const char *text, int64_t *ret_unix_seconds)
{
	static const char form[] = "0000-00-00T00:00:00Z";
	char again[CMEK_TIME_TEXT];
	struct tm tm = { 0 };
	time_t t;
	size_t i;

	if (strlen(text) != sizeof(form) - 1)
		return -EINVAL;
	for (i = 0; form[i]; i++)
		if (form[i] == '0' ? text[i] < '0' || text[i] > '9' : text[i] != form[i])
			return -EINVAL;
#define TWO(at) ((text[at] - '0') * 10 + text[(at) + 1] - '0')
	tm.tm_year = TWO(0) * 100 + TWO(2) - 1900;
	tm.tm_mon = TWO(5) - 1;
	tm.tm_mday = TWO(8);
	tm.tm_hour = TWO(11);
	tm.tm_min = TWO(14);
	tm.tm_sec = TWO(17);
#undef TWO
	t = timegm(&tm);
	/* timegm() carries over (31 February is 3 March); a time that does not come back the same was none. */
	cmek_time_encode((int64_t)t, again);
	if (strcmp(again, text) != 0)
		return -EINVAL;
	*ret_unix_seconds = (int64_t)t;
	return 0;
}
