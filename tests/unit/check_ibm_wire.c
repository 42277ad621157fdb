/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Bodies of IBM Key Protect, as its reference shows them. */
#include "config.h"

#include "kms/ibm_wire.h"
#include "kms/json.h"
#include "tests/unit/unit.h"

#define ID "2fe79d14-7f5d-4bae-b0e6-4a5c5b1a8d7b"
#define CRN "crn:v1:bluemix:public:kms:eu-de:a/0123:8e19aaff-df40-4623-bef2-86cb19a9d8bd:key:" ID

static struct cmek_error err;
static const struct cmek_kms_context ctx = { .volume = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
					     .purpose = "data" };

static void setup(void)
{
	cmek_secret_allow_unlocked();
	cmek_json_init();
	cmek_error_clear(&err);
}

static void assert_body(struct cmek_secret *body, const char *want)
{
	ck_assert_ptr_nonnull(body);
	ck_assert_uint_eq(cmek_secret_len(body), strlen(want));
	ck_assert_int_eq(memcmp(cmek_secret_bytes(body, CMEK_KEY_TEXT), want, strlen(want)), 0);
	cmek_secret_free(body);
}

#define AAD "\"aad\":[\"cmekfs:volume=01020304-0506-0708-090a-0b0c0d0e0f10\",\"cmekfs:slot=data\"]"
/* 32 bytes of 0xff */
#define PLAIN "//////////////////////////////////////////8="

START_TEST(requests)
{
	struct cmek_kms_blob blob = { .data = (uint8_t *)"eyJhIjoxfQ==", .len = 12 };
	struct cmek_secret *key = NULL, *body = NULL;
	uint8_t kek[32];

	memset(kek, 0xff, sizeof(kek));
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_KEK, kek, sizeof(kek), &key, NULL), 0);
	ck_assert_int_eq(cmek_ibm_wrap_request(&ctx, key, &body, &err), 0);
	assert_body(body, "{\"plaintext\":\"" PLAIN "\"," AAD "}");
	ck_assert_int_eq(cmek_ibm_unwrap_request(&ctx, &blob, &body, &err), 0);
	assert_body(body, "{\"ciphertext\":\"eyJhIjoxfQ==\"," AAD "}");
	cmek_secret_free(key);
}
END_TEST

