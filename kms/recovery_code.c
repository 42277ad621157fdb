/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The text form of recovery codes, to and from bits. It must not know what a code opens.
 */
#include "config.h"

#include "kms/recovery_code.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define GROUP 5 /* characters, the check included */

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/* Multiplication in the field of 32 elements, modulo x^5 + x^2 + 1. */
static unsigned multiply(unsigned a, unsigned b)
{
	unsigned product = 0;

	for (; b; b >>= 1) {
		if (b & 1)
			product ^= a;
		a <<= 1;
		if (a & 32)
			a ^= 37;
	}
	return product;
}

/*
 * The check of a group of four digits: each has a factor of its own, which is 1 for none (the check's own factor), so one
 * wrong digit and two that were exchanged are always found; the group's number finds groups that were exchanged.
 */
static unsigned check_of(const uint8_t digits[GROUP - 1], unsigned group)
{
	unsigned sum = group + 1, i;

	for (i = 0; i < GROUP - 1; i++)
		sum ^= multiply(digits[i], i + 2);
	return sum;
}

int cmek_recovery_code_new(struct cmek_secret **ret_code, struct cmek_error *err)
{
	struct cmek_secret *bits = NULL, *code = NULL;
	uint8_t digits[GROUP - 1];
	const uint8_t *in;
	unsigned group, i, bit;
	char *out;
	int rc;

	rc = cmek_secret_new_random(CMEK_KEY_STORE, CMEK_RECOVERY_BYTES, &bits, err);
	if (rc == 0)
		rc = cmek_secret_new(CMEK_KEY_TEXT, CMEK_RECOVERY_TEXT_LEN, &code, err);
	if (rc < 0)
		goto out;
	in = cmek_secret_bytes(bits, CMEK_KEY_STORE);
	out = (char *)cmek_secret_fill(code, CMEK_KEY_TEXT);
	for (group = 0; group < CMEK_RECOVERY_GROUPS; group++) {
		memset(digits, 0, sizeof(digits));
		for (bit = 0; bit < 20; bit++) {
			i = group * 20 + bit;
			digits[bit / 5] = (uint8_t)(digits[bit / 5] << 1 | (in[i / 8] >> (7 - i % 8) & 1));
		}
		if (group)
			*out++ = '-';
		for (i = 0; i < GROUP - 1; i++)
			*out++ = alphabet[digits[i]];
		*out++ = alphabet[check_of(digits, group)];
	}
	*ret_code = code;
	code = NULL;
out:
	cmek_wipe(digits, sizeof(digits));
	cmek_secret_free(bits);
	cmek_secret_free(code);
	return rc;
}

/* What a character stands for; -1: nothing. */
static int digit_of(char c)
{
	const char *at;

	if (c >= 'a' && c <= 'z')
		c = (char)(c - 'a' + 'A');
	c = c == 'O' ? '0' : c == 'I' || c == 'L' ? '1' : c;
	at = c ? strchr(alphabet, c) : NULL;
	return at ? (int)(at - alphabet) : -1;
}

static int rejected(struct cmek_error *err, const char *what)
{
	return cmek_error_set(err, CMEK_E_DENIED, EKEYREJECTED, "the recovery code %s", what);
}

/* The digits of a text, at most max; the number of all, or -errno. */
static int read_digits(const char *text, size_t len, uint8_t *digits, size_t max, struct cmek_error *err)
{
	size_t n = 0, i;
	int digit;

	for (i = 0; i < len; i++) {
		if (strchr(" -\t\r\n", text[i]) && text[i])
			continue;
		digit = digit_of(text[i]);
		if (digit < 0)
			return cmek_error_set(err, CMEK_E_DENIED, EKEYREJECTED,
					      "the recovery code has a character that is in none, in group %zu", n / GROUP + 1);
		if (n < max)
			digits[n] = (uint8_t)digit;
		n++;
	}
	return (int)n;
}

int cmek_recovery_code_parse(const struct cmek_secret *code, struct cmek_secret **ret_bits, struct cmek_error *err)
{
	uint8_t digits[CMEK_RECOVERY_GROUPS * GROUP] = { 0 }, *out;
	struct cmek_secret *bits = NULL;
	unsigned group, i, bit;
	int n, rc = 0;

	n = read_digits((const char *)cmek_secret_bytes(code, CMEK_KEY_TEXT), cmek_secret_len(code), digits, sizeof(digits), err);
	if (n < 0) {
		rc = n;
		goto out;
	}
	for (group = 0; rc == 0 && group < CMEK_RECOVERY_GROUPS && (group + 1) * GROUP <= (unsigned)n; group++) {
		if (check_of(digits + group * GROUP, group) != digits[group * GROUP + GROUP - 1])
			rc = cmek_error_set(err, CMEK_E_DENIED, EKEYREJECTED,
					    "the recovery code has a typing error in group %u, or one is missing before", group + 1);
	}
	if (rc == 0 && n < (int)sizeof(digits))
		rc = rejected(err, "is too short: it has 12 groups of 5 characters");
	else if (rc == 0 && n > (int)sizeof(digits))
		rc = rejected(err, "is too long: it has 12 groups of 5 characters");
	if (rc == 0)
		rc = cmek_secret_new(CMEK_KEY_STORE, CMEK_RECOVERY_BYTES, &bits, err);
	if (rc < 0)
		goto out;
	out = cmek_secret_fill(bits, CMEK_KEY_STORE);
	for (i = 0; i < CMEK_RECOVERY_BYTES * 8; i++) {
		group = i / 20;
		bit = i % 20;
		if (digits[group * GROUP + bit / 5] >> (4 - bit % 5) & 1)
			out[i / 8] |= (uint8_t)(0x80 >> i % 8);
	}
	*ret_bits = bits;
out:
	cmek_wipe(digits, sizeof(digits));
	return rc;
}
