/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Google Cloud KMS as a provider: handles, requests with a token, wrap and unwrap. It must not know where tokens come
 * from, nor what a blob is kept in.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kms/gcp.h"
#include "kms/gcp_wire.h"
#include "kms/kms_uri.h"

#define ENDPOINT "https://cloudkms.googleapis.com"
#define URL_MAX_BYTES 2048
#define CRC_ATTEMPTS 3

static bool gcp_match(const char *uri)
{
	return cmek_kms_uri_service(uri) == CMEK_KMS_SERVICE_GCP;
}

static void gcp_close(void *state)
{
	struct cmek_gcp *g = state;

	cmek_gcp_token_free(g->tokens);
	cmek_cloud_done(&g->cloud);
	free(g->name);
	free(g->principal);
	free(g->endpoint);
	free(g);
}

static int gcp_open(const char *uri, const struct cmek_kms_principal *principal, const struct cmek_kms_options *opts,
		    void **ret_state, struct cmek_error *err)
{
	/* gcloud's own variable. */
	static const char *const variables[] = { "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS", NULL };
	const char *name = NULL;
	struct cmek_gcp *g;
	size_t len;
	int rc;

	rc = cmek_kms_uri_gcp(uri, &name, err);
	if (rc < 0)
		return rc;
	g = calloc(1, sizeof(*g));
	if (!g)
		return cmek_error_sys(err, ENOMEM, "opening %s", uri);
	rc = cmek_cloud_init(&g->cloud, "gcp", opts, err);
	if (rc < 0)
		goto out;
	rc = cmek_gcp_token_new(&g->cloud, principal->service_account, &g->tokens, err);
	if (rc < 0)
		goto out;
	g->name = strdup(name);
	g->principal = principal->service_account ? strdup(principal->service_account) : NULL;
	g->endpoint = strdup(cmek_cloud_endpoint(&g->cloud, "endpoint", variables, ENDPOINT));
	if (!g->name || !g->endpoint || (principal->service_account && !g->principal)) {
		rc = cmek_error_sys(err, ENOMEM, "opening %s", uri);
		goto out;
	}
	len = strlen(g->endpoint);
	if (g->endpoint[len - 1] == '/')
		g->endpoint[len - 1] = '\0'; /* gcloud writes it so */
out:
	if (rc < 0)
		gcp_close(g);
	else
		*ret_state = g;
	return rc;
}

/* One request with the token that is at hand. */
static int call_once(struct cmek_gcp *g, struct cmek_http_request *req, struct cmek_http_response *ret_resp,
		     struct cmek_error *err)
{
	struct cmek_secret *token = NULL;
	const char *project;
	int rc;

	memset(ret_resp, 0, sizeof(*ret_resp));
	rc = cmek_gcp_token_get(g->tokens, &token, err);
	if (rc < 0)
		return rc;
	req->headers[0] =
		(struct cmek_http_header){ .name = "Authorization", .secret = token, .secret_prefix = "Bearer " };
	req->headers[1] = (struct cmek_http_header){ .name = "Content-Type", .value = "application/json" };
	project = cmek_gcp_token_quota_project(g->tokens);
	if (project)
		req->headers[2] = (struct cmek_http_header){ .name = "x-goog-user-project", .value = project };
	rc = cmek_http_call(g->cloud.http, req, ret_resp, err);
	cmek_secret_free(token);
	return rc;
}

int cmek_gcp_call(struct cmek_gcp *g, const char *what, const char *method, const char *path, const void *body,
		  size_t body_len, struct cmek_http_response *ret_resp, struct cmek_error *err)
{
	struct cmek_error first = CMEK_ERROR_INIT;
	char url[URL_MAX_BYTES];
	struct cmek_http_request req = {
		.service = CMEK_KMS_SERVICE_GCP,
		.what = what,
		.settings = &g->cloud.settings,
		.method = method,
		.url = url,
		.body = body,
		.body_len = body_len,
		.read_problem = cmek_gcp_read_problem,
	};
	int rc;

	memset(ret_resp, 0, sizeof(*ret_resp));
	if ((size_t)snprintf(url, sizeof(url), "%s/v1/%s", g->endpoint, path) >= sizeof(url))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: the URL of the request is too long", what);
	rc = call_once(g, &req, ret_resp, &first);
	if (rc < 0 && ret_resp->class.renew) {
		cmek_gcp_token_forget(g->tokens);
		cmek_http_response_done(ret_resp);
		cmek_error_clear(&first);
		rc = call_once(g, &req, ret_resp, &first);
	}
	if (rc < 0)
		cmek_error_set(err, first.kind, first.err, "%s: %s", g->name, first.text);
	return rc;
}

/* Posts a body to the key's verb. */
static int post_verb(struct cmek_gcp *g, const char *what, const char *verb, const struct cmek_secret *body,
		     struct cmek_http_response *ret_resp, struct cmek_error *err)
{
	char path[URL_MAX_BYTES];

	snprintf(path, sizeof(path), "%s:%s", g->name, verb);
	return cmek_gcp_call(g, what, "POST", path, cmek_secret_bytes(body, CMEK_KEY_TEXT), cmek_secret_len(body), ret_resp,
			     err);
}

