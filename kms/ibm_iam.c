/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Access tokens of IBM Cloud IAM, by API key or trusted profile. It must not know what the tokens are used for. API keys
 * and compute tokens are not kept: they are read anew for each token.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "kms/cred_file.h"
#include "kms/ibm_iam.h"
#include "kms/ibm_wire.h"

#define IAM_URL "https://iam.cloud.ibm.com"
#define METADATA_URL "http://169.254.169.254"
#define METADATA_VERSION "2022-03-01"
#define METADATA_TIMEOUT_MS 3000
#define METADATA_ATTEMPTS 3
#define CREDENTIALS_MAX_BYTES 16384
#define BODY_MAX_BYTES 65536
#define URL_MAX_BYTES 512
#define EARLY_S 720 /* a fifth of an hour: what IBM's own libraries do */

struct cmek_ibm_iam {
	struct cmek_cloud *cloud;
	char *profile; /* NULL = none */
	char *name;    /* in the token cache, NULL before the first token */
};

static bool profile_ok(const char *profile)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-";

	return strncmp(profile, "Profile-", 8) == 0 && strlen(profile) <= 128 &&
	       strspn(profile, alphabet) == strlen(profile);
}

int cmek_ibm_iam_new(struct cmek_cloud *cloud, const char *profile, struct cmek_ibm_iam **ret_iam,
		     struct cmek_error *err)
{
	struct cmek_ibm_iam *iam;

	if (profile && !profile_ok(profile))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "'%.200s' is not the id of a trusted profile (Profile-...)",
				      profile);
	iam = calloc(1, sizeof(*iam));
	if (!iam)
		return cmek_error_sys(err, ENOMEM, "preparing for IBM Cloud");
	iam->cloud = cloud;
	if (profile) {
		iam->profile = strdup(profile);
		if (!iam->profile) {
			free(iam);
			return cmek_error_sys(err, ENOMEM, "preparing for IBM Cloud");
		}
	}
	*ret_iam = iam;
	return 0;
}

void cmek_ibm_iam_free(struct cmek_ibm_iam *iam)
{
	if (!iam)
		return;
	free(iam->profile);
	free(iam->name);
	free(iam);
}

static const char *env(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? value : NULL;
}

/* ---- what there is to show ---- */

/* Where a token comes from. Texts are borrowed, but file. */
struct origin {
	struct cmek_ibm_iam *iam;
	const char *api_key;   /* in the environment */
	char *file;            /* with an API key, or a compute token */
	bool file_has_api_key; /* which of them */
	const char *profile;
};

/* The first of the usual places that has a compute token: malloced, NULL = none. */
static char *compute_token_file(const struct cmek_ibm_iam *iam)
{
	static const char *const usual[] = {
		"/var/run/secrets/tokens/vault-token",
		"/var/run/secrets/tokens/sa-token",
		"/var/run/secrets/codeengine.cloud.ibm.com/compute-resource-token/token",
	};
	const char *given = cmek_cloud_text(iam->cloud, "compute_token_file");

	if (given)
		return strdup(given);
	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++) {
		if (access(usual[i], F_OK) == 0)
			return strdup(usual[i]);
	}
	return NULL;
}

static int find_origin(struct cmek_ibm_iam *iam, struct origin *o, struct cmek_error *err)
{
	const char *given = cmek_cloud_text(iam->cloud, "api_key_file");

	memset(o, 0, sizeof(*o));
	o->iam = iam;
	o->profile = iam->profile;
	o->file_has_api_key = true;
	if (given) {
		o->file = strdup(given);
		return o->file ? 0 : cmek_error_sys(err, ENOMEM, "looking for credentials");
	}
	o->api_key = env("IBMCLOUD_API_KEY");
	if (o->api_key)
		return 0;
	o->file = cmek_cred_systemd("ibm-api-key");
	if (o->file)
		return 0;
	o->file_has_api_key = false;
	if (!o->profile)
		o->profile = cmek_cloud_text(iam->cloud, "trusted_profile");
	if (!o->profile)
		return cmek_error_set(err, CMEK_E_EXPIRED, ENOKEY,
				      "no credentials for IBM Cloud: neither an API key (IBMCLOUD_API_KEY, api_key_file) nor a "
				      "trusted profile (trusted_profile)");
	if (!profile_ok(o->profile))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "'%.200s' is not the id of a trusted profile (Profile-...)",
				      o->profile);
	o->file = compute_token_file(iam);
	return 0;
}

