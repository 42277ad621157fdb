/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Answers of IBM Key Protect and IAM. */
#include "config.h"

#include <string.h>

#include "kms/cloud.h"
#include "kms/ibm_wire.h"
#include "kms/json.h"
#include "tests/fuzz/reply.h"

#define ID "2fe79d14-7f5d-4bae-b0e6-4a5c5b1a8d7b"
#define CRN "crn:v1:bluemix:public:kms:eu-de:a/0123:8e19aaff-df40-4623-bef2-86cb19a9d8bd:key:" ID

static const struct cmek_kms_context ctx = { .purpose = "data" };

/* A blob that was taken can be sent back. */
static void check_blob(struct cmek_kms_blob *blob)
{
	struct cmek_secret *body = NULL;
	json_t *json = NULL;

	FUZZ_CHECK(blob->len >= 1 && blob->len <= CMEK_KMS_BLOB_MAX && !strcmp(blob->resolved, CRN) && blob->version);
	FUZZ_CHECK(cmek_ibm_unwrap_request(&ctx, blob, &body, NULL) == 0);
	FUZZ_CHECK(cmek_json_parse(cmek_secret_bytes(body, CMEK_KEY_TEXT), cmek_secret_len(body), "x", &json, NULL) == 0);
	FUZZ_CHECK(json_object_size(json) == 2);
	json_decref(json);
	cmek_secret_free(body);
	cmek_kms_blob_done(blob);
}

static void fuzz_wrap(const char *text, size_t len)
{
	struct cmek_kms_blob blob = { 0 };

	if (cmek_ibm_wrap_reply(text, len, CRN, &blob, NULL) == 0)
		check_blob(&blob);
	FUZZ_CHECK(blob.data == NULL);
}

static void fuzz_unwrap(const char *text, size_t len)
{
	struct cmek_kms_blob fresh = { 0 };
	struct cmek_secret *key = NULL;
	int rc = cmek_ibm_unwrap_reply(text, len, CRN, &key, &fresh, NULL);

	FUZZ_CHECK((rc == 0) == (key != NULL));
	FUZZ_CHECK(rc != 0 || cmek_secret_len(key) == 32);
	if (fresh.data)
		check_blob(&fresh);
	cmek_secret_free(key);
}

static void fuzz_metadata(const char *text, size_t len)
{
	char ring[CMEK_IBM_RING_ROOM];
	struct cmek_kms_info info = { 0 };
	int rc = cmek_ibm_metadata_reply(text, len, CRN, ID, 1700000000, &info, ring, NULL);

	FUZZ_CHECK((rc == 0) == (info.resolved != NULL));
	cmek_kms_info_done(&info);
}

static void fuzz_lists(const char *text, size_t len)
{
	struct cmek_kms_registration *regs = NULL;
	struct cmek_kms_info info = { 0 };
	size_t n = 0, page = 0;
	char *crn = NULL;

	if (cmek_ibm_versions_reply(text, len, &info, &page, NULL) == 0)
		FUZZ_CHECK(info.n_versions == page);
	cmek_kms_info_done(&info);
	if (cmek_ibm_registrations_reply(text, len, &regs, &n, &page, NULL) == 0)
		FUZZ_CHECK(n == page);
	for (size_t i = 0; i < n; i++)
		cmek_kms_registration_done(&regs[i]);
	free(regs);
	if (cmek_ibm_create_reply(text, len, &crn, NULL) == 0)
		FUZZ_CHECK(crn != NULL);
	free(crn);
}

/* Errors, and answers of token endpoints of both clouds. */
static void fuzz_rest(const char *text, size_t len)
{
	const struct cmek_http_response resp = { .status = 200, .body = (char *)text, .body_len = len };
	struct cmek_secret *token = NULL;
	int64_t expires = 0;

	fuzz_problem(CMEK_KMS_SERVICE_IBM, 409, cmek_ibm_read_problem, text, len);
	if (cmek_cloud_token_reply(&resp, "x", "access_token", "expires_in", 5, &token, &expires, NULL) == 0) {
		FUZZ_CHECK(expires >= 5);
		for (size_t i = 0; i < cmek_secret_len(token); i++)
			FUZZ_CHECK(cmek_secret_bytes(token, CMEK_KEY_TEXT)[i] > ' ');
	}
	cmek_secret_free(token);
}

const struct fuzz_parser fuzz_parsers[] = {
	{ 'w', fuzz_wrap },
	{ 'u', fuzz_unwrap },
	{ 'm', fuzz_metadata },
	{ 'l', fuzz_lists },
	{ 0, fuzz_rest },
};
