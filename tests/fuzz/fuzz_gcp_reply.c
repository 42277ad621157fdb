/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Answers of Google Cloud KMS: the first byte says what was asked, the rest is the body. What a parser takes holds to what
 * its header promises; what it refuses leaves nothing behind.
 */
#include "config.h"

#include <string.h>

#include "kms/gcp_wire.h"
#include "kms/json.h"
#include "tests/fuzz/fuzz.h"

#define KEY "projects/p/locations/l/keyRings/r/cryptoKeys/k"

static void fuzz_encrypt(const void *text, size_t len)
{
	struct cmek_kms_blob blob = { 0 };
	int rc = cmek_gcp_encrypt_reply(text, len, KEY, &blob, NULL);

	FUZZ_CHECK((rc == 0) == (blob.data != NULL));
	if (rc == 0)
		FUZZ_CHECK(blob.len >= 1 && blob.len <= CMEK_KMS_BLOB_MAX && !strcmp(blob.resolved, KEY) &&
			   blob.version[0] != '\0');
	cmek_kms_blob_done(&blob);
}

static void fuzz_decrypt(const void *text, size_t len)
{
	struct cmek_secret *key = NULL;
	bool primary = false;
	int rc = cmek_gcp_decrypt_reply(text, len, &key, &primary, NULL);

	FUZZ_CHECK((rc == 0) == (key != NULL));
	FUZZ_CHECK(rc != 0 || cmek_secret_len(key) == 32);
	cmek_secret_free(key);
}

static void fuzz_key(const void *text, size_t len)
{
	struct cmek_kms_info info = { 0 };
	int rc = cmek_gcp_key_reply(text, len, KEY, &info, NULL);

	FUZZ_CHECK((rc == 0) == (info.resolved != NULL));
	cmek_kms_info_done(&info);
}

static void fuzz_versions(const void *text, size_t len)
{
	struct cmek_kms_info info = { 0 };
	char *next = NULL, *id = NULL;
	int64_t destroy = 0;
	int rc = cmek_gcp_versions_reply(text, len, KEY, &info, &next, NULL);

	FUZZ_CHECK(rc == 0 || next == NULL);
	for (size_t i = 0; i < info.n_versions; i++)
		FUZZ_CHECK(info.versions[i].id && strspn(info.versions[i].id, "0123456789") == strlen(info.versions[i].id));
	cmek_kms_info_done(&info);
	free(next);
	rc = cmek_gcp_version_reply(text, len, KEY, &id, &destroy, NULL);
	FUZZ_CHECK((rc == 0) == (id != NULL));
	free(id);
}

static void fuzz_problem(const uint8_t *text, size_t len)
{
	struct cmek_http_response resp = { .status = 400, .body_len = len };
	struct cmek_problem problem = { { 0 }, { 0 } };

	resp.body = calloc(1, len + 1);
	FUZZ_CHECK(resp.body != NULL);
	memcpy(resp.body, text, len);
	cmek_gcp_read_problem(&resp, &problem);
	for (const char *p = problem.message; *p; p++)
		FUZZ_CHECK(*p >= ' ' && *p <= '~');
	FUZZ_CHECK(cmek_problem_classify(CMEK_KMS_SERVICE_GCP, 400, problem.code).kind != CMEK_E_NONE);
	cmek_http_response_done(&resp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	cmek_secret_allow_unlocked();
	cmek_json_init();
	switch (data[0]) {
	case 'e':
		fuzz_encrypt(data + 1, size - 1);
		break;
	case 'd':
		fuzz_decrypt(data + 1, size - 1);
		break;
	case 'k':
		fuzz_key(data + 1, size - 1);
		break;
	case 'v':
		fuzz_versions(data + 1, size - 1);
		break;
	default:
		fuzz_problem(data + 1, size - 1);
	}
	return 0;
}