/* A secret of one line; whoever wrote the file may have ended it. */
static int read_line(const char *path, struct cmek_secret **ret_line, struct cmek_error *err)
{
	struct cmek_secret *text = NULL;
	const char *p;
	size_t len;
	int rc = cmek_cred_file_read(path, CREDENTIALS_MAX_BYTES, &text, err);

	if (rc < 0)
		return rc;
	p = (const char *)cmek_secret_bytes(text, CMEK_KEY_TEXT);
	len = strcspn(p, "\r\n");
	if (len == 0 || strspn(p + len, "\r\n") != strlen(p + len))
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s: not one line", path);
	else
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, p, len, ret_line, err);
	cmek_secret_free(text);
	return rc;
}

/* ---- requests ---- */

/* Sends a form to IAM; grant: the last word of the grant type. field: what the secret is called there. */
static int ask_iam(struct cmek_ibm_iam *iam, const char *what, const char *grant, const char *field,
		   const struct cmek_secret *secret, const char *profile, struct cmek_secret **ret_token,
		   int64_t *ret_expires, struct cmek_error *err)
{
	static const char *const variables[] = { "IBMCLOUD_IAM_API_ENDPOINT", NULL };
	const char *pieces[] = { "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3A", grant, "&", field, "=" };
	int64_t now = cmek_http_time(iam->cloud->http);
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_http_response resp = { 0 };
	struct cmek_secret *form = NULL;
	char url[URL_MAX_BYTES];
	struct cmek_http_request req = {
		.service = CMEK_KMS_SERVICE_IBM,
		.what = what,
		.settings = &iam->cloud->settings,
		.method = "POST",
		.url = url,
		.headers = { { .name = "Content-Type", .value = "application/x-www-form-urlencoded" },
			     { .name = "Accept", .value = "application/json" } },
		.read_problem = cmek_ibm_read_problem,
	};
	int rc;

	if ((size_t)snprintf(url, sizeof(url), "%s/identity/token",
			     cmek_cloud_endpoint(iam->cloud, "iam_endpoint", variables, IAM_URL)) >= sizeof(url))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the URL of IAM is too long");
	rc = cmek_secret_new(CMEK_KEY_TEXT, BODY_MAX_BYTES, &form, err);
	for (size_t i = 0; rc == 0 && i < sizeof(pieces) / sizeof(pieces[0]); i++)
		rc = cmek_cloud_append(form, pieces[i], false, err);
	if (rc == 0)
		rc = cmek_cloud_append(form, (const char *)cmek_secret_bytes(secret, CMEK_KEY_TEXT), true, err);
	if (rc == 0 && profile) {
		rc = cmek_cloud_append(form, "&profile_id=", false, err);
		if (rc == 0)
			rc = cmek_cloud_append(form, profile, true, err);
	}
	if (rc == 0) {
		req.body = cmek_secret_bytes(form, CMEK_KEY_TEXT);
		req.body_len = strlen(req.body);
		rc = cmek_http_call(iam->cloud->http, &req, &resp, &failure);
		/* IAM has many codes for credentials that it does not take, and this status for all of them. */
		if (rc < 0 && resp.status == 400) {
			failure.kind = CMEK_E_EXPIRED;
			failure.err = EKEYEXPIRED;
		}
		if (rc < 0)
			rc = cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
	}
	if (rc == 0)
		rc = cmek_cloud_token_reply(&resp, what, "access_token", "expires_in", now, ret_token, ret_expires, err);
	cmek_http_response_done(&resp);
	cmek_secret_free(form);
	return rc;
}

static int by_api_key(const struct origin *o, struct cmek_secret **ret_token, int64_t *ret_expires,
		      struct cmek_error *err)
{
	struct cmek_secret *key = NULL, *own = NULL;
	int64_t expires = 0;
	int rc;

