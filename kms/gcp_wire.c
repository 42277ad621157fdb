/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Bodies of Google Cloud KMS's REST API. It does no I/O and does not know how a request is authorised, nor when one is
 * sent again.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "kms/crc32c.h"
#include "kms/gcp_wire.h"
#include "kms/json.h"

#define KEK_LEN 32
#define VERSIONS "/cryptoKeyVersions/"
#define VERSION_DIGITS_MAX 10
#define BODY_MAX_BYTES 20000
#define VERSIONS_MAX 10000 /* no key has near as many; a reply must not make us keep more */

/* ---- requests ---- */

size_t cmek_gcp_aad(const struct cmek_kms_context *ctx, char out[CMEK_GCP_AAD_MAX])
{
	char uuid[CMEK_UUID_TEXT];

	cmek_uuid_encode(ctx->volume, uuid);
	return (size_t)snprintf(out, CMEK_GCP_AAD_MAX, "cmekfs:volume=%s,cmekfs:slot=%s", uuid, ctx->purpose);
}

/* {"field": b64, "fieldCrc32c": "N", and the same of the context}. No value needs an escape. */
static int make_body(const char *field, const struct cmek_kms_context *ctx, const uint8_t *bytes, size_t len,
		     struct cmek_secret **ret_body, struct cmek_error *err)
{
	char aad[CMEK_GCP_AAD_MAX], aad_b64[CMEK_B64_LEN(CMEK_GCP_AAD_MAX) + 1];
	size_t aad_len = cmek_gcp_aad(ctx, aad);
	struct cmek_secret *b64 = NULL, *room = NULL;
	char *text;
	int n, rc;

	rc = cmek_secret_new(CMEK_KEY_TEXT, CMEK_B64_LEN(len) + 1, &b64, err);
	if (rc == 0)
		rc = cmek_secret_new(CMEK_KEY_TEXT, BODY_MAX_BYTES, &room, err);
	if (rc < 0)
		goto out;
	cmek_b64_encode(bytes, len, (char *)cmek_secret_fill(b64, CMEK_KEY_TEXT));
	cmek_b64_encode(aad, aad_len, aad_b64);
	text = (char *)cmek_secret_fill(room, CMEK_KEY_TEXT);
	n = snprintf(text, BODY_MAX_BYTES,
		     "{\"%s\":\"%s\",\"%sCrc32c\":\"%" PRIu32 "\",\"additionalAuthenticatedData\":\"%s\","
		     "\"additionalAuthenticatedDataCrc32c\":\"%" PRIu32 "\"}",
		     field, (const char *)cmek_secret_bytes(b64, CMEK_KEY_TEXT), field, cmek_crc32c(bytes, len), aad_b64,
		     cmek_crc32c(aad, aad_len));
	if (n >= BODY_MAX_BYTES)
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EMSGSIZE, "a wrapped key of %zu bytes", len);
	else
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, text, (size_t)n, ret_body, err);
out:
	cmek_secret_free(room);
	cmek_secret_free(b64);
	return rc;
}

int cmek_gcp_encrypt_request(const struct cmek_kms_context *ctx, const struct cmek_secret *key,
			     struct cmek_secret **ret_body, struct cmek_error *err)
{
	return make_body("plaintext", ctx, cmek_secret_bytes(key, CMEK_KEY_KEK), cmek_secret_len(key), ret_body, err);
}

int cmek_gcp_decrypt_request(const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
			     struct cmek_secret **ret_body, struct cmek_error *err)
{
	return make_body("ciphertext", ctx, blob->data, blob->len, ret_body, err);
}

/* ---- parts of replies ---- */

/* An int64 as this API writes it: a string of digits. */
static int check_crc(const struct cmek_json_at *at, const char *name, const void *data, size_t len,
		     struct cmek_error *err)
{
	const char *text = NULL;
	uint64_t crc = 0;
	int rc = cmek_json_string(at, name, &text, err);