/*
 * A precondition failed, and the answer did not say in which state the key is: its own record does, if it may be read.
 * failure then tells that.
 */
static void tell_state(struct cmek_gcp *g, const struct cmek_http_response *resp, struct cmek_error *failure)
{
	static const struct {
		enum cmek_kms_state state;
		enum cmek_kind kind;
	} kinds[] = {
		{ CMEK_KMS_DISABLED, CMEK_E_KEY_DISABLED },
		{ CMEK_KMS_PENDING_DELETION, CMEK_E_PENDING_DELETION },
		{ CMEK_KMS_DESTROYED, CMEK_E_KEY_DESTROYED },
	};
	struct cmek_kms_info info = { 0 };
	struct cmek_error told = CMEK_ERROR_INIT;

	if (strcmp(resp->problem.code, "FAILED_PRECONDITION") != 0 || cmek_gcp_get_key(g, &info, NULL) < 0)
		return;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (info.state == kinds[i].state) {
			cmek_error_set(&told, kinds[i].kind, EKEYREVOKED, "%s; its primary version is %s", failure->text,
				       cmek_kms_state_name(info.state));
			*failure = told;
			break;
		}
	}
	cmek_kms_info_done(&info);
}

/* err is not NULL in these two. */
static int wrap_once(struct cmek_gcp *g, const struct cmek_secret *body, struct cmek_kms_blob *ret_blob,
		     struct cmek_error *err)
{
	struct cmek_http_response resp;
	int rc;

	rc = post_verb(g, "Google Cloud KMS, encrypt", "encrypt", body, &resp, err);
	if (rc == 0)
		rc = cmek_gcp_encrypt_reply(resp.body, resp.body_len, g->name, ret_blob, err);
	else
		tell_state(g, &resp, err);
	cmek_http_response_done(&resp);
	return rc < 0 ? -err->err : 0;
}

static int unwrap_once(struct cmek_gcp *g, const struct cmek_secret *body, struct cmek_secret **ret_key, bool *ret_primary,
		       struct cmek_error *err)
{
	struct cmek_http_response resp;
	int rc;

	rc = post_verb(g, "Google Cloud KMS, decrypt", "decrypt", body, &resp, err);
	if (rc == 0)
		rc = cmek_gcp_decrypt_reply(resp.body, resp.body_len, ret_key, ret_primary, err);
	else
		tell_state(g, &resp, err);
	cmek_http_response_done(&resp);
	return rc < 0 ? -err->err : 0;
}

static int gcp_wrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_secret *key,
		    struct cmek_kms_blob *ret_blob, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_gcp *g = state;
	struct cmek_secret *body = NULL;
	int rc;

	rc = cmek_cloud_begin(&g->cloud, err);
	if (rc == 0)
		rc = cmek_gcp_encrypt_request(ctx, key, &body, err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < CRC_ATTEMPTS; i++) {
		cmek_error_clear(&failure);
		rc = wrap_once(g, body, ret_blob, &failure);
		if (rc != -EILSEQ)
			break;
	}
	cmek_secret_free(body);
	return rc < 0 ? cmek_error_set(err, failure.kind, failure.err, "%s", failure.text) : 0;
}

static int gcp_unwrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		      struct cmek_secret **ret_key, struct cmek_kms_blob *ret_fresh, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_gcp *g = state;
	struct cmek_secret *body = NULL;
	bool primary = true;
	int rc;

	(void)ret_fresh; /* see gcp_outdated() */
	g->outdated = false;
	if (blob->resolved && strcmp(blob->resolved, g->name) != 0)
		return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "the key was wrapped by %.300s, not by %s",
				      blob->resolved, g->name);
	rc = cmek_cloud_begin(&g->cloud, err);
	if (rc == 0)
		rc = cmek_gcp_decrypt_request(ctx, blob, &body, err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < CRC_ATTEMPTS; i++) {
		cmek_error_clear(&failure);
		rc = unwrap_once(g, body, ret_key, &primary, &failure);
		if (rc != -EILSEQ)
			break;
	}
	cmek_secret_free(body);
	if (rc < 0)
		return cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
	g->outdated = !primary;
	return 0;
}

/* A newer version is primary. */
static bool gcp_outdated(void *state)
{
	const struct cmek_gcp *g = state;

	return g->outdated;
}

static struct cmek_http *http(void *state)
{
	const struct cmek_gcp *g = state;

	return g->cloud.http;
}

const struct cmek_kms_provider cmek_kms_gcp = {
	.name = "gcp",
	.match = gcp_match,
	.open = gcp_open,
	.close = gcp_close,
	.wrap = gcp_wrap,
	.unwrap = gcp_unwrap,
	.describe = cmek_gcp_describe,
	.create = cmek_gcp_create,
	.rotate = cmek_gcp_rotate,
	.enable = cmek_gcp_enable,
	.disable = cmek_gcp_disable,
	.schedule_deletion = cmek_gcp_schedule_deletion,
	.cancel_deletion = cmek_gcp_cancel_deletion,
	.identity = cmek_gcp_identity,
	.policy = cmek_gcp_policy,
	.outdated = gcp_outdated,
	.http = http,
};
