/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Bodies of IBM Key Protect's API. It does no I/O and does not know how a request is authorised, nor when one is sent
 * again.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>


#include "base/text.h"
#include "kms/ibm_wire.h"
#include "kms/json.h"

#define KEK_LEN 32
#define BODY_MAX_BYTES 20000
#define LIST_MAX 100000 /* versions or registrations: a service must not make us keep more */
#define DAY_SECONDS 86400
#define RESTORE_DAYS 30 /* a destroyed key can be restored for so long */

/* ---- requests ---- */

/* {"field": "value", "aad": [...]}. No value needs an escape: the blob is checked for that. */
static int make_body(const char *field, const struct cmek_kms_context *ctx, const char *value, size_t len,
		     struct cmek_secret **ret_body, struct cmek_error *err)
{
	struct cmek_secret *scratch = NULL;
	char uuid[CMEK_UUID_TEXT], *text;
	int n, rc;

	cmek_uuid_encode(ctx->volume, uuid);
	rc = cmek_secret_new(CMEK_KEY_TEXT, BODY_MAX_BYTES, &scratch, err);
	if (rc < 0)
		return rc;
	text = (char *)cmek_secret_fill(scratch, CMEK_KEY_TEXT);
	n = snprintf(text, BODY_MAX_BYTES, "{\"%s\":\"%.*s\",\"aad\":[\"cmekfs:volume=%s\",\"cmekfs:slot=%s\"]}", field,
		     (int)len, value, uuid, ctx->purpose);
	if (n >= BODY_MAX_BYTES)
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EMSGSIZE, "a wrapped key of %zu bytes", len);
	else
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, text, (size_t)n, ret_body, err);
	cmek_secret_free(scratch);
	return rc;
}

int cmek_ibm_wrap_request(const struct cmek_kms_context *ctx, const struct cmek_secret *key,
			  struct cmek_secret **ret_body, struct cmek_error *err)
{
	size_t len = CMEK_B64_LEN(cmek_secret_len(key));
	struct cmek_secret *b64 = NULL;
	char *text;
	int rc;

	rc = cmek_secret_new(CMEK_KEY_TEXT, len + 1, &b64, err);
	if (rc < 0)
		return rc;
	text = (char *)cmek_secret_fill(b64, CMEK_KEY_TEXT);
	cmek_b64_encode(cmek_secret_bytes(key, CMEK_KEY_KEK), cmek_secret_len(key), text);
	rc = make_body("plaintext", ctx, text, len, ret_body, err);
	cmek_secret_free(b64);
	return rc;
}

static bool is_base64_text(const char *text, size_t len)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_";

	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\0' || !strchr(alphabet, text[i]))
			return false;
	}
	return len > 0;
}

int cmek_ibm_unwrap_request(const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
			    struct cmek_secret **ret_body, struct cmek_error *err)
{
	if (!is_base64_text((const char *)blob->data, blob->len))
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the wrapped key was not made by IBM Key Protect");
	return make_body("ciphertext", ctx, (const char *)blob->data, blob->len, ret_body, err);
}

/* ---- replies ---- */

static int copy(const char *text, char **ret_copy, struct cmek_error *err)
{
	char *s = strdup(text);

	if (!s)
		return cmek_error_sys(err, ENOMEM, "reading a reply");
	free(*ret_copy);
	*ret_copy = s;
	return 0;
}

/* The id in the object's member, "" when there is none. Borrowed. */
static int read_version_id(const struct cmek_json_at *at, const char *member, const char **ret_id,
			   struct cmek_error *err)
{
	struct cmek_json_at version;
	int rc;

	*ret_id = "";
	if (!cmek_json_has(at, member))
		return 0;
	rc = cmek_json_object(at, member, &version, err);
	return rc < 0 ? rc : cmek_json_string(&version, "id", ret_id, err);
}

/* The ciphertext of a reply as a blob of the version that the reply names in the first of these that it has. */
static int read_blob(const struct cmek_json_at *at, const char *newer, const char *crn, struct cmek_kms_blob *ret_blob,
		     struct cmek_error *err)
{
	const char *ciphertext = NULL, *version = "";
	struct cmek_kms_blob blob = { 0 };
	int rc;

	rc = cmek_json_string(at, "ciphertext", &ciphertext, err);
	if (rc == 0 && (!is_base64_text(ciphertext, strlen(ciphertext)) || strlen(ciphertext) > CMEK_KMS_BLOB_MAX))
		rc = cmek_json_bad(at, "ciphertext", "is not base64 of an acceptable length", err);
	if (rc == 0)
		rc = read_version_id(at, cmek_json_has(at, newer) ? newer : "keyVersion", &version, err);
	if (rc == 0)
		rc = copy(ciphertext, (char **)&blob.data, err);
	if (rc == 0)
		rc = copy(crn, &blob.resolved, err);
	if (rc == 0)
		rc = copy(version, &blob.version, err);
	if (rc < 0) {
		cmek_kms_blob_done(&blob);
		return rc;
	}
	blob.len = strlen(ciphertext);
	*ret_blob = blob;
	return 0;
}