	if (rc < 0)
		return rc;
	if (cmek_parse_u64(text, UINT32_MAX, &crc) < 0)
		return cmek_json_bad(at, name, "is not a checksum", err);
	if (crc != cmek_crc32c(data, len))
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EILSEQ,
				      "the reply was changed on its way: %s does not fit", name);
	return 0;
}

static int check_verified(const struct cmek_json_at *at, const char *name, struct cmek_error *err)
{
	bool verified = false;
	int rc = cmek_json_has(at, name) ? cmek_json_bool(at, name, &verified, err) : 0;

	if (rc < 0)
		return rc;
	if (!verified)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EILSEQ,
				      "the request was changed on its way: the service did not find its checksum (%s)", name);
	return 0;
}

/* The number behind "KEY/cryptoKeyVersions/", a pointer into name; NULL if it is not a version of this key. */
static const char *version_number(const char *name, const char *key_name)
{
	size_t len = strlen(key_name);
	const char *number;

	if (strncmp(name, key_name, len) != 0 || strncmp(name + len, VERSIONS, strlen(VERSIONS)) != 0)
		return NULL;
	number = name + len + strlen(VERSIONS);
	len = strlen(number);
	return len >= 1 && len <= VERSION_DIGITS_MAX && strspn(number, "0123456789") == len ? number : NULL;
}

/* The number of the version that the object's `name` names. */
static int read_version(const struct cmek_json_at *at, const char *key_name, const char **ret_number,
			struct cmek_error *err)
{
	const char *name = NULL, *number;
	int rc = cmek_json_string(at, "name", &name, err);

	if (rc < 0)
		return rc;
	number = version_number(name, key_name);
	if (!number)
		return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "another key answered than %s, which was asked",
				      key_name);
	*ret_number = number;
	return 0;
}

static enum cmek_kms_state state_of(const char *name)
{
	static const struct {
		const char *name;
		enum cmek_kms_state state;
	} states[] = {
		{ "ENABLED", CMEK_KMS_ENABLED },
		{ "DISABLED", CMEK_KMS_DISABLED },
		{ "DESTROY_SCHEDULED", CMEK_KMS_PENDING_DELETION },
		{ "DESTROYED", CMEK_KMS_DESTROYED },
		{ "PENDING_EXTERNAL_DESTRUCTION", CMEK_KMS_DESTROYED },
	};

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		if (!strcmp(states[i].name, name))
			return states[i].state;
	}
	return CMEK_KMS_STATE_UNKNOWN;
}

static int copy(const char *text, char **ret_copy, struct cmek_error *err)
{
	char *s = strdup(text);

	if (!s)
		return cmek_error_sys(err, ENOMEM, "reading a reply");
	free(*ret_copy);
	*ret_copy = s;
	return 0;
}

/* Base64 of 1 to max bytes that are not secret. */
static int read_bytes(const struct cmek_json_at *at, const char *name, size_t max, uint8_t **ret_data, size_t *ret_len,
		      struct cmek_error *err)
{
	const char *text = NULL;
	uint8_t *data;
	long n;
	int rc = cmek_json_string(at, name, &text, err);

	if (rc < 0)
		return rc;
	data = malloc(max);
	if (!data)
		return cmek_error_sys(err, ENOMEM, "reading a reply");
	n = cmek_b64_decode(text, strlen(text), data, max);
	if (n < 1) {
		free(data);
		return cmek_json_bad(at, name, "is not base64 of an acceptable length", err);
	}
	*ret_data = data;
	*ret_len = (size_t)n;
	return 0;
}

/* ---- replies ---- */

int cmek_gcp_encrypt_reply(const void *text, size_t len, const char *key_name, struct cmek_kms_blob *ret_blob,
			   struct cmek_error *err)
{
	struct cmek_kms_blob blob = { 0 };
	const char *number = NULL;
	struct cmek_json_at at;
	json_t *json = NULL;
	int rc;

