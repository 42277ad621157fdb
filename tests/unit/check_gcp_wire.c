/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Bodies of Google Cloud KMS, as its reference shows them, and CRC-32C. */
#include "config.h"

#include "kms/crc32c.h"
#include "kms/gcp_wire.h"
#include "kms/json.h"
#include "tests/unit/unit.h"

#define KEY "projects/p/locations/l/keyRings/r/cryptoKeys/k"

static struct cmek_error err;
static const struct cmek_kms_context ctx = { .volume = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
					     .purpose = "data" };
#define AAD "cmekfs:volume=01020304-0506-0708-090a-0b0c0d0e0f10,cmekfs:slot=data"

static void setup(void)
{
	cmek_secret_allow_unlocked();
	cmek_json_init();
	cmek_error_clear(&err);
}

/* RFC 3720 appendix B.4, and those of the service's reference. */
static const struct {
	const char *hex;
	uint32_t crc;
} crc_rows[] = {
	{ "", 0 },
	{ "313233343536373839", 0xe3069283 },
	{ "68656c6c6f", 2591144780u },
	{ "0000000000000000000000000000000000000000000000000000000000000000", 0x8a9136aa },
	{ "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", 0x62a8ab43 },
	{ "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", 0x46dd794e },
	{ "1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100", 0x113fdb5c },
	{ "01c00000000000000000000000000000140000000000040000000014000000182800000000000000"
	  "0200000000000000", 0xd9963a56 },
};

START_TEST(crc32c_vector)
{
	uint8_t bytes[64];
	size_t n = unit_hex(crc_rows[_i].hex, bytes, sizeof(bytes));

	ck_assert_uint_eq(cmek_crc32c(bytes, n), crc_rows[_i].crc);
}
END_TEST

static json_t *parse_body(struct cmek_secret *body)
{
	json_t *json = NULL;

	ck_assert_int_eq(cmek_json_parse(cmek_secret_bytes(body, CMEK_KEY_TEXT), cmek_secret_len(body), "body", &json,
					 &err), 0);
	cmek_secret_free(body);
	return json;
}

static void assert_field(const json_t *json, const char *name, const char *want)
{
	ck_assert_str_eq(json_string_value(json_object_get(json, name)), want);
}

static void assert_b64_field(const json_t *json, const char *name, const void *bytes, size_t len)
{
	char text[512], crc_name[64], crc[16];

	ck_assert_uint_lt(CMEK_B64_LEN(len), sizeof(text));
	cmek_b64_encode(bytes, len, text);
	assert_field(json, name, text);
	snprintf(crc_name, sizeof(crc_name), "%sCrc32c", name);
	snprintf(crc, sizeof(crc), "%u", cmek_crc32c(bytes, len));
	assert_field(json, crc_name, crc);
}

START_TEST(requests)
{
	uint8_t kek[32];
	struct cmek_secret *key = NULL, *body = NULL;
	struct cmek_kms_blob blob = { .data = (uint8_t *)"ciphertext", .len = 10 };
	json_t *json;

	memset(kek, 0xa5, sizeof(kek));
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_KEK, kek, sizeof(kek), &key, NULL), 0);
	ck_assert_int_eq(cmek_gcp_encrypt_request(&ctx, key, &body, &err), 0);
	json = parse_body(body);
	ck_assert_uint_eq(json_object_size(json), 4);
	assert_b64_field(json, "plaintext", kek, sizeof(kek));
	assert_b64_field(json, "additionalAuthenticatedData", AAD, strlen(AAD));
	json_decref(json);
	ck_assert_int_eq(cmek_gcp_decrypt_request(&ctx, &blob, &body, &err), 0);
	json = parse_body(body);
	ck_assert_uint_eq(json_object_size(json), 4);
	assert_b64_field(json, "ciphertext", "ciphertext", 10);
	assert_b64_field(json, "additionalAuthenticatedData", AAD, strlen(AAD));
	json_decref(json);
	cmek_secret_free(key);
}
END_TEST

START_TEST(largest_blob_fits_a_request)
{
	struct cmek_kms_blob blob = { .data = calloc(1, CMEK_KMS_BLOB_MAX), .len = CMEK_KMS_BLOB_MAX };
	struct cmek_kms_context long_ctx = ctx;
	struct cmek_secret *body = NULL;

	long_ctx.purpose = "abcdefghijklmnopqrstuvwxyz-01234"; /* 32, the longest */
	ck_assert_int_eq(cmek_gcp_decrypt_request(&long_ctx, &blob, &body, &err), 0);
	json_decref(parse_body(body));
	free(blob.data);
}
END_TEST