int cmek_ibm_wrap_reply(const void *text, size_t len, const char *crn, struct cmek_kms_blob *ret_blob,
			struct cmek_error *err)
{
	struct cmek_json_at at;
	json_t *json = NULL;
	int rc = cmek_json_parse(text, len, "the reply to wrap", &json, err);

	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the reply to wrap");
	rc = read_blob(&at, "rewrappedKeyVersion", crn, ret_blob, err);
	json_decref(json);
	return rc;
}

int cmek_ibm_unwrap_reply(const void *text, size_t len, const char *crn, struct cmek_secret **ret_key,
			  struct cmek_kms_blob *ret_fresh, struct cmek_error *err)
{
	struct cmek_kms_blob fresh = { 0 };
	struct cmek_secret *key = NULL;
	struct cmek_json_at at;
	json_t *json = NULL;
	int rc = cmek_json_parse(text, len, "the reply to unwrap", &json, err);

	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the reply to unwrap");
	rc = cmek_json_secret_b64(&at, "plaintext", CMEK_KEY_KEK, KEK_LEN, &key, err);
	if (rc == 0 && cmek_json_has(&at, "ciphertext"))
		rc = read_blob(&at, "rewrappedKeyVersion", crn, &fresh, err);
	json_decref(json);
	if (rc < 0) {
		cmek_secret_free(key);
		return rc;
	}
	*ret_key = key;
	*ret_fresh = fresh;
	return 0;
}

/* resources[0] of a collection. *list and *ret_first borrow from each other and from at. */
static int first_resource(const struct cmek_json_at *at, struct cmek_json_at *list, struct cmek_json_at *ret_first,
			  struct cmek_error *err)
{
	size_t n = 0;
	int rc = cmek_json_array(at, "resources", list, &n, err);

	if (rc == 0 && n == 0)
		rc = cmek_json_bad(at, "resources", "is empty", err);
	return rc < 0 ? rc : cmek_json_element(list, 0, ret_first, err);
}

/* Dates of a key that was deleted: what can still be done about it, and until when. */
static int read_deletion(const struct cmek_json_at *at, int64_t now, struct cmek_kms_info *info, struct cmek_error *err)
{
	int64_t deleted = 0, restore = 0, purge_from = 0, purge_on = 0;
	char until[CMEK_TIME_TEXT], from[CMEK_TIME_TEXT], on[CMEK_TIME_TEXT];
	int rc, n;

	rc = cmek_json_opt_time(at, "deletionDate", &deleted, err);
	if (rc == 0)
		rc = cmek_json_opt_time(at, "restoreExpirationDate", &restore, err);
	if (rc == 0)
		rc = cmek_json_opt_time(at, "purgeAllowedFrom", &purge_from, err);
	if (rc == 0)
		rc = cmek_json_opt_time(at, "purgeScheduledOn", &purge_on, err);
	if (rc < 0)
		return rc;
	if (restore == 0 && deleted != 0)
		restore = deleted + RESTORE_DAYS * (int64_t)DAY_SECONDS;
	info->state = now < restore ? CMEK_KMS_PENDING_DELETION : CMEK_KMS_DESTROYED;
	info->deletion_date = now < restore ? restore : deleted;
	cmek_time_encode(restore, until);
	cmek_time_encode(purge_from, from);
	cmek_time_encode(purge_on, on);
	n = asprintf(&info->remark, "deleted; it %s restored until %s%s%s%s%s", now < restore ? "can be" : "could be", until,
		     purge_from ? "; a holder of the KeyPurge role may purge it from " : "", purge_from ? from : "",
		     purge_on ? "; the service purges it on " : "", purge_on ? on : "");
	if (n < 0) {
		info->remark = NULL;
		return cmek_error_sys(err, ENOMEM, "reading a reply");
	}
	return 0;
}

