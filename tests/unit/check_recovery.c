/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Recovery codes: their text and what is wrong with one, the key pair behind it, and what it wraps. */
#include "config.h"

#include <ctype.h>

#include "base/crypto.h"
#include "base/text.h"
#include "kms/json.h"
#include "kms/kms.h"
#include "kms/recovery.h"
#include "kms/recovery_code.h"
#include "tests/unit/unit.h"

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
static const struct cmek_kms_context ctx = { { 1, 2, 3 }, "recovery" };
static struct cmek_error err;

static void setup(void)
{
	cmek_json_init();
	err = (struct cmek_error)CMEK_ERROR_INIT;
}

static struct cmek_secret *text_secret(const char *text)
{
	struct cmek_secret *s = NULL;

	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_TEXT, text, strlen(text), &s, NULL), 0);
	return s;
}

static struct cmek_secret *new_code(char text[CMEK_RECOVERY_TEXT_LEN + 1])
{
	struct cmek_secret *code = NULL;

	ck_assert_int_eq(cmek_recovery_code_new(&code, &err), 0);
	ck_assert_uint_eq(cmek_secret_len(code), CMEK_RECOVERY_TEXT_LEN);
	memcpy(text, cmek_secret_bytes(code, CMEK_KEY_TEXT), CMEK_RECOVERY_TEXT_LEN + 1);
	return code;
}

/* 0: the same bits as `want` (NULL = whatever); else the group that is told, or -1. */
static int parsed(const char *text, const struct cmek_secret *want)
{
	struct cmek_secret *code = text_secret(text), *bits = NULL;
	const char *at;
	int rc;

	cmek_error_clear(&err);
	rc = cmek_recovery_code_parse(code, &bits, &err);
	cmek_secret_free(code);
	if (rc == 0) {
		ck_assert_uint_eq(cmek_secret_len(bits), CMEK_RECOVERY_BYTES);
		if (want)
			ck_assert_mem_eq(cmek_secret_bytes(bits, CMEK_KEY_STORE), cmek_secret_bytes(want, CMEK_KEY_STORE),
					 CMEK_RECOVERY_BYTES);
		cmek_secret_free(bits);
		return 0;
	}
	ck_assert_int_eq(rc, -EKEYREJECTED);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	at = strstr(err.text, "group ");
	return at ? atoi(at + 6) : -1;
}

START_TEST(a_code_is_read_back)
{
	char text[CMEK_RECOVERY_TEXT_LEN + 1], other[4 * CMEK_RECOVERY_TEXT_LEN] = "";
	struct cmek_secret *code = new_code(text), *bits = NULL;
	size_t i, n = 0;

	ck_assert_int_eq(cmek_recovery_code_parse(code, &bits, &err), 0);
	ck_assert_int_eq(parsed(text, bits), 0);
	/* As people write it. */
	for (i = 0; text[i]; i++) {
		if (text[i] == '-') {
			other[n++] = i % 4 ? ' ' : '\n';
			continue;
		}
		other[n++] = text[i] == '0' ? 'o' : text[i] == '1' ? "lLiI"[i % 4] : (char)tolower(text[i]);
		if (i % 7 == 0)
			other[n++] = '-';
	}
	other[n] = '\0';
	ck_assert_int_eq(parsed(other, bits), 0);
	cmek_secret_free(bits);
	cmek_secret_free(code);
}
END_TEST

/* Each character as each other one, and each two neighbours exchanged. */
START_TEST(typing_errors_are_told_by_group)
{
	char text[CMEK_RECOVERY_TEXT_LEN + 1], was;
	struct cmek_secret *code = new_code(text);
	size_t i, k;

	for (i = 0; text[i]; i++) {
		if (text[i] == '-')
			continue;
		was = text[i];
		for (k = 0; k < 32; k++) {
			text[i] = alphabet[k];
			ck_assert_int_eq(parsed(text, NULL), alphabet[k] == was ? 0 : (int)(i / 6) + 1);
		}
		text[i] = was;
		if (i % 6 < 4 && text[i + 1] != was) {
			text[i] = text[i + 1];
			text[i + 1] = was;
			ck_assert_int_eq(parsed(text, NULL), (int)(i / 6) + 1);
			text[i + 1] = text[i];
			text[i] = was;
		}
	}
	cmek_secret_free(code);
}
END_TEST