/* "Y2lwaGVydGV4dA==" is "ciphertext", whose CRC-32C is 395617045. */
#define ENCRYPTED(name, verified, crc) \
	"{\"name\": \"" name "\", \"ciphertext\": \"Y2lwaGVydGV4dA==\", \"ciphertextCrc32c\": " crc ", " \
	"\"verifiedPlaintextCrc32c\": " verified ", \"verifiedAdditionalAuthenticatedDataCrc32c\": true, " \
	"\"protectionLevel\": \"SOFTWARE\"}"
#define CRC "\"395617045\""

static const struct {
	const char *text;
	int rc;
	enum cmek_kind kind;
} encrypt_rows[] = {
	{ ENCRYPTED(KEY "/cryptoKeyVersions/7", "true", CRC), 0, CMEK_E_NONE },
	{ ENCRYPTED(KEY "/cryptoKeyVersions/7", "false", CRC), -EILSEQ, CMEK_E_BAD_FORMAT },
	{ ENCRYPTED(KEY "/cryptoKeyVersions/7", "true", "\"1\""), -EILSEQ, CMEK_E_BAD_FORMAT },
	{ ENCRYPTED(KEY "/cryptoKeyVersions/7", "true", "395617045"), -EINVAL, CMEK_E_BAD_FORMAT },
	{ ENCRYPTED(KEY "/cryptoKeyVersions/7", "true", "\"-1\""), -EINVAL, CMEK_E_BAD_FORMAT },
	{ ENCRYPTED(KEY "/cryptoKeyVersions/7", "1", CRC), -EINVAL, CMEK_E_BAD_FORMAT },
	{ ENCRYPTED("projects/p/locations/l/keyRings/r/cryptoKeys/other/cryptoKeyVersions/7", "true", CRC), -EBADMSG,
	  CMEK_E_TAMPERED },
	{ ENCRYPTED(KEY "2/cryptoKeyVersions/7", "true", CRC), -EBADMSG, CMEK_E_TAMPERED },
	{ ENCRYPTED(KEY "/cryptoKeyVersions/", "true", CRC), -EBADMSG, CMEK_E_TAMPERED },
	{ ENCRYPTED(KEY "/cryptoKeyVersions/7x", "true", CRC), -EBADMSG, CMEK_E_TAMPERED },
	{ ENCRYPTED(KEY, "true", CRC), -EBADMSG, CMEK_E_TAMPERED },
	{ "{\"name\": \"" KEY "/cryptoKeyVersions/7\", \"ciphertext\": \"Y2lwaGVydGV4dA==\", "
	  "\"ciphertextCrc32c\": " CRC "}", -EILSEQ, CMEK_E_BAD_FORMAT }, /* nothing verified */
	{ "{}", -EINVAL, CMEK_E_BAD_FORMAT },
	{ "<html>", -EINVAL, CMEK_E_BAD_FORMAT },
};

START_TEST(encrypt_replies)
{
	struct cmek_kms_blob blob = { 0 };
	int rc = cmek_gcp_encrypt_reply(encrypt_rows[_i].text, strlen(encrypt_rows[_i].text), KEY, &blob, &err);

	ck_assert_msg(rc == encrypt_rows[_i].rc && err.kind == encrypt_rows[_i].kind, "%s: %d %s",
		      encrypt_rows[_i].text, rc, err.text);
	if (rc == 0) {
		ck_assert_uint_eq(blob.len, 10);
		ck_assert_int_eq(memcmp(blob.data, "ciphertext", 10), 0);
		ck_assert_str_eq(blob.resolved, KEY);
		ck_assert_str_eq(blob.version, "7");
	} else {
		ck_assert_ptr_null(blob.data);
	}
	cmek_kms_blob_done(&blob);
}
END_TEST

/* 32 bytes of 0xff: CRC-32C 0x62a8ab43 = 1655221059. */
#define PLAIN "\"//////////////////////////////////////////8=\""