/* State, and what hangs on it. */
static int read_state(const struct cmek_json_at *at, int64_t now, struct cmek_kms_info *info, struct cmek_error *err)
{
	struct cmek_json_at dual;
	uint64_t state = 0;
	bool enabled = false;
	int rc = cmek_json_uint(at, "state", 0, 1000, &state, err);

	if (rc < 0)
		return rc;
	switch (state) {
	case 1:
		info->state = CMEK_KMS_ENABLED;
		break;
	case 2:
		info->state = CMEK_KMS_DISABLED;
		break;
	case 5:
		return read_deletion(at, now, info, err);
	default:
		info->state = CMEK_KMS_STATE_UNKNOWN;
	}
	if (state == 3)
		return copy("expired: it still unwraps, and wraps no more", &info->remark, err);
	if (!cmek_json_has(at, "dualAuthDelete"))
		return 0;
	rc = cmek_json_object(at, "dualAuthDelete", &dual, err);
	if (rc == 0)
		rc = cmek_json_bool(&dual, "enabled", &enabled, err);
	if (rc == 0 && enabled)
		rc = copy("its deletion takes two people (dual authorization)", &info->remark, err);
	return rc;
}

/* Fields that every key has, whatever its state. */
static int read_metadata(const struct cmek_json_at *at, const char *crn, const char *key_id, struct cmek_kms_info *info,
			 char ring[CMEK_IBM_RING_ROOM], struct cmek_error *err)
{
	const char *id = NULL, *name = "", *version = "";
	bool flag = false;
	int rc = cmek_json_string(at, "id", &id, err);

	if (rc == 0 && strcasecmp(id, key_id) != 0)
		rc = cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "another key answered than %s, which was asked", crn);
	if (rc == 0)
		rc = cmek_json_bool(at, "extractable", &flag, err);
	if (rc == 0 && flag)
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				    "%s is a standard key, which can be read out and wraps nothing; a root key is needed", crn);
	if (rc == 0)
		rc = cmek_json_opt_time(at, "creationDate", &info->created, err);
	if (rc == 0 && cmek_json_has(at, "keyRingID"))
		rc = cmek_json_string(at, "keyRingID", &name, err);
	if (rc == 0 && (strlen(name) >= CMEK_IBM_RING_ROOM ||
			strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != strlen(name)))
		rc = cmek_json_bad(at, "keyRingID", "is not the name of a key ring", err);
	if (rc == 0)
		snprintf(ring, CMEK_IBM_RING_ROOM, "%s", name);
	if (rc == 0)
		rc = read_version_id(at, "keyVersion", &version, err);
	if (rc == 0)
		rc = copy(version, &info->primary_version, err);
	flag = false;
	if (rc == 0 && cmek_json_has(at, "imported"))
		rc = cmek_json_bool(at, "imported", &flag, err);
	if (rc == 0)
		rc = copy(flag ? "IMPORTED" : "KEY_PROTECT", &info->origin, err);
	if (rc == 0)
		rc = copy("HSM", &info->protection_level, err); /* all root keys of the service are */
	if (rc == 0)
		rc = copy(crn, &info->resolved, err);
	return rc;
}

int cmek_ibm_metadata_reply(const void *text, size_t len, const char *crn, const char *key_id, int64_t now,
			    struct cmek_kms_info *ret_info, char ret_ring[CMEK_IBM_RING_ROOM], struct cmek_error *err)
{
	struct cmek_kms_info info = { .state = CMEK_KMS_STATE_UNKNOWN };
	struct cmek_json_at at, list, first;
	char ring[CMEK_IBM_RING_ROOM] = "";
	json_t *json = NULL;
	int rc = cmek_json_parse(text, len, "the key's metadata", &json, err);

	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the key's metadata");
	rc = first_resource(&at, &list, &first, err);
	if (rc == 0)
		rc = read_metadata(&first, crn, key_id, &info, ring, err);
	if (rc == 0)
		rc = read_state(&first, now, &info, err);
	json_decref(json);
	if (rc < 0) {
		cmek_kms_info_done(&info);
		return rc;
	}
	memcpy(ret_ring, ring, sizeof(ring));
	*ret_info = info;
	return 0;
}

/* Room for one more element of size bytes behind n; the array may move. */
static int grow(void *array, size_t n, size_t size, struct cmek_error *err)
{
	void **p = array, *grown;

	if (n >= LIST_MAX)
		return cmek_error_set(err, CMEK_E_LIMIT, E2BIG, "the service lists more than %d of them", LIST_MAX);
	grown = realloc(*p, (n + 1) * size);
	if (!grown)
		return cmek_error_sys(err, ENOMEM, "reading a reply");
	*p = grown;
	memset((char *)grown + n * size, 0, size);
	return 0;
}

static int add_version(const struct cmek_json_at *at, struct cmek_kms_info *info, struct cmek_error *err)
{
	struct cmek_kms_version *version;
	const char *id = NULL;
	int rc = cmek_json_string(at, "id", &id, err);

	if (rc == 0)
		rc = grow(&info->versions, info->n_versions, sizeof(*info->versions), err);
	if (rc < 0)
		return rc;
	version = &info->versions[info->n_versions];
	rc = copy(id, &version->id, err);
	if (rc < 0)
		return rc;
	info->n_versions++;
	version->state = info->state; /* a version has none of its own */
	return cmek_json_opt_time(at, "creationDate", &version->created, err);
}