	if (o->file)
		rc = read_line(o->file, &key, err);
	else
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, o->api_key, strlen(o->api_key), &key, err);
	if (rc == 0)
		rc = ask_iam(o->iam, "IBM Cloud IAM, token of an API key", "apikey", "apikey", key, NULL, &own, &expires, err);
	if (rc == 0 && o->profile) {
		rc = ask_iam(o->iam, "IBM Cloud IAM, assume a trusted profile", "assume", "access_token", own, o->profile,
			     ret_token, ret_expires, err);
		if (rc < 0)
			cmek_error_prefix(err, "%s", o->profile);
	} else if (rc == 0) {
		*ret_token = own;
		*ret_expires = expires;
		own = NULL;
	}
	cmek_secret_free(own);
	cmek_secret_free(key);
	return rc;
}

static int by_compute_file(const struct origin *o, struct cmek_secret **ret_token, int64_t *ret_expires,
			   struct cmek_error *err)
{
	struct cmek_secret *token = NULL;
	int rc = read_line(o->file, &token, err);

	if (rc == 0)
		rc = ask_iam(o->iam, "IBM Cloud IAM, token of a trusted profile", "cr-token", "cr_token", token, o->profile,
			     ret_token, ret_expires, err);
	cmek_secret_free(token);
	if (rc < 0)
		cmek_error_prefix(err, "%s", o->profile);
	return rc;
}

static int ask_metadata(struct cmek_ibm_iam *iam, const char *method, const char *path, const struct cmek_secret *bearer,
			const char *body, struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err)
{
	static const char what[] = "IBM Cloud, metadata service of this machine";
	const char *base = cmek_cloud_endpoint(iam->cloud, "metadata_endpoint", NULL, METADATA_URL);
	int64_t now = cmek_http_time(iam->cloud->http);
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_http_response resp;
	char url[URL_MAX_BYTES];
	struct cmek_http_request req = {
		.service = CMEK_KMS_SERVICE_IBM,
		.what = what,
		.settings = &iam->cloud->settings,
		.method = method,
		.url = url,
		.headers = { { .name = "Content-Type", .value = "application/json" },
			     { .name = "Metadata-Flavor", .value = "ibm" } },
		.body = body,
		.body_len = strlen(body),
		.metadata = true,
		.timeout_ms = METADATA_TIMEOUT_MS,
		.attempts = METADATA_ATTEMPTS,
		.read_problem = cmek_ibm_read_problem,
	};
	int rc;

	if ((size_t)snprintf(url, sizeof(url), "%s%s?version=" METADATA_VERSION, base, path) >= sizeof(url))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the URL of the metadata service is too long");
	if (bearer)
		req.headers[2] =
			(struct cmek_http_header){ .name = "Authorization", .secret = bearer, .secret_prefix = "Bearer " };
	rc = cmek_http_call(iam->cloud->http, &req, &resp, &failure);
	/* No such service here, or it does not give identities. */
	if (rc < 0 && (resp.status == 404 || (resp.status == 0 && failure.kind == CMEK_E_UNREACHABLE &&
					      !cmek_cloud_text(iam->cloud, "metadata_endpoint"))))
		rc = cmek_error_set(err, CMEK_E_EXPIRED, ENOKEY, "this machine has no identity: %s", failure.text);
	else if (rc < 0)
		rc = cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
	if (rc == 0)
		rc = cmek_cloud_token_reply(&resp, what, "access_token", "expires_in", now, ret_token, ret_expires, err);
	cmek_http_response_done(&resp);
	return rc;
}

static int by_metadata(const struct origin *o, struct cmek_secret **ret_token, int64_t *ret_expires,
		       struct cmek_error *err)
{
	struct cmek_secret *instance = NULL;
	char body[256];
	int64_t expires;
	int rc;

