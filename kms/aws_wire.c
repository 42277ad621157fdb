/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reads answers of AWS. No I/O; it must not know how they were asked for.
 */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "kms/aws_wire.h"
#include "kms/json.h"

#define VERSIONS_MAX 1024

/* ---- errors ---- */

/* "com.amazonaws.kms#NotFoundException:http://...": what lies between # and :. */
static void short_code(char *out, size_t max, const char *text)
{
	const char *hash = strchr(text, '#');

	if (hash)
		text = hash + 1;
	cmek_problem_text(out, max, text, strcspn(text, ":"));
}

static void read_json_problem(const struct cmek_http_response *resp, struct cmek_problem *ret_problem)
{
	static const char *const codes[] = { "__type", "code", "Code" }, *const messages[] = { "message", "Message" };
	json_t *json = NULL;
	const char *text;

	if (cmek_json_parse(resp->body, resp->body_len, "an error", &json, NULL) < 0)
		return;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]) && !ret_problem->code[0]; i++) {
		text = json_string_value(json_object_get(json, codes[i]));
		if (text)
			short_code(ret_problem->code, sizeof(ret_problem->code), text);
	}
	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]) && !ret_problem->message[0]; i++) {
		text = json_string_value(json_object_get(json, messages[i]));
		if (text)
			cmek_problem_text(ret_problem->message, sizeof(ret_problem->message), text, strlen(text));
	}
	json_decref(json);
}

void cmek_aws_read_problem(const struct cmek_http_response *resp, struct cmek_problem *ret_problem)
{
	char text[sizeof(ret_problem->message)];

	if (resp->body_len == 0 || resp->body[0] != '<') {
		read_json_problem(resp, ret_problem);
		return;
	}
	if (cmek_aws_xml_text(resp->body, resp->body_len, "Code", text, sizeof(text)) == 0)
		cmek_problem_text(ret_problem->code, sizeof(ret_problem->code), text, strlen(text));
	if (cmek_aws_xml_text(resp->body, resp->body_len, "Message", text, sizeof(text)) == 0)
		cmek_problem_text(ret_problem->message, sizeof(ret_problem->message), text, strlen(text));
}

/* ---- credentials ---- */

void cmek_aws_creds_done(struct cmek_aws_creds *creds)
{
	if (!creds)
		return;
	cmek_secret_free(creds->secret_key);
	cmek_secret_free(creds->token);
	cmek_wipe(creds, sizeof(*creds));
}

/* Visible ASCII only: what becomes a header or is signed. */
static bool is_plain(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	}
	return len > 0;
}

int cmek_aws_creds_set(struct cmek_aws_creds *creds, const char *access_key, size_t access_len, const char *secret,
		       size_t secret_len, const char *token, size_t token_len, struct cmek_error *err)
{
	int rc;

	if (access_len >= sizeof(creds->access_key) || !is_plain(access_key, access_len) || memchr(access_key, '/', access_len))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the access key id is not one");
	if (secret_len > 1024 || !is_plain(secret, secret_len))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the secret access key is not one");
	if (token && (token_len > 16384 || !is_plain(token, token_len)))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the session token is not one");
	memcpy(creds->access_key, access_key, access_len);
	creds->access_key[access_len] = '\0';
	creds->expires = INT64_MAX;
	rc = cmek_secret_new_copy(CMEK_KEY_TEXT, secret, secret_len, &creds->secret_key, err);
	if (rc == 0 && token)
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, token, token_len, &creds->token, err);
	if (rc < 0)
		cmek_aws_creds_done(creds);
	return rc;
}

int cmek_aws_iso_time(const char *text, int64_t *ret_unix_seconds)
{
	char plain[CMEK_TIME_TEXT];
	const char *rest;

	if (strlen(text) < 20)
		return -EINVAL;
	memcpy(plain, text, 19);
	memcpy(plain + 19, "Z", 2);
	rest = text + 19;
	if (*rest == '.')
		rest += 1 + strspn(rest + 1, "0123456789");
	if (strcmp(rest, "Z") != 0 && strcmp(rest, "+00:00") != 0)
		return -EINVAL;
	return cmek_time_decode(plain, ret_unix_seconds);
}