	rc = cmek_json_parse(text, len, "the reply to encrypt", &json, err);
	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the reply to encrypt");
	rc = read_version(&at, key_name, &number, err);
	if (rc == 0)
		rc = check_verified(&at, "verifiedPlaintextCrc32c", err);
	if (rc == 0)
		rc = check_verified(&at, "verifiedAdditionalAuthenticatedDataCrc32c", err);
	if (rc == 0)
		rc = read_bytes(&at, "ciphertext", CMEK_KMS_BLOB_MAX, &blob.data, &blob.len, err);
	if (rc == 0)
		rc = check_crc(&at, "ciphertextCrc32c", blob.data, blob.len, err);
	if (rc == 0)
		rc = copy(key_name, &blob.resolved, err);
	if (rc == 0)
		rc = copy(number, &blob.version, err);
	json_decref(json);
	if (rc == 0)
		*ret_blob = blob;
	else
		cmek_kms_blob_done(&blob);
	return rc;
}

int cmek_gcp_decrypt_reply(const void *text, size_t len, struct cmek_secret **ret_key, bool *ret_primary,
			   struct cmek_error *err)
{
	struct cmek_secret *key = NULL;
	struct cmek_json_at at;
	json_t *json = NULL;
	bool primary = false; /* proto3 leaves out what is false */
	int rc;

	rc = cmek_json_parse(text, len, "the reply to decrypt", &json, err);
	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the reply to decrypt");
	rc = cmek_json_secret_b64(&at, "plaintext", CMEK_KEY_KEK, KEK_LEN, &key, err);
	if (rc == 0)
		rc = check_crc(&at, "plaintextCrc32c", cmek_secret_bytes(key, CMEK_KEY_KEK), KEK_LEN, err);
	if (rc == 0 && cmek_json_has(&at, "usedPrimary"))
		rc = cmek_json_bool(&at, "usedPrimary", &primary, err);
	json_decref(json);
	if (rc < 0) {
		cmek_secret_free(key);
		return rc;
	}
	*ret_key = key;
	*ret_primary = primary;
	return 0;
}

static int read_version_state(const struct cmek_json_at *at, enum cmek_kms_state *ret_state, struct cmek_error *err)
{
	const char *state = NULL;
	int rc = cmek_json_string(at, "state", &state, err);

	if (rc == 0)
		*ret_state = state_of(state);
	return rc;
}

/* Origin and protection level, from the object that tells the level. */
static int read_level(const struct cmek_json_at *at, struct cmek_kms_info *info, struct cmek_error *err)
{
	const char *level = NULL;
	int rc;

	if (!cmek_json_has(at, "protectionLevel"))
		return 0;
	rc = cmek_json_string(at, "protectionLevel", &level, err);
	if (rc == 0)
		rc = copy(level, &info->protection_level, err);
	if (rc == 0)
		rc = copy(strncmp(level, "EXTERNAL", 8) == 0 ? "EXTERNAL" :
			  cmek_json_has(at, "importJob")     ? "IMPORTED" :
							       "GOOGLE_KMS",
			  &info->origin, err);
	return rc;
}

/* The primary version, if the key has one. */
static int read_primary(const struct cmek_json_at *at, const char *key_name, struct cmek_kms_info *info,
			struct cmek_error *err)
{
	const char *number = NULL;
	struct cmek_json_at primary;
	int rc;

	if (!cmek_json_has(at, "primary"))
		return 0;
	rc = cmek_json_object(at, "primary", &primary, err);
	if (rc == 0)
		rc = read_version(&primary, key_name, &number, err);
	if (rc == 0)
		rc = copy(number, &info->primary_version, err);
	if (rc == 0)
		rc = read_version_state(&primary, &info->state, err);
	if (rc == 0)
		rc = cmek_json_opt_time(&primary, info->state == CMEK_KMS_DESTROYED ? "destroyEventTime" : "destroyTime",
			       &info->deletion_date, err);
	if (rc == 0)
		rc = read_level(&primary, info, err);
	return rc;
}

