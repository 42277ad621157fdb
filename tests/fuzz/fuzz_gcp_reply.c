/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Answers of Google Cloud KMS. */
#include "config.h"

#include <string.h>

#include "kms/gcp_wire.h"
#include "tests/fuzz/reply.h"

#define KEY "projects/p/locations/l/keyRings/r/cryptoKeys/k"

static void fuzz_encrypt(const char *text, size_t len)
{
	struct cmek_kms_blob blob = { 0 };
	int rc = cmek_gcp_encrypt_reply(text, len, KEY, &blob, NULL);

	FUZZ_CHECK((rc == 0) == (blob.data != NULL));
	if (rc == 0)
		FUZZ_CHECK(blob.len >= 1 && blob.len <= CMEK_KMS_BLOB_MAX && !strcmp(blob.resolved, KEY) &&
			   blob.version[0] != '\0');
	cmek_kms_blob_done(&blob);
}

static void fuzz_decrypt(const char *text, size_t len)
{
	struct cmek_secret *key = NULL;
	bool primary = false;
	int rc = cmek_gcp_decrypt_reply(text, len, &key, &primary, NULL);

	FUZZ_CHECK((rc == 0) == (key != NULL));
	FUZZ_CHECK(rc != 0 || cmek_secret_len(key) == 32);
	cmek_secret_free(key);
}

static void fuzz_key(const char *text, size_t len)
{
	struct cmek_kms_info info = { 0 };
	int rc = cmek_gcp_key_reply(text, len, KEY, &info, NULL);

	FUZZ_CHECK((rc == 0) == (info.resolved != NULL));
	cmek_kms_info_done(&info);
}

static void fuzz_versions(const char *text, size_t len)
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

static void fuzz_error(const char *text, size_t len)
{
	fuzz_problem(CMEK_KMS_SERVICE_GCP, 400, cmek_gcp_read_problem, text, len);
}

const struct fuzz_parser fuzz_parsers[] = {
	{ 'e', fuzz_encrypt },
	{ 'd', fuzz_decrypt },
	{ 'k', fuzz_key },
	{ 'v', fuzz_versions },
	{ 0, fuzz_error },
};