static int read_creds(const struct cmek_json_at *at, struct cmek_aws_creds *creds, struct cmek_error *err)
{
	const char *access_key = NULL, *secret = NULL, *token = NULL, *expiration = NULL, *code = NULL;
	const char *token_name = cmek_json_has(at, "SessionToken") ? "SessionToken" : "Token";
	int rc = 0;

	if (cmek_json_has(at, "Code"))
		rc = cmek_json_string(at, "Code", &code, err);
	if (rc == 0 && code && strcmp(code, "Success") != 0)
		rc = cmek_json_bad(at, "Code", "is not Success", err);
	if (rc == 0)
		rc = cmek_json_string(at, "AccessKeyId", &access_key, err);
	if (rc == 0)
		rc = cmek_json_string(at, "SecretAccessKey", &secret, err);
	if (rc == 0 && cmek_json_has(at, token_name))
		rc = cmek_json_string(at, token_name, &token, err);
	if (rc == 0 && cmek_json_has(at, "Expiration"))
		rc = cmek_json_string(at, "Expiration", &expiration, err);
	if (rc == 0)
		rc = cmek_aws_creds_set(creds, access_key, strlen(access_key), secret, strlen(secret), token,
					token ? strlen(token) : 0, err);
	if (rc == 0 && expiration && cmek_aws_iso_time(expiration, &creds->expires) < 0)
		rc = cmek_json_bad(at, "Expiration", "is not a time", err);
	return rc;
}

int cmek_aws_creds_from_json(const void *text, size_t len, const char *what, struct cmek_aws_creds *ret_creds,
			     struct cmek_error *err)
{
	struct cmek_aws_creds creds = { .access_key = "" };
	struct cmek_json_at at;
	json_t *json = NULL;
	int rc;

	rc = cmek_json_parse(text, len, what, &json, err);
	if (rc < 0)
		return rc;
	at = cmek_json_root(json, what);
	rc = read_creds(&at, &creds, err);
	json_decref(json);
	if (rc < 0)
		cmek_aws_creds_done(&creds);
	else
		*ret_creds = creds;
	return rc;
}

int cmek_aws_xml_text(const char *text, size_t len, const char *name, char *out, size_t max)
{
	size_t name_len = strlen(name);
	const char *end = text + len, *p = text, *stop;

	while ((p = memchr(p, '<', (size_t)(end - p))) != NULL) {
		p++;
		if ((size_t)(end - p) <= name_len || memcmp(p, name, name_len) != 0 || p[name_len] != '>')
			continue;
		p += name_len + 1;
		stop = memchr(p, '<', (size_t)(end - p));
		if (!stop || (size_t)(end - stop) < name_len + 3 || stop[1] != '/' ||
		    memcmp(stop + 2, name, name_len) != 0 || stop[2 + name_len] != '>' || (size_t)(stop - p) >= max)
			return -ENOENT;
		memcpy(out, p, (size_t)(stop - p));
		out[stop - p] = '\0';
		return 0;
	}
	return -ENOENT;
}

/* Where the texts of credentials are until they are secrets. */
struct xml_room {
	char access_key[144], secret[1024], token[16384], expiration[64];
};

int cmek_aws_creds_from_xml(const char *text, size_t len, const char *what, struct cmek_aws_creds *ret_creds,
			    struct cmek_error *err)
{
	struct cmek_aws_creds creds = { .access_key = "" };
	struct cmek_secret *room = NULL;
	struct xml_room *r;
	int rc;

	rc = cmek_secret_new(CMEK_KEY_TEXT, sizeof(*r), &room, err);
	if (rc < 0)
		return rc;
	r = (struct xml_room *)cmek_secret_fill(room, CMEK_KEY_TEXT);
	if (cmek_aws_xml_text(text, len, "AccessKeyId", r->access_key, sizeof(r->access_key)) < 0 ||
	    cmek_aws_xml_text(text, len, "SecretAccessKey", r->secret, sizeof(r->secret)) < 0 ||
	    cmek_aws_xml_text(text, len, "SessionToken", r->token, sizeof(r->token)) < 0 ||
	    cmek_aws_xml_text(text, len, "Expiration", r->expiration, sizeof(r->expiration)) < 0)
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s: no credentials in the answer", what);
	if (rc == 0)
		rc = cmek_aws_creds_set(&creds, r->access_key, strlen(r->access_key), r->secret, strlen(r->secret), r->token,
					strlen(r->token), err);
	if (rc == 0 && cmek_aws_iso_time(r->expiration, &creds.expires) < 0)
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s: Expiration is not a time", what);
	cmek_secret_free(room);
	if (rc < 0)
		cmek_aws_creds_done(&creds);
	else
		*ret_creds = creds;
	return rc;
}

/* ---- KMS ---- */

int64_t cmek_aws_time(const json_t *object, const char *name)
{
	double t = json_number_value(json_object_get(object, name));

	return t > 0 && t < 1e12 ? (int64_t)t : 0;
}