/* "7776000s": how often it is rotated, and when next. */
static int read_rotation(const struct cmek_json_at *at, struct cmek_kms_info *info, struct cmek_error *err)
{
	const char *text = NULL;
	uint64_t seconds = 0;
	int rc;

	if (cmek_json_has(at, "rotationPeriod")) {
		rc = cmek_json_string(at, "rotationPeriod", &text, err);
		if (rc < 0)
			return rc;
		if (cmek_parse_duration(text, &seconds) < 0 || seconds > INT64_MAX)
			return cmek_json_bad(at, "rotationPeriod", "is not a duration", err);
		info->rotation_s = (int64_t)seconds;
	}
	return cmek_json_opt_time(at, "nextRotationTime", &info->next_rotation, err);
}

int cmek_gcp_key_reply(const void *text, size_t len, const char *key_name, struct cmek_kms_info *ret_info,
		       struct cmek_error *err)
{
	struct cmek_kms_info info = { .state = CMEK_KMS_STATE_UNKNOWN };
	const char *name = NULL, *purpose = NULL;
	struct cmek_json_at at, template;
	json_t *json = NULL;
	int rc;

	rc = cmek_json_parse(text, len, "the reply on the key", &json, err);
	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the reply on the key");
	rc = cmek_json_string(&at, "name", &name, err);
	if (rc == 0 && strcmp(name, key_name) != 0)
		rc = cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "another key answered than %s, which was asked", key_name);
	if (rc == 0)
		rc = cmek_json_string(&at, "purpose", &purpose, err);
	if (rc == 0 && strcmp(purpose, "ENCRYPT_DECRYPT") != 0)
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				    "%s is not a key that encrypts and decrypts (purpose ENCRYPT_DECRYPT)", key_name);
	if (rc == 0)
		rc = copy(key_name, &info.resolved, err);
	if (rc == 0)
		rc = cmek_json_opt_time(&at, "createTime", &info.created, err);
	if (rc == 0 && cmek_json_has(&at, "versionTemplate")) {
		rc = cmek_json_object(&at, "versionTemplate", &template, err);
		if (rc == 0)
			rc = read_level(&template, &info, err);
	}
	if (rc == 0)
		rc = read_rotation(&at, &info, err);
	if (rc == 0)
		rc = read_primary(&at, key_name, &info, err);
	json_decref(json);
	if (rc == 0)
		*ret_info = info;
	else
		cmek_kms_info_done(&info);
	return rc;
}

static int add_version(const struct cmek_json_at *at, const char *key_name, struct cmek_kms_info *info,
		       struct cmek_error *err)
{
	struct cmek_kms_version version = { 0 }, *grown;
	const char *number = NULL;
	int rc;

	if (info->n_versions >= VERSIONS_MAX)
		return cmek_error_set(err, CMEK_E_LIMIT, E2BIG, "%s has more than %d versions", key_name, VERSIONS_MAX);
	rc = read_version(at, key_name, &number, err);
	if (rc == 0)
		rc = read_version_state(at, &version.state, err);
	if (rc == 0)
		rc = cmek_json_opt_time(at, "createTime", &version.created, err);
	if (rc == 0)
		rc = copy(number, &version.id, err);
	if (rc < 0)
		return rc;
	grown = realloc(info->versions, (info->n_versions + 1) * sizeof(*grown));
	if (!grown) {
		free(version.id);
		return cmek_error_sys(err, ENOMEM, "reading the versions of %s", key_name);
	}
	info->versions = grown;
	info->versions[info->n_versions++] = version;
	return 0;
}