START_TEST(groups_that_are_exchanged_missing_or_too_many)
{
	char text[CMEK_RECOVERY_TEXT_LEN + 1], other[2 * CMEK_RECOVERY_TEXT_LEN];
	struct cmek_secret *code = new_code(text);

	memcpy(other, text, sizeof(text));
	memcpy(other, text + 6, 5);
	memcpy(other + 6, text, 5);
	ck_assert_int_eq(parsed(other, NULL), 1);
	ck_assert_int_eq(parsed(text + 6, NULL), 1);
	memcpy(other, text, sizeof(text));
	other[CMEK_RECOVERY_TEXT_LEN - 6] = '\0';
	ck_assert_int_eq(parsed(other, NULL), -1);
	ck_assert_ptr_nonnull(strstr(err.text, "too short"));
	snprintf(other, sizeof(other), "%s-0", text);
	ck_assert_int_eq(parsed(other, NULL), -1);
	ck_assert_ptr_nonnull(strstr(err.text, "too long"));
	ck_assert_int_eq(parsed("-", NULL), -1);
	memcpy(other, text, sizeof(text));
	other[7] = 'U';
	ck_assert_int_eq(parsed(other, NULL), 2);
	ck_assert_ptr_nonnull(strstr(err.text, "in none"));
	cmek_secret_free(code);
}
END_TEST

static struct cmek_secret *hex_secret(const char *hex)
{
	struct cmek_secret *s = NULL;
	uint8_t bytes[32];

	ck_assert_int_eq(cmek_hex_decode(hex, strlen(hex), bytes, sizeof(bytes)), 32);
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_STORE, bytes, 32, &s, NULL), 0);
	return s;
}

