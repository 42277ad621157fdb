/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Signatures. RS256: the vector of RFC 7515 appendix A.2 in both forms of the key; Ed25519; and keys that are refused. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/crypto.h"
#include "base/text.h"
#include "tests/unit/unit.h"
#include "tests/vectors/rfc7515_a2.h"

/* Made for this test by the openssl program. */
static const char rsa_1024[] =
	"-----BEGIN PRIVATE KEY-----\n"
	"MIICeAIBADANBgkqhkiG9w0BAQEFAASCAmIwggJeAgEAAoGBALrghVvoc81yJw0t\n"
	"txRAMbzVYAlKOBLgRze6UXfa+fQ6rBlnNI2SMVh/yXASS2jtdehN0VFY/eeQWWVT\n"
	"/1S38clQ6WxY2QimlnFoIGVbc9eQefoBV/yVdEgXAKtsN5IPri015KJc582OSghQ\n"
	"olx0FyfYDAq8+siH0VPWktWbbnknAgMBAAECgYA7aROck3r1TpwxqV3x1zK4yNEe\n"
	"QvUusxSRF++8feZHCbwa21+uvlJnw0BkG7zTn+KDNvIbvYIC8zYoa5rZ8RyxirbL\n"
	"fIOasDZSHCxBwiEnIwAy1rs1b4wyQstJHA7cfp+2t0i0SHdw+NyIKoUOjD6b+A0S\n"
	"CIsbtpZQ51KtgK2W+QJBAPYue5Fs/RxgNL/YEIjUZI7Av8gKwz0X4BEFGVkzz4aF\n"
	"zADW2FcOnyRau4eAmTVO9qxuyOqvHKiaGprJje6kvVsCQQDCVIm/oYcpbUqF+QHY\n"
	"AXJ9IVZZhIN2pAR2N8c2Hno1W5NWmsNvVfZ962eVQNw7u56tKwk1J7qL312IqLJr\n"
	"kUElAkEAspMHOXc4p0O2H88oN0jx5Ic21nHQK9nMxCvRtl4Z1DfrwlQWPBg0Ilfa\n"
	"njEPcZbk4jG+dlYt0LNwRwWbehdv7wJBAKlhjCs2vJvUQgeiMgQ3xrXgb+ZYxUmM\n"
	"zsLH/WBjkjud1T/AZ6ZMdCvvGnsSbKO39ieUAlONjGDMUTeDavitQ+0CQQCC25mw\n"
	"G2NRJ1SBJK7Jy559C0EZVa6RCUFsKgdyOkCWPAs72+NKmfm7f1o3VQdOJ5JXpXJc\n"
	"9VQ20dfKZn3d7689\n"
	"-----END PRIVATE KEY-----\n";
static const char ec_p256[] =
	"-----BEGIN PRIVATE KEY-----\n"
	"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjEg3m9CgwpU5FPyo\n"
	"wk8PjNicfJrEi5Y0SElduRWbl2+hRANCAAQXe9+/i3H5ZKrOW6gvr+8Jwb1PakiZ\n"
	"P44M19eylgI/mVAxq2/aBfhiYVeA7PNeVAZZGtE6DY7/6MdfQLndoUUb\n"
	"-----END PRIVATE KEY-----\n";
static const char encrypted[] = /* passphrase "x" */
	"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
	"MIH0MF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBAp9vF5GsFo9w9cwnce\n"
	"k0qGAgIIADAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQIBvxJmFU/emtSLV9\n"
	"YX6BrQSBkC2NgnqRVTefw1jsKfFFkxuqTSs2dJtmuznT6H52qlHUh4Q9y3UpxoYv\n"
	"6sChwIASrCs5x1Vj5Hz8Y60TtMP/xh0MmuM1uOaKU/FqFjlGIapoSj8RZavKn719\n"
	"T+U/BcaFXIo+5a2o/oPnBCMMmx1gEkIr1O8z9UZOQcYT0datOjQoNcGz6mYVR73d\n"
	"7NtTdW1cOw==\n"
	"-----END ENCRYPTED PRIVATE KEY-----\n";

static struct cmek_secret *text_secret(const char *text, size_t len)
{
	struct cmek_secret *s = NULL;

	cmek_secret_allow_unlocked();
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_TEXT, text, len, &s, NULL), 0);
	return s;
}

static const char *const forms[] = { rfc7515_pkcs8, rfc7515_pkcs1 };

