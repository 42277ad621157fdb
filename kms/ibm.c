/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * IBM Key Protect as a provider: handles, requests with a token, wrap, unwrap and rewrap. It must not know where tokens
 * come from, nor what a blob is kept in.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/text.h"
#include "kms/ibm.h"
#include "kms/ibm_wire.h"

#define URL_MAX_BYTES 1024

static bool ibm_match(const char *uri)
{
	return cmek_kms_uri_service(uri) == CMEK_KMS_SERVICE_IBM;
}

static void ibm_close(void *state)
{
	struct cmek_ibm *k = state;

	cmek_ibm_iam_free(k->iam);
	cmek_cloud_done(&k->cloud);
	free(k->crn);
	free(k->profile);
	free(k->endpoint);
	free(k);
}

/* The service of the key's own region, unless another is configured. */
static char *make_endpoint(const struct cmek_ibm *k)
{
	static const char *const variables[] = { "IBMCLOUD_KP_API_ENDPOINT", "IBMCLOUD_KP_ENDPOINT", NULL };
	const char *given = cmek_cloud_endpoint(&k->cloud, "endpoint", variables, NULL);
	char *url = NULL;
	size_t len;

	if (!given)
		return asprintf(&url, "https://%s.kms.cloud.ibm.com", k->id.region) < 0 ? NULL : url;
	url = strdup(given);
	len = url ? strlen(url) : 0;
	if (len > 0 && url[len - 1] == '/')
		url[len - 1] = '\0';
	return url;
}

static int ibm_open(const char *uri, const struct cmek_kms_principal *principal, const struct cmek_kms_options *opts,
		    void **ret_state, struct cmek_error *err)
{
	struct cmek_kms_crn id;
	struct cmek_ibm *k;
	int rc;

	rc = cmek_kms_uri_ibm(uri, &id, err);
	if (rc < 0)
		return rc;
	k = calloc(1, sizeof(*k));
	if (!k)
		return cmek_error_sys(err, ENOMEM, "opening %s", uri);
	k->id = id;
	rc = cmek_cloud_init(&k->cloud, "ibm", opts, err);
	if (rc == 0)
		rc = cmek_ibm_iam_new(&k->cloud, principal->profile, &k->iam, err);
	if (rc < 0)
		goto out;
	k->ring = cmek_cloud_text(&k->cloud, "key_ring");
	k->crn = strdup(uri);
	k->profile = principal->profile ? strdup(principal->profile) : NULL;
	k->endpoint = make_endpoint(k);
	if (!k->crn || !k->endpoint || (principal->profile && !k->profile))
		rc = cmek_error_sys(err, ENOMEM, "opening %s", uri);
out:
	if (rc < 0)
		ibm_close(k);
	else
		*ret_state = k;
	return rc;
}

/* A random id that stands in the service's log, too. */
static void correlation_id(char out[CMEK_UUID_TEXT])
{
	uint8_t uuid[16];

	cmek_random(uuid, sizeof(uuid));
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
	cmek_uuid_encode(uuid, out);
}

/* One request with the token that is at hand. */
static int call_once(struct cmek_ibm *k, const struct cmek_ibm_request *want, const char *url,
		     struct cmek_http_response *ret_resp, struct cmek_error *err)
{
	struct cmek_http_request req = {
		.service = CMEK_KMS_SERVICE_IBM,
		.what = want->what,
		.settings = &k->cloud.settings,
		.method = want->method,
		.url = url,
		.body = want->body,
		.body_len = want->body_len,
		.read_problem = cmek_ibm_read_problem,
	};
	struct cmek_http_header *h = req.headers;
	struct cmek_secret *token = NULL;
	char id[CMEK_UUID_TEXT];
	int rc;

	memset(ret_resp, 0, sizeof(*ret_resp));
	rc = cmek_ibm_iam_get(k->iam, &token, err);
	if (rc < 0)
		return rc;
	correlation_id(id);
	*h++ = (struct cmek_http_header){ .name = "Authorization", .secret = token, .secret_prefix = "Bearer " };
	*h++ = (struct cmek_http_header){ .name = "Bluemix-Instance", .value = k->id.instance };
	*h++ = (struct cmek_http_header){ .name = "Accept", .value = "application/json" };
	*h++ = (struct cmek_http_header){ .name = "Correlation-Id", .value = id };
	if (want->type)
		*h++ = (struct cmek_http_header){ .name = "Content-Type", .value = want->type };
	if (want->prefer)
		*h++ = (struct cmek_http_header){ .name = "Prefer", .value = want->prefer };
	if (k->ring)
		*h++ = (struct cmek_http_header){ .name = "X-Kms-Key-Ring", .value = k->ring };
	rc = cmek_http_call(k->cloud.http, &req, ret_resp, err);
	cmek_secret_free(token);
	return rc;
}