static const struct {
	const char *text;
	int rc;
	bool primary;
} decrypt_rows[] = {
	{ "{\"plaintext\": " PLAIN ", \"plaintextCrc32c\": \"1655221059\", \"usedPrimary\": true}", 0, true },
	{ "{\"plaintext\": " PLAIN ", \"plaintextCrc32c\": \"1655221059\", \"usedPrimary\": false}", 0, false },
	{ "{\"plaintext\": " PLAIN ", \"plaintextCrc32c\": \"1655221059\"}", 0, false },
	{ "{\"plaintext\": " PLAIN ", \"plaintextCrc32c\": \"1655221058\"}", -EILSEQ, false },
	{ "{\"plaintext\": " PLAIN "}", -EINVAL, false },
	{ "{\"plaintext\": \"AAAA\", \"plaintextCrc32c\": \"0\"}", -EINVAL, false },
	{ "{\"plaintextCrc32c\": \"0\"}", -EINVAL, false },
	{ "{\"plaintext\": " PLAIN ", \"plaintextCrc32c\": \"1655221059\", \"usedPrimary\": \"yes\"}", -EINVAL, false },
};

START_TEST(decrypt_replies)
{
	struct cmek_secret *key = NULL;
	bool primary = false;
	int rc = cmek_gcp_decrypt_reply(decrypt_rows[_i].text, strlen(decrypt_rows[_i].text), &key, &primary, &err);

	ck_assert_msg(rc == decrypt_rows[_i].rc, "%s: %d %s", decrypt_rows[_i].text, rc, err.text);
	ck_assert_int_eq(primary, decrypt_rows[_i].primary);
	ck_assert_int_eq(key != NULL, rc == 0);
	ck_assert_ptr_null(strstr(err.text, "////"));
	cmek_secret_free(key);
}
END_TEST

#define KEY_TEXT(purpose, state) \
	"{\"name\": \"" KEY "\", \"purpose\": \"" purpose "\", \"createTime\": \"2026-01-02T03:04:05.123456789Z\", " \
	"\"rotationPeriod\": \"7776000s\", \"nextRotationTime\": \"2026-04-02T03:04:05Z\", " \
	"\"versionTemplate\": {\"protectionLevel\": \"HSM\", \"algorithm\": \"GOOGLE_SYMMETRIC_ENCRYPTION\"}, " \
	"\"destroyScheduledDuration\": \"86400s\", \"primary\": {\"name\": \"" KEY "/cryptoKeyVersions/3\", " \
	"\"state\": \"" state "\", \"protectionLevel\": \"SOFTWARE\", \"destroyTime\": \"2026-05-02T03:04:05Z\"}}"

static const struct {
	const char *text;
	enum cmek_kms_state state;
} state_rows[] = {
	{ KEY_TEXT("ENCRYPT_DECRYPT", "ENABLED"), CMEK_KMS_ENABLED },
	{ KEY_TEXT("ENCRYPT_DECRYPT", "DISABLED"), CMEK_KMS_DISABLED },
	{ KEY_TEXT("ENCRYPT_DECRYPT", "DESTROY_SCHEDULED"), CMEK_KMS_PENDING_DELETION },
	{ KEY_TEXT("ENCRYPT_DECRYPT", "DESTROYED"), CMEK_KMS_DESTROYED },
	{ KEY_TEXT("ENCRYPT_DECRYPT", "PENDING_GENERATION"), CMEK_KMS_STATE_UNKNOWN },
	{ KEY_TEXT("ENCRYPT_DECRYPT", "SOMETHING_NEW"), CMEK_KMS_STATE_UNKNOWN },
};

START_TEST(key_replies)
{
	struct cmek_kms_info info = { 0 };

	ck_assert_int_eq(cmek_gcp_key_reply(state_rows[_i].text, strlen(state_rows[_i].text), KEY, &info, &err), 0);
	ck_assert_int_eq(info.state, state_rows[_i].state);
	ck_assert_str_eq(info.resolved, KEY);
	ck_assert_str_eq(info.primary_version, "3");
	ck_assert_str_eq(info.protection_level, "SOFTWARE");
	ck_assert_str_eq(info.origin, "GOOGLE_KMS");
	ck_assert_int_eq(info.created, 1767323045);
	ck_assert_int_eq(info.rotation_s, 7776000);
	ck_assert_int_eq(info.next_rotation, 1775099045);
	cmek_kms_info_done(&info);
}
END_TEST