/* RFC 7748 s6.1 */
START_TEST(x25519)
{
	struct cmek_secret *a = hex_secret("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
	struct cmek_secret *b = hex_secret("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
	struct cmek_secret *shared = NULL;
	uint8_t public[CMEK_X25519_LEN];
	char hex[65];

	ck_assert_int_eq(cmek_x25519_public(a, CMEK_KEY_STORE, public, &err), 0);
	cmek_hex_encode(public, 32, hex);
	ck_assert_str_eq(hex, "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
	ck_assert_int_eq(cmek_x25519(b, CMEK_KEY_STORE, public, &shared, &err), 0);
	cmek_hex_encode(cmek_secret_bytes(shared, CMEK_KEY_STORE), 32, hex);
	ck_assert_str_eq(hex, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
	cmek_secret_free(shared);
	memset(public, 0, sizeof(public));
	ck_assert_int_eq(cmek_x25519(b, CMEK_KEY_STORE, public, &shared, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
	cmek_secret_free(a);
	cmek_secret_free(b);
}
END_TEST

/* ---- the provider ---- */

static int give(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *e)
{
	(void)prompt;
	return cmek_secret_new_copy(CMEK_KEY_TEXT, arg, strlen(arg), ret_passphrase, e);
}

static struct cmek_kms *open_code(const char *uri, char *code)
{
	struct cmek_kms_options opts = { .ask_passphrase = code ? give : NULL, .ask_arg = code };
	struct cmek_kms *kms = NULL;

	ck_assert_int_eq(cmek_kms_open(uri, NULL, &opts, &kms, &err), 0);
	return kms;
}

/* 0, or the kind of the failure. */
static enum cmek_kind unwraps(const char *uri, char *code, const struct cmek_kms_context *how, const struct cmek_kms_blob *blob,
			      const struct cmek_secret *want)
{
	struct cmek_kms *kms = open_code(uri, code);
	struct cmek_secret *key = NULL;
	int rc;

	cmek_error_clear(&err);
	rc = cmek_kms_unwrap(kms, how, blob, &key, NULL, &err);
	if (rc == 0)
		ck_assert_mem_eq(cmek_secret_bytes(key, CMEK_KEY_KEK), cmek_secret_bytes(want, CMEK_KEY_KEK), 32);
	else
		ck_assert_int_eq(rc, -err.err);
	cmek_secret_free(key);
	cmek_kms_close(kms);
	return err.kind;
}

START_TEST(wraps_for_anybody_unwraps_for_who_has_the_code)
{
	char text[CMEK_RECOVERY_TEXT_LEN + 1], stranger[CMEK_RECOVERY_TEXT_LEN + 1], *uri = NULL;
	struct cmek_kms_context other_volume = ctx, other_purpose = ctx;
	struct cmek_secret *code = new_code(text), *foreign = new_code(stranger), *kek = NULL;
	struct cmek_kms_blob blob = { 0 }, again = { 0 };
	struct cmek_kms *kms;
	size_t i;

	ck_assert_int_eq(cmek_recovery_uri("paper", code, &uri, &err), 0);
	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_KEK, 32, &kek, NULL), 0);
	kms = open_code(uri, NULL); /* no code is needed */
	ck_assert(cmek_kms_is_by_hand(kms));
	ck_assert_int_eq(cmek_kms_wrap(kms, &ctx, kek, &blob, &err), 0);
	ck_assert_int_eq(cmek_kms_wrap(kms, &ctx, kek, &again, &err), 0);
	ck_assert_mem_ne(blob.data + 4, again.data + 4, 32);
	ck_assert_str_eq(blob.resolved, uri);
	cmek_kms_close(kms);
	ck_assert_int_eq(unwraps(uri, text, &ctx, &blob, kek), CMEK_E_NONE);
	ck_assert_int_eq(unwraps(uri, NULL, &ctx, &blob, kek), CMEK_E_DENIED);
	ck_assert_int_eq(err.err, ENOTTY);
	ck_assert_int_eq(unwraps(uri, stranger, &ctx, &blob, kek), CMEK_E_DENIED);
	ck_assert_int_eq(err.err, EKEYREJECTED);
	other_volume.volume[0] ^= 1;
	other_purpose.purpose = "data";
	ck_assert_int_eq(unwraps(uri, text, &other_volume, &blob, kek), CMEK_E_TAMPERED);
	ck_assert_int_eq(unwraps(uri, text, &other_purpose, &blob, kek), CMEK_E_TAMPERED);
	for (i = 0; i < blob.len; i++) {
		blob.data[i] ^= 1;
		ck_assert_int_ne(unwraps(uri, text, &ctx, &blob, kek), CMEK_E_NONE);
		blob.data[i] ^= 1;
	}
	blob.len--;
	ck_assert_int_eq(unwraps(uri, text, &ctx, &blob, kek), CMEK_E_BAD_FORMAT);
	cmek_kms_blob_done(&blob);
	cmek_kms_blob_done(&again);
	cmek_secret_free(kek);
	cmek_secret_free(code);
	cmek_secret_free(foreign);
	free(uri);
}
END_TEST

static const char *const bad_uris[] = {
	"recovery:", "recovery:paper", "recovery:paper:", "recovery:paper:AAAA",
	"recovery::AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	"recovery:-p:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	"recovery:p:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	"recovery:p:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
	"recovery:p:q:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
};

START_TEST(what_is_no_uri_of_a_code)
{
	struct cmek_kms *kms = NULL;

	ck_assert_int_eq(cmek_kms_open(bad_uris[_i], NULL, NULL, &kms, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("recovery");
	TCase *t = tcase_create("recovery");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_code_is_read_back);
	tcase_add_test(t, typing_errors_are_told_by_group);
	tcase_add_test(t, groups_that_are_exchanged_missing_or_too_many);
	tcase_add_test(t, x25519);
	tcase_add_test(t, wraps_for_anybody_unwraps_for_who_has_the_code);
	tcase_add_loop_test(t, what_is_no_uri_of_a_code, 0, UNIT_ROWS(bad_uris));
	suite_add_tcase(suite, t);
	return unit_run(suite);
}