int cmek_ibm_call(struct cmek_ibm *k, const struct cmek_ibm_request *want, struct cmek_http_response *ret_resp,
		  struct cmek_error *err)
{
	struct cmek_error first = CMEK_ERROR_INIT;
	char url[URL_MAX_BYTES];
	int rc;

	memset(ret_resp, 0, sizeof(*ret_resp));
	if (k->id.key[0] == '\0' && strcmp(want->path, "keys") != 0)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s names an instance, not a key in it", k->crn);
	if ((size_t)snprintf(url, sizeof(url), "%s/api/v2/%s", k->endpoint, want->path) >= sizeof(url))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: the URL of the request is too long", want->what);
	rc = call_once(k, want, url, ret_resp, &first);
	if (rc < 0 && ret_resp->class.renew) {
		cmek_ibm_iam_forget(k->iam);
		cmek_http_response_done(ret_resp);
		cmek_error_clear(&first);
		rc = call_once(k, want, url, ret_resp, &first);
		/* The service says 401 also of what a good token is not allowed to do; this one is new. */
		if (rc < 0 && ret_resp->status == 401 && ret_resp->problem.code[0] == '\0')
			return cmek_error_set(err, CMEK_E_DENIED, EACCES, "%s: %s", k->crn, first.text);
	}
	if (rc < 0)
		return cmek_error_set(err, first.kind, first.err, "%s: %s", k->crn, first.text);
	return 0;
}

int cmek_ibm_get_key(struct cmek_ibm *k, struct cmek_kms_info *ret_info, struct cmek_error *err)
{
	char path[128], ring[CMEK_IBM_RING_ROOM];
	struct cmek_ibm_request want = { .what = "IBM Key Protect, get metadata", .method = "GET", .path = path };
	struct cmek_http_response resp;
	int rc;

	snprintf(path, sizeof(path), "keys/%s/metadata", k->id.key);
	rc = cmek_ibm_call(k, &want, &resp, err);
	if (rc == 0)
		rc = cmek_ibm_metadata_reply(resp.body, resp.body_len, k->crn, k->id.key, cmek_http_time(k->cloud.http),
					     ret_info, ring, err);
	cmek_http_response_done(&resp);
	return rc;
}

/* The service refused because of the key's state, and told only that: its metadata names the state. */
static int tell_state(struct cmek_ibm *k, const struct cmek_error *failure, struct cmek_error *err)
{
	struct cmek_kms_info info = { 0 };
	enum cmek_kind kind = failure->kind;
	int rc;

	if (cmek_ibm_get_key(k, &info, NULL) < 0)
		return cmek_error_set(err, failure->kind, failure->err, "%s", failure->text);
	if (info.state == CMEK_KMS_DISABLED)
		kind = CMEK_E_KEY_DISABLED;
	else if (info.state == CMEK_KMS_PENDING_DELETION)
		kind = CMEK_E_PENDING_DELETION;
	else if (info.state == CMEK_KMS_DESTROYED)
		kind = CMEK_E_KEY_DESTROYED;
	rc = cmek_error_set(err, kind, failure->err, "%s; the key is %s%s%s%s", failure->text,
			    cmek_kms_state_name(info.state), info.remark ? " (" : "", info.remark ? info.remark : "",
			    info.remark ? ")" : "");
	cmek_kms_info_done(&info);
	return rc;
}

/* An action of the key's on a body. */
static int act(struct cmek_ibm *k, const char *what, const char *action, const struct cmek_secret *body,
	       struct cmek_http_response *ret_resp, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	char path[128];
	struct cmek_ibm_request want = {
		.what = what,
		.method = "POST",
		.path = path,
		.type = "application/vnd.ibm.kms.key_action+json",
		.body = cmek_secret_bytes(body, CMEK_KEY_TEXT),
		.body_len = cmek_secret_len(body),
	};
	int rc;

	snprintf(path, sizeof(path), "keys/%s/actions/%s", k->id.key, action);
	rc = cmek_ibm_call(k, &want, ret_resp, &failure);
	if (rc == 0)
		return 0;
	if (failure.err == EKEYREVOKED)
		return tell_state(k, &failure, err);
	return cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
}