	snprintf(body, sizeof(body), "{\"trusted_profile\":{\"id\":\"%s\"}}", o->profile);
	rc = ask_metadata(o->iam, "PUT", "/instance_identity/v1/token", NULL, "{\"expires_in\":300}", &instance, &expires, err);
	if (rc == 0)
		rc = ask_metadata(o->iam, "POST", "/instance_identity/v1/iam_token", instance, body, ret_token, ret_expires,
				  err);
	cmek_secret_free(instance);
	if (rc < 0)
		cmek_error_prefix(err, "%s, for which there is no API key and no compute token", o->profile);
	return rc;
}

/* ---- one token ---- */

static int fetch(void *arg, struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err)
{
	const struct origin *o = arg;

	if (o->file_has_api_key)
		return by_api_key(o, ret_token, ret_expires, err);
	if (o->file)
		return by_compute_file(o, ret_token, ret_expires, err);
	return by_metadata(o, ret_token, ret_expires, err);
}

/* Tells apart whatever makes another token. */
static int name_token(const struct origin *o, struct cmek_error *err)
{
	char *name = NULL;

	if (asprintf(&name, "ibm\n%s\n%s", o->file ? o->file : o->api_key ? "environment" : "metadata",
		     o->profile ? o->profile : "") < 0)
		return cmek_error_sys(err, ENOMEM, "looking for credentials");
	free(o->iam->name);
	o->iam->name = name;
	return 0;
}

int cmek_ibm_iam_get(struct cmek_ibm_iam *iam, struct cmek_secret **ret_token, struct cmek_error *err)
{
	struct origin o;
	struct cmek_token_source ask = { .fetch = fetch, .arg = &o, .early_s = EARLY_S };
	int rc;

	rc = find_origin(iam, &o, err);
	if (rc == 0)
		rc = name_token(&o, err);
	if (rc == 0)
		rc = cmek_token_get(cmek_kms_session_tokens(iam->cloud->session), iam->name,
				    cmek_http_time(iam->cloud->http), &ask, ret_token, err);
	free(o.file);
	return rc;
}

/* What IAM calls the owner of a token: tokens are JWTs (RFC 7519), their middle part is JSON. "" if it can't be read. */
static void owner_of(const struct cmek_secret *token, char *out, size_t max)
{
	const char *text = (const char *)cmek_secret_bytes(token, CMEK_KEY_TEXT), *part = strchr(text, '.'), *id;
	size_t len = part ? strcspn(part + 1, ".") : 0;
	struct cmek_secret *room = NULL;
	json_t *json = NULL;
	long n;

	out[0] = '\0';
	if (len == 0 || cmek_secret_new(CMEK_KEY_TEXT, len, &room, NULL) < 0)
		return;
	n = cmek_b64url_decode(part + 1, len, cmek_secret_fill(room, CMEK_KEY_TEXT), len);
	if (n > 0 && cmek_json_parse(cmek_secret_bytes(room, CMEK_KEY_TEXT), (size_t)n, "the token", &json, NULL) == 0) {
		id = json_string_value(json_object_get(json, "iam_id"));
		cmek_problem_text(out, max, id ? id : "", id ? strlen(id) : 0);
		json_decref(json);
	}
	cmek_secret_free(room);
}

int cmek_ibm_iam_identity(struct cmek_ibm_iam *iam, char **ret_text, struct cmek_error *err)
{
	struct cmek_secret *token = NULL;
	struct origin o = { 0 };
	char owner[128];
	int rc;

	rc = cmek_ibm_iam_get(iam, &token, err);
	if (rc == 0)
		rc = find_origin(iam, &o, err);
	if (rc == 0) {
		owner_of(token, owner, sizeof(owner));
		if (asprintf(ret_text, "%s, by %s %s", owner[0] ? owner : "somebody that the token does not name",
			     o.file_has_api_key ? "an API key in" : o.file ? "the compute token in" : "the metadata service",
			     o.file	? o.file :
			     o.api_key ? "IBMCLOUD_API_KEY" :
					 "of this machine") < 0)
			rc = cmek_error_sys(err, ENOMEM, "looking for credentials");
	}
	free(o.file);
	cmek_secret_free(token);
	return rc;
}

void cmek_ibm_iam_forget(struct cmek_ibm_iam *iam)
{
	if (iam->name)
		cmek_token_forget(cmek_kms_session_tokens(iam->cloud->session), iam->name);
}