static enum cmek_kms_state state_of(const char *key_state)
{
	static const struct {
		const char *name;
		enum cmek_kms_state state;
	} states[] = {
		{ "Enabled", CMEK_KMS_ENABLED },
		{ "Disabled", CMEK_KMS_DISABLED },
		{ "PendingDeletion", CMEK_KMS_PENDING_DELETION },
		{ "PendingReplicaDeletion", CMEK_KMS_PENDING_DELETION },
		{ "PendingImport", CMEK_KMS_DISABLED },
	};

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		if (strcmp(states[i].name, key_state) == 0)
			return states[i].state;
	}
	return CMEK_KMS_STATE_UNKNOWN;
}

static char *copy_or_empty(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return strdup(text ? text : "");
}

static int add_version(struct cmek_kms_info *info, const char *id, enum cmek_kms_state state, int64_t created)
{
	struct cmek_kms_version *grown;

	if (info->n_versions == VERSIONS_MAX)
		return -E2BIG;
	grown = reallocarray(info->versions, info->n_versions + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	info->versions = grown;
	grown[info->n_versions] = (struct cmek_kms_version){ strdup(id), state, created };
	return grown[info->n_versions++].id ? 0 : -ENOMEM;
}

void cmek_aws_metadata_done(struct cmek_aws_metadata *meta)
{
	cmek_kms_info_done(&meta->info);
	memset(meta, 0, sizeof(*meta));
}

static int read_metadata(const struct cmek_json_at *m, struct cmek_aws_metadata *meta, struct cmek_error *err)
{
	struct cmek_kms_info *info = &meta->info;
	const char *arn = NULL, *key_state = NULL, *origin;
	int rc = cmek_json_string(m, "Arn", &arn, err);

	if (rc == 0)
		rc = cmek_json_string(m, "KeyState", &key_state, err);
	if (rc < 0)
		return rc;
	cmek_problem_text(meta->key_state, sizeof(meta->key_state), key_state, strlen(key_state));
	meta->multi_region = json_is_true(json_object_get(m->value, "MultiRegion"));
	info->state = state_of(key_state);
	info->created = cmek_aws_time(m->value, "CreationDate");
	info->deletion_date = cmek_aws_time(m->value, "DeletionDate");
	info->resolved = strdup(arn);
	info->primary_version = copy_or_empty(m->value, "CurrentKeyMaterialId");
	info->origin = copy_or_empty(m->value, "Origin");
	origin = info->origin ? info->origin : "";
	/* AWS KMS is a service of HSMs, but for keys in a store of the customer's own. */
	info->protection_level = strdup(strncmp(origin, "EXTERNAL_KEY_STORE", 18) == 0 ? "external" : "HSM");
	if (!info->resolved || !info->primary_version || !info->origin || !info->protection_level)
		return cmek_error_sys(err, ENOMEM, "describing a key");
	if (info->primary_version[0] &&
	    add_version(info, info->primary_version, info->state, info->created) < 0)
		return cmek_error_sys(err, ENOMEM, "describing a key");
	return 0;
}

int cmek_aws_metadata_from_json(const json_t *reply, struct cmek_aws_metadata *ret_meta, struct cmek_error *err)
{
	struct cmek_json_at root = cmek_json_root(reply, "the answer of AWS KMS"), m;
	struct cmek_aws_metadata meta = { .multi_region = false };
	int rc = cmek_json_object(&root, "KeyMetadata", &m, err);

	if (rc == 0)
		rc = read_metadata(&m, &meta, err);
	if (rc < 0)
		cmek_aws_metadata_done(&meta);
	else
		*ret_meta = meta;
	return rc;
}

int cmek_aws_rotations_from_json(const json_t *reply, struct cmek_kms_info *info, char **ret_marker,
				 struct cmek_error *err)
{
	struct cmek_json_at root = cmek_json_root(reply, "the answer of AWS KMS"), list, row;
	const char *id = NULL, *marker;
	size_t n = 0;
	int rc = cmek_json_array(&root, "Rotations", &list, &n, err);

	*ret_marker = NULL;
	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = cmek_json_element(&list, i, &row, err);
		if (rc == 0 && cmek_json_has(&row, "KeyMaterialId")) {
			rc = cmek_json_string(&row, "KeyMaterialId", &id, err);
			if (rc == 0 && add_version(info, id, info->state, cmek_aws_time(row.value, "RotationDate")) < 0)
				rc = cmek_error_sys(err, ENOMEM, "describing a key");
		}
	}
	marker = json_string_value(json_object_get(reply, "NextMarker"));
	if (rc == 0 && marker && json_is_true(json_object_get(reply, "Truncated"))) {
		*ret_marker = strdup(marker);
		if (!*ret_marker)
			rc = cmek_error_sys(err, ENOMEM, "describing a key");
	}
	return rc;
}