START_TEST(rfc7515_vector)
{
	struct cmek_secret *pem = text_secret(forms[_i], strlen(forms[_i]));
	char text[CMEK_B64URL_LEN(CMEK_RSA_SIG_MAX) + 1];
	uint8_t sig[CMEK_RSA_SIG_MAX];
	size_t len = 0;

	ck_assert_int_eq(cmek_rs256_sign(pem, rfc7515_signed, strlen(rfc7515_signed), sig, &len, NULL), 0);
	ck_assert_uint_eq(len, 256);
	cmek_b64url_encode(sig, len, text);
	ck_assert_str_eq(text, rfc7515_signature);
	cmek_secret_free(pem);
}
END_TEST

static const struct {
	const char *name, *pem, *want;
} bad_rows[] = {
	{ "1024 bits", rsa_1024, "not an RSA key of 2048" },
	{ "elliptic curve", ec_p256, "not an RSA key of 2048" },
	{ "encrypted", encrypted, "not an unencrypted private key" },
	{ "no PEM", "-----BEGIN PRIVATE KEY-----\n", "not an unencrypted private key" },
	{ "text", "secret words", "not an unencrypted private key" },
	{ "public", "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n", "not an unencrypted private key" },
};

START_TEST(keys_that_are_refused)
{
	struct cmek_secret *pem = text_secret(bad_rows[_i].pem, strlen(bad_rows[_i].pem));
	struct cmek_error err = CMEK_ERROR_INIT;
	uint8_t sig[CMEK_RSA_SIG_MAX];
	size_t len = 7;

	ck_assert_int_eq(cmek_rs256_sign(pem, "x", 1, sig, &len, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
	ck_assert_msg(strstr(err.text, bad_rows[_i].want) != NULL, "%s: %s", bad_rows[_i].name, err.text);
	ck_assert_ptr_null(strstr(err.text, "secret"));
	ck_assert_uint_eq(len, 7);
	cmek_secret_free(pem);
}
END_TEST

/* RFC 8032 section 7.1, tests 1 and 3; the keys as PKCS#8 (RFC 8410). */
static const struct {
	const char *key, *public, *message, *signature;
} ed25519_rows[] = {
	{ "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g",
	  "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
	  "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
	  "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b" },
	{ "MC4CAQAwBQYDK2VwBCIEIMWqjfQ/n4N77bdELzHct7Fm04U1B28JS4XOOi4LRFj3",
	  "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
	  "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
	  "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a" },
};

/* Loop over rows. */
START_TEST(ed25519)
{
	char pem_text[256], sig_hex[CMEK_HEX_LEN(CMEK_ED25519_SIG_LEN) + 1], public_hex[CMEK_HEX_LEN(CMEK_ED25519_PUBLIC_LEN) + 1];
	uint8_t message[8], sig[CMEK_ED25519_SIG_LEN], public[CMEK_ED25519_PUBLIC_LEN];
	const char *hex = ed25519_rows[_i].message;
	long n = cmek_hex_decode(hex, strlen(hex), message, sizeof(message));
	struct cmek_secret *pem = NULL;

	snprintf(pem_text, sizeof(pem_text), "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n",
		 ed25519_rows[_i].key);
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_TEXT, pem_text, strlen(pem_text), &pem, NULL), 0);
	ck_assert_int_eq(cmek_ed25519_sign(pem, message, (size_t)n, sig, public, NULL), 0);
	cmek_hex_encode(sig, sizeof(sig), sig_hex);
	cmek_hex_encode(public, sizeof(public), public_hex);
	ck_assert_str_eq(sig_hex, ed25519_rows[_i].signature);
	ck_assert_str_eq(public_hex, ed25519_rows[_i].public);
	cmek_secret_free(pem);
}
END_TEST

START_TEST(ed25519_other_key)
{
	uint8_t sig[CMEK_ED25519_SIG_LEN], public[CMEK_ED25519_PUBLIC_LEN];
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_secret *pem = NULL;

	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_TEXT, rsa_1024, sizeof(rsa_1024) - 1, &pem, NULL), 0);
	ck_assert_int_eq(cmek_ed25519_sign(pem, "x", 1, sig, public, &err), -EINVAL);
	ck_assert_str_eq(err.text, "it is not an Ed25519 key");
	cmek_secret_free(pem);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rs256");
	TCase *tc = tcase_create("rs256");

	tcase_add_loop_test(tc, rfc7515_vector, 0, UNIT_ROWS(forms));
	tcase_add_loop_test(tc, keys_that_are_refused, 0, UNIT_ROWS(bad_rows));
	tcase_add_loop_test(tc, ed25519, 0, UNIT_ROWS(ed25519_rows));
	tcase_add_test(tc, ed25519_other_key);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