/* A slot is not trusted: its blob must not write JSON of its own. */
START_TEST(a_blob_can_not_escape)
{
	struct cmek_kms_blob blob = { .data = (uint8_t *)"abc\",\"x\":\"", .len = 10 };
	struct cmek_secret *body = NULL;

	ck_assert_int_eq(cmek_ibm_unwrap_request(&ctx, &blob, &body, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
	blob.data = (uint8_t *)"abc\0";
	blob.len = 4;
	ck_assert_int_eq(cmek_ibm_unwrap_request(&ctx, &blob, &body, NULL), -EINVAL);
	ck_assert_ptr_null(body);
}
END_TEST

static const struct {
	const char *text, *version; /* NULL = refused */
} wrap_rows[] = {
	{ "{\"ciphertext\": \"eyJhIjoxfQ==\", \"keyVersion\": {\"id\": \"v1\"}}", "v1" },
	{ "{\"ciphertext\": \"eyJhIjoxfQ==\", \"keyVersion\": {\"id\": \"v1\"}, \"rewrappedKeyVersion\": {\"id\": "
	  "\"v2\"}}", "v2" },
	{ "{\"ciphertext\": \"eyJhIjoxfQ==\"}", "" },
	{ "{\"ciphertext\": \"\"}", NULL },
	{ "{\"ciphertext\": \"a b\"}", NULL },
	{ "{\"ciphertext\": \"eyJhIjoxfQ==\", \"keyVersion\": \"v1\"}", NULL },
	{ "{}", NULL },
	{ "", NULL },
};

START_TEST(wrap_replies)
{
	struct cmek_kms_blob blob = { 0 };
	int rc = cmek_ibm_wrap_reply(wrap_rows[_i].text, strlen(wrap_rows[_i].text), CRN, &blob, &err);

	if (!wrap_rows[_i].version) {
		ck_assert_int_eq(rc, -EINVAL);
		ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
		ck_assert_ptr_null(blob.data);
		return;
	}
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_eq(blob.len, 12);
	ck_assert_int_eq(memcmp(blob.data, "eyJhIjoxfQ==", 12), 0);
	ck_assert_str_eq(blob.resolved, CRN);
	ck_assert_str_eq(blob.version, wrap_rows[_i].version);
	cmek_kms_blob_done(&blob);
}
END_TEST

START_TEST(unwrap_replies)
{
	static const char plain[] = "{\"plaintext\": \"" PLAIN "\", \"keyVersion\": {\"id\": \"v1\"}}";
	static const char rotated[] = "{\"plaintext\": \"" PLAIN "\", \"ciphertext\": \"bmV3\", \"keyVersion\": "
				      "{\"id\": \"v1\"}, \"rewrappedKeyVersion\": {\"id\": \"v2\"}}";
	static const char cut[] = "{\"plaintext\": \"AAAA\"}";
	struct cmek_secret *key = NULL;
	struct cmek_kms_blob fresh = { 0 };

	ck_assert_int_eq(cmek_ibm_unwrap_reply(plain, strlen(plain), CRN, &key, &fresh, &err), 0);
	ck_assert_uint_eq(cmek_secret_bytes(key, CMEK_KEY_KEK)[31], 0xff);
	ck_assert_ptr_null(fresh.data);
	cmek_secret_free(key);
	ck_assert_int_eq(cmek_ibm_unwrap_reply(rotated, strlen(rotated), CRN, &key, &fresh, &err), 0);
	cmek_secret_free(key);
	ck_assert_uint_eq(fresh.len, 4);
	ck_assert_str_eq(fresh.version, "v2");
	cmek_kms_blob_done(&fresh);
	ck_assert_int_eq(cmek_ibm_unwrap_reply(cut, strlen(cut), CRN, &key, &fresh, &err), -EINVAL);
	ck_assert_ptr_null(strstr(err.text, "AAAA"));
}
END_TEST

#define META(rest) \
	"{\"metadata\": {\"collectionTotal\": 1}, \"resources\": [{\"id\": \"" ID "\", \"name\": \"db\", " \
	"\"extractable\": false, \"keyRingID\": \"default\", \"creationDate\": \"2026-01-02T03:04:05Z\", " \
	"\"keyVersion\": {\"id\": \"v2\"}, " rest "}]}"
#define DELETED META("\"state\": 5, \"deleted\": true, \"deletionDate\": \"2026-01-02T03:04:05Z\", " \
		     "\"purgeAllowedFrom\": \"2026-01-02T07:04:05Z\", \"purgeScheduledOn\": \"2026-04-02T03:04:05Z\"")
#define DELETION 1767323045

static const struct {
	const char *text;
	int64_t now;
	enum cmek_kms_state state;
	int64_t date;
	const char *remark; /* a part of it; NULL = none */
} state_rows[] = {
	{ META("\"state\": 1"), 0, CMEK_KMS_ENABLED, 0, NULL },
	{ META("\"state\": 1, \"dualAuthDelete\": {\"enabled\": true}"), 0, CMEK_KMS_ENABLED, 0, "two people" },
	{ META("\"state\": 1, \"dualAuthDelete\": {\"enabled\": false}"), 0, CMEK_KMS_ENABLED, 0, NULL },
	{ META("\"state\": 2"), 0, CMEK_KMS_DISABLED, 0, NULL },
	{ META("\"state\": 3"), 0, CMEK_KMS_STATE_UNKNOWN, 0, "still unwraps" },
	{ META("\"state\": 0"), 0, CMEK_KMS_STATE_UNKNOWN, 0, NULL },
	{ META("\"state\": 9"), 0, CMEK_KMS_STATE_UNKNOWN, 0, NULL },
	{ DELETED, DELETION + 100, CMEK_KMS_PENDING_DELETION, DELETION + 30 * 86400,
	  "deleted; it can be restored until 2026-02-01T03:04:05Z; a holder of the KeyPurge role may purge it from "
	  "2026-01-02T07:04:05Z; the service purges it on 2026-04-02T03:04:05Z" },
	{ DELETED, DELETION + 31 * 86400, CMEK_KMS_DESTROYED, DELETION,
	  "deleted; it could be restored until 2026-02-01T03:04:05Z" },
};

START_TEST(metadata)
{
	struct cmek_kms_info info = { 0 };
	char ring[CMEK_IBM_RING_ROOM];

	ck_assert_int_eq(cmek_ibm_metadata_reply(state_rows[_i].text, strlen(state_rows[_i].text), CRN, ID,
						 state_rows[_i].now, &info, ring, &err), 0);
	ck_assert_int_eq(info.state, state_rows[_i].state);
	ck_assert_int_eq(info.deletion_date, state_rows[_i].date);
	if (state_rows[_i].remark)
		ck_assert_msg(info.remark && strstr(info.remark, state_rows[_i].remark), "%s", info.remark);
	else
		ck_assert_ptr_null(info.remark);
	ck_assert_str_eq(info.resolved, CRN);
	ck_assert_str_eq(info.primary_version, "v2");
	ck_assert_str_eq(info.origin, "KEY_PROTECT");
	ck_assert_int_eq(info.created, DELETION);
	ck_assert_str_eq(ring, "default");
	cmek_kms_info_done(&info);
}
END_TEST

static const struct {
	const char *text;
	enum cmek_kind kind;
} bad_rows[] = {
	{ "{\"resources\": []}", CMEK_E_BAD_FORMAT },
	{ "{\"resources\": [1]}", CMEK_E_BAD_FORMAT },
	{ "{\"resources\": [{\"id\": \"other\", \"extractable\": false, \"state\": 1}]}", CMEK_E_TAMPERED },
	{ "{\"resources\": [{\"id\": \"" ID "\", \"extractable\": true, \"state\": 1}]}", CMEK_E_USAGE },
	{ "{\"resources\": [{\"id\": \"" ID "\", \"extractable\": false}]}", CMEK_E_BAD_FORMAT },
	{ "{\"resources\": [{\"id\": \"" ID "\", \"extractable\": false, \"state\": -1}]}", CMEK_E_BAD_FORMAT },
	{ META("\"state\": 5, \"deletionDate\": \"yesterday\""), CMEK_E_BAD_FORMAT },
	{ "{\"resources\": [{\"id\": \"" ID "\", \"extractable\": false, \"state\": 1, \"keyRingID\": \"a\\r\\nb: c\"}]}",
	  CMEK_E_BAD_FORMAT },
	{ "[]", CMEK_E_BAD_FORMAT },
};

START_TEST(metadata_that_is_refused)
{
	struct cmek_kms_info info = { 0 };
	char ring[CMEK_IBM_RING_ROOM];

	ck_assert_int_lt(cmek_ibm_metadata_reply(bad_rows[_i].text, strlen(bad_rows[_i].text), CRN, ID, 0, &info, ring,
						 &err), 0);
	ck_assert_msg(err.kind == bad_rows[_i].kind, "%s: %s", bad_rows[_i].text, err.text);
	ck_assert_ptr_null(info.resolved);
}
END_TEST

START_TEST(lists)
{
	static const char versions[] = "{\"resources\": [{\"id\": \"v2\", \"creationDate\": \"2026-01-02T03:04:05Z\"}, "
				       "{\"id\": \"v1\"}]}";
	static const char regs_text[] = "{\"resources\": [{\"keyId\": \"" ID "\", \"resourceCrn\": \"crn:v1:x\", "
					"\"description\": \"a bucket\", \"preventKeyDeletion\": true, \"creationDate\": "
					"\"2026-01-02T03:04:05Z\"}, {\"resourceCrn\": \"crn:v1:y\"}]}";
	static const char half[] = "{\"resources\": [{\"resourceCrn\": \"crn:v1:z\", \"creationDate\": 5}]}";
	struct cmek_kms_registration *regs = NULL;
	struct cmek_kms_info info = { .state = CMEK_KMS_ENABLED };
	size_t page = 0, n = 0;

	ck_assert_int_eq(cmek_ibm_versions_reply(versions, strlen(versions), &info, &page, &err), 0);
	ck_assert_uint_eq(page, 2);
	ck_assert_uint_eq(info.n_versions, 2);
	ck_assert_str_eq(info.versions[0].id, "v2");
	ck_assert_int_eq(info.versions[0].created, DELETION);
	ck_assert_int_eq(cmek_ibm_versions_reply("{}", 2, &info, &page, &err), 0);
	ck_assert_uint_eq(page, 0);
	cmek_kms_info_done(&info);

	ck_assert_int_eq(cmek_ibm_registrations_reply(regs_text, strlen(regs_text), &regs, &n, &page, &err), 0);
	ck_assert_uint_eq(n, 2);
	ck_assert_str_eq(regs[0].resource, "crn:v1:x");
	ck_assert(regs[0].prevents_deletion);
	ck_assert_str_eq(regs[1].description, "");
	ck_assert_int_eq(cmek_ibm_registrations_reply(half, strlen(half), &regs, &n, &page, &err), -EINVAL);
	for (size_t i = 0; i < n; i++)
		cmek_kms_registration_done(&regs[i]);
	free(regs);
}
END_TEST

START_TEST(created)
{
	static const char text[] = "{\"resources\": [{\"id\": \"" ID "\", \"crn\": \"" CRN "\"}]}";
	char *crn = NULL;

	ck_assert_int_eq(cmek_ibm_create_reply(text, strlen(text), &crn, &err), 0);
	ck_assert_str_eq(crn, CRN);
	free(crn);
	crn = NULL;
	ck_assert_int_eq(cmek_ibm_create_reply("{\"resources\": [{}]}", 19, &crn, &err), -EINVAL);
	ck_assert_ptr_null(crn);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ibm_wire");
	TCase *tc = tcase_create("ibm_wire");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, requests);
	tcase_add_test(tc, a_blob_can_not_escape);
	tcase_add_loop_test(tc, wrap_replies, 0, UNIT_ROWS(wrap_rows));
	tcase_add_test(tc, unwrap_replies);
	tcase_add_loop_test(tc, metadata, 0, UNIT_ROWS(state_rows));
	tcase_add_loop_test(tc, metadata_that_is_refused, 0, UNIT_ROWS(bad_rows));
	tcase_add_test(tc, lists);
	tcase_add_test(tc, created);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