int cmek_gcp_versions_reply(const void *text, size_t len, const char *key_name, struct cmek_kms_info *info,
			    char **ret_next, struct cmek_error *err)
{
	struct cmek_json_at at, list, one;
	const char *token = "";
	char *next = NULL;
	json_t *json = NULL;
	size_t n = 0;
	int rc;

	rc = cmek_json_parse(text, len, "the reply on the versions", &json, err);
	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the reply on the versions");
	if (cmek_json_has(&at, "cryptoKeyVersions"))
		rc = cmek_json_array(&at, "cryptoKeyVersions", &list, &n, err);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = cmek_json_element(&list, i, &one, err);
		if (rc == 0)
			rc = add_version(&one, key_name, info, err);
	}
	if (rc == 0 && cmek_json_has(&at, "nextPageToken"))
		rc = cmek_json_string(&at, "nextPageToken", &token, err);
	if (rc == 0 && token[0] != '\0')
		rc = copy(token, &next, err);
	json_decref(json);
	if (rc == 0)
		*ret_next = next;
	return rc;
}

int cmek_gcp_version_reply(const void *text, size_t len, const char *key_name, char **ret_id, int64_t *ret_destroy,
			   struct cmek_error *err)
{
	const char *number = NULL;
	struct cmek_json_at at;
	json_t *json = NULL;
	int64_t destroy = 0;
	char *id = NULL;
	int rc;

	rc = cmek_json_parse(text, len, "the reply on the version", &json, err);
	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the reply on the version");
	rc = read_version(&at, key_name, &number, err);
	if (rc == 0)
		rc = cmek_json_opt_time(&at, "destroyTime", &destroy, err);
	if (rc == 0 && ret_id)
		rc = copy(number, &id, err);
	json_decref(json);
	if (rc < 0)
		return rc;
	if (ret_id)
		*ret_id = id;
	if (ret_destroy)
		*ret_destroy = destroy;
	return 0;
}

/* ---- replies that are errors ---- */

static const char *string_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

/* The state in "... is not enabled, current state is: DISABLED." becomes the code KEY_DISABLED. */
static void code_of_state(const char *message, char *code, size_t max)
{
	static const char marker[] = "current state is: ";
	const char *state = strstr(message, marker);
	int len;

	if (!state)
		return;
	state += strlen(marker);
	len = (int)strspn(state, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
	if (len > 0)
		snprintf(code, max, "KEY_%.*s", len, state);
}

/* A more telling code in the machine-readable details; anything unknown is passed over. */
static void code_of_details(const json_t *details, char *code, size_t max)
{
	const char *type;

	for (size_t i = 0; i < json_array_size(details); i++) {
		const json_t *violations = json_object_get(json_array_get(details, i), "violations");

		for (size_t k = 0; k < json_array_size(violations); k++) {
			type = string_of(json_array_get(violations, k), "type");
			if (strncmp(type, "KEY_", 4) == 0)
				cmek_problem_text(code, max, type, strlen(type));
		}
	}
}

void cmek_gcp_read_problem(const struct cmek_http_response *resp, struct cmek_problem *ret_problem)
{
	struct cmek_problem *p = ret_problem;
	const char *code, *message;
	const json_t *error;
	json_t *json = NULL;

	if (cmek_json_parse(resp->body, resp->body_len, "the error", &json, NULL) < 0)
		return; /* a proxy's page, say: the HTTP status is all there is */
	error = json_object_get(json, "error");
	code = json_is_string(error) ? json_string_value(error) : string_of(error, "status");
	message = json_is_string(error) ? string_of(json, "error_description") : string_of(error, "message");
	cmek_problem_text(p->code, sizeof(p->code), code, strlen(code));
	cmek_problem_text(p->message, sizeof(p->message), message, strlen(message));
	if (!strcmp(code, "FAILED_PRECONDITION")) {
		code_of_details(json_object_get(error, "details"), p->code, sizeof(p->code));
		code_of_state(message, p->code, sizeof(p->code));
	} else if (!strcmp(code, "INVALID_ARGUMENT") && strstr(message, "crc32c")) {
		snprintf(p->code, sizeof(p->code), "CRC32C");
	}
	json_decref(json);
}