static int ibm_wrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_secret *key,
		    struct cmek_kms_blob *ret_blob, struct cmek_error *err)
{
	struct cmek_http_response resp = { 0 };
	struct cmek_secret *body = NULL;
	struct cmek_ibm *k = state;
	int rc;

	rc = cmek_cloud_begin(&k->cloud, err);
	if (rc == 0)
		rc = cmek_ibm_wrap_request(ctx, key, &body, err);
	if (rc == 0)
		rc = act(k, "IBM Key Protect, wrap", "wrap", body, &resp, err);
	if (rc == 0)
		rc = cmek_ibm_wrap_reply(resp.body, resp.body_len, k->crn, ret_blob, err);
	cmek_http_response_done(&resp);
	cmek_secret_free(body);
	return rc;
}

static int check_origin(const struct cmek_ibm *k, const struct cmek_kms_blob *blob, struct cmek_error *err)
{
	if (!blob->resolved || !strcmp(blob->resolved, k->crn))
		return 0;
	return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "the key was wrapped by %.300s, not by %s", blob->resolved,
			      k->crn);
}

/* Of a key that has wrapped something: it was there once. A key ring that was configured may be the wrong one. */
static int gone(const struct cmek_ibm *k, const struct cmek_http_response *resp, const struct cmek_error *failure,
		struct cmek_error *err)
{
	if (strcmp(resp->problem.code, "KEY_NOT_FOUND_ERR") != 0 || k->ring)
		return cmek_error_set(err, failure->kind, failure->err, "%s", failure->text);
	return cmek_error_set(err, CMEK_E_KEY_DESTROYED, EKEYREVOKED, "%s: the key was destroyed and purged", failure->text);
}

/* Unwrap and rewrap ask the same of the key, and differ in what they are answered. */
static int act_on_blob(struct cmek_ibm *k, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		       const char *what, const char *action, struct cmek_http_response *ret_resp, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_secret *body = NULL;
	int rc = check_origin(k, blob, err);

	if (rc == 0)
		rc = cmek_cloud_begin(&k->cloud, err);
	if (rc == 0)
		rc = cmek_ibm_unwrap_request(ctx, blob, &body, err);
	if (rc == 0) {
		rc = act(k, what, action, body, ret_resp, &failure);
		if (rc < 0)
			rc = gone(k, ret_resp, &failure, err);
	}
	cmek_secret_free(body);
	return rc;
}

static int ibm_unwrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		      struct cmek_secret **ret_key, struct cmek_kms_blob *ret_fresh, struct cmek_error *err)
{
	struct cmek_http_response resp = { 0 };
	struct cmek_kms_blob fresh = { 0 };
	struct cmek_ibm *k = state;
	int rc = act_on_blob(k, ctx, blob, "IBM Key Protect, unwrap", "unwrap", &resp, err);

	if (rc == 0)
		rc = cmek_ibm_unwrap_reply(resp.body, resp.body_len, k->crn, ret_key, &fresh, err);
	cmek_http_response_done(&resp);
	if (rc == 0 && ret_fresh)
		*ret_fresh = fresh;
	else
		cmek_kms_blob_done(&fresh);
	return rc;
}

static int ibm_rewrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		      struct cmek_kms_blob *ret_blob, struct cmek_error *err)
{
	struct cmek_http_response resp = { 0 };
	struct cmek_ibm *k = state;
	int rc = act_on_blob(k, ctx, blob, "IBM Key Protect, rewrap", "rewrap", &resp, err);

	if (rc == 0)
		rc = cmek_ibm_wrap_reply(resp.body, resp.body_len, k->crn, ret_blob, err);
	cmek_http_response_done(&resp);
	return rc;
}

static struct cmek_http *http(void *state)
{
	const struct cmek_ibm *k = state;

	return k->cloud.http;
}

const struct cmek_kms_provider cmek_kms_ibm = {
	.name = "ibm",
	.match = ibm_match,
	.open = ibm_open,
	.close = ibm_close,
	.wrap = ibm_wrap,
	.unwrap = ibm_unwrap,
	.rewrap = ibm_rewrap,
	.describe = cmek_ibm_describe,
	.create = cmek_ibm_create,
	.rotate = cmek_ibm_rotate,
	.enable = cmek_ibm_enable,
	.disable = cmek_ibm_disable,
	.schedule_deletion = cmek_ibm_schedule_deletion,
	.cancel_deletion = cmek_ibm_cancel_deletion,
	.force_deletion = cmek_ibm_force_deletion,
	.registrations = cmek_ibm_registrations,
	.identity = cmek_ibm_identity,
	.policy = cmek_ibm_policy,
	.http = http,
};