START_TEST(keys_of_another_kind)
{
	static const char sign[] = KEY_TEXT("ASYMMETRIC_SIGN", "ENABLED"), good[] = KEY_TEXT("ENCRYPT_DECRYPT", "ENABLED");
	static const char bare[] = "{\"name\": \"" KEY "\", \"purpose\": \"ENCRYPT_DECRYPT\"}";
	struct cmek_kms_info info = { 0 };

	ck_assert_int_eq(cmek_gcp_key_reply(sign, strlen(sign), KEY, &info, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_gcp_key_reply(good, strlen(good), KEY "2", &info, &err), -EBADMSG);
	ck_assert_int_eq(err.kind, CMEK_E_TAMPERED);
	cmek_error_clear(&err);
	/* A key whose material is still to be imported has no primary version. */
	ck_assert_int_eq(cmek_gcp_key_reply(bare, strlen(bare), KEY, &info, &err), 0);
	ck_assert_int_eq(info.state, CMEK_KMS_STATE_UNKNOWN);
	ck_assert_ptr_null(info.primary_version);
	cmek_kms_info_done(&info);
}
END_TEST

START_TEST(versions_come_in_pages)
{
	static const char first[] = "{\"cryptoKeyVersions\": [{\"name\": \"" KEY "/cryptoKeyVersions/1\", \"state\": "
				    "\"DESTROYED\", \"createTime\": \"2026-01-02T03:04:05.5Z\"}, {\"name\": \"" KEY
				    "/cryptoKeyVersions/2\", \"state\": \"ENABLED\"}], \"nextPageToken\": \"t1\", "
				    "\"totalSize\": 3}";
	static const char last[] = "{\"cryptoKeyVersions\": [{\"name\": \"" KEY "/cryptoKeyVersions/3\", \"state\": "
				   "\"DISABLED\"}], \"nextPageToken\": \"\"}";
	static const char other[] = "{\"cryptoKeyVersions\": [{\"name\": \"" KEY "2/cryptoKeyVersions/3\", \"state\": "
				    "\"DISABLED\"}]}";
	struct cmek_kms_info info = { 0 };
	char *next = NULL;

	ck_assert_int_eq(cmek_gcp_versions_reply(first, strlen(first), KEY, &info, &next, &err), 0);
	ck_assert_str_eq(next, "t1");
	free(next);
	ck_assert_int_eq(cmek_gcp_versions_reply(last, strlen(last), KEY, &info, &next, &err), 0);
	ck_assert_ptr_null(next);
	ck_assert_uint_eq(info.n_versions, 3);
	ck_assert_str_eq(info.versions[0].id, "1");
	ck_assert_int_eq(info.versions[0].state, CMEK_KMS_DESTROYED);
	ck_assert_int_eq(info.versions[0].created, 1767323045);
	ck_assert_int_eq(info.versions[1].state, CMEK_KMS_ENABLED);
	ck_assert_int_eq(info.versions[2].state, CMEK_KMS_DISABLED);
	ck_assert_int_eq(cmek_gcp_versions_reply(other, strlen(other), KEY, &info, &next, &err), -EBADMSG);
	ck_assert_uint_eq(info.n_versions, 3);
	ck_assert_int_eq(cmek_gcp_versions_reply("{}", 2, KEY, &info, &next, &err), 0);
	cmek_kms_info_done(&info);
}
END_TEST

START_TEST(version_replies)
{
	static const char text[] = "{\"name\": \"" KEY "/cryptoKeyVersions/12\", \"state\": \"DESTROY_SCHEDULED\", "
				   "\"destroyTime\": \"2026-01-02T03:04:05Z\"}";
	int64_t destroy = 0;
	char *id = NULL;

	ck_assert_int_eq(cmek_gcp_version_reply(text, strlen(text), KEY, &id, &destroy, &err), 0);
	ck_assert_str_eq(id, "12");
	ck_assert_int_eq(destroy, 1767323045);
	free(id);
	ck_assert_int_eq(cmek_gcp_version_reply(text, strlen(text), KEY, NULL, NULL, &err), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gcp_wire");
	TCase *tc = tcase_create("gcp_wire");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_loop_test(tc, crc32c_vector, 0, UNIT_ROWS(crc_rows));
	tcase_add_test(tc, requests);
	tcase_add_test(tc, largest_blob_fits_a_request);
	tcase_add_loop_test(tc, encrypt_replies, 0, UNIT_ROWS(encrypt_rows));
	tcase_add_loop_test(tc, decrypt_replies, 0, UNIT_ROWS(decrypt_rows));
	tcase_add_loop_test(tc, key_replies, 0, UNIT_ROWS(state_rows));
	tcase_add_test(tc, keys_of_another_kind);
	tcase_add_test(tc, versions_come_in_pages);
	tcase_add_test(tc, version_replies);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