static int add_registration(const struct cmek_json_at *at, struct cmek_kms_registration **regs, size_t *n,
			    struct cmek_error *err)
{
	const char *resource = NULL, *description = "";
	struct cmek_kms_registration *reg;
	int rc = cmek_json_string(at, "resourceCrn", &resource, err);

	if (rc == 0 && cmek_json_has(at, "description"))
		rc = cmek_json_string(at, "description", &description, err);
	if (rc == 0)
		rc = grow(regs, *n, sizeof(**regs), err);
	if (rc < 0)
		return rc;
	reg = &(*regs)[(*n)++]; /* counted at once, so that the caller frees what is half filled, too */
	rc = copy(resource, &reg->resource, err);
	if (rc == 0)
		rc = copy(description, &reg->description, err);
	if (rc == 0)
		rc = cmek_json_opt_time(at, "creationDate", &reg->created, err);
	if (rc == 0 && cmek_json_has(at, "preventKeyDeletion"))
		rc = cmek_json_bool(at, "preventKeyDeletion", &reg->prevents_deletion, err);
	return rc;
}

int cmek_ibm_versions_reply(const void *text, size_t len, struct cmek_kms_info *info, size_t *ret_n,
			    struct cmek_error *err)
{
	struct cmek_json_at at, list, one;
	json_t *json = NULL;
	size_t n = 0;
	int rc = cmek_json_parse(text, len, "the reply on the versions", &json, err);

	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the reply on the versions");
	rc = cmek_json_has(&at, "resources") ? cmek_json_array(&at, "resources", &list, &n, err) : 0;
	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = cmek_json_element(&list, i, &one, err);
		if (rc == 0)
			rc = add_version(&one, info, err);
	}
	json_decref(json);
	if (rc == 0)
		*ret_n = n;
	return rc;
}

int cmek_ibm_registrations_reply(const void *text, size_t len, struct cmek_kms_registration **regs, size_t *n,
				 size_t *ret_page, struct cmek_error *err)
{
	struct cmek_json_at at, list, one;
	json_t *json = NULL;
	size_t page = 0;
	int rc = cmek_json_parse(text, len, "the reply on registrations", &json, err);

	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the reply on registrations");
	rc = cmek_json_has(&at, "resources") ? cmek_json_array(&at, "resources", &list, &page, err) : 0;
	for (size_t i = 0; rc == 0 && i < page; i++) {
		rc = cmek_json_element(&list, i, &one, err);
		if (rc == 0)
			rc = add_registration(&one, regs, n, err);
	}
	json_decref(json);
	if (rc == 0)
		*ret_page = page;
	return rc;
}

int cmek_ibm_create_reply(const void *text, size_t len, char **ret_crn, struct cmek_error *err)
{
	struct cmek_json_at at, list, first;
	const char *crn = NULL;
	char *text_copy = NULL;
	json_t *json = NULL;
	int rc = cmek_json_parse(text, len, "the reply on the new key", &json, err);

	if (rc < 0)
		return rc;
	at = cmek_json_root(json, "the reply on the new key");
	rc = first_resource(&at, &list, &first, err);
	if (rc == 0)
		rc = cmek_json_string(&first, "crn", &crn, err);
	if (rc == 0)
		rc = copy(crn, &text_copy, err);
	json_decref(json);
	if (rc == 0)
		*ret_crn = text_copy;
	return rc;
}

/* ---- replies that are errors ---- */

static const char *string_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

void cmek_ibm_read_problem(const struct cmek_http_response *resp, struct cmek_problem *ret_problem)
{
	const json_t *resource, *reason;
	const char *code, *message;
	json_t *json = NULL;

	if (cmek_json_parse(resp->body, resp->body_len, "the error", &json, NULL) < 0)
		return; /* a proxy's page, say: the HTTP status is all there is */
	resource = json_array_get(json_object_get(json, "resources"), 0);
	reason = json_array_get(json_object_get(resource, "reasons"), 0);
	code = string_of(reason, "code");
	message = string_of(resource, "errorMsg");
	if (message[0] == '\0')
		message = string_of(reason, "message");
	if (!resource) { /* IAM's form */
		code = string_of(json, "errorCode");
		message = string_of(json, "errorMessage");
	}
	cmek_problem_text(ret_problem->code, sizeof(ret_problem->code), code, strlen(code));
	cmek_problem_text(ret_problem->message, sizeof(ret_problem->message), message, strlen(message));
	json_decref(json);
}
