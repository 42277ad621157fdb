/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the cloud providers share: a handle's session and settings, bodies and answers of token endpoints. It must not
 * know one provider from another.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kms/cloud.h"

#define TOKEN_MAX_BYTES 16384
#define TOKEN_LIFE_MAX_S 86400

int cmek_cloud_init(struct cmek_cloud *cloud, const char *provider, const struct cmek_kms_options *opts,
		    struct cmek_error *err)
{
	int rc = 0;

	cloud->provider = provider;
	cloud->session = opts->session;
	if (!cloud->session) {
		rc = cmek_kms_session_new(opts->config_path, &cloud->own, err);
		cloud->session = cloud->own;
	}
	if (rc == 0)
		rc = cmek_kms_session_check_profile(cloud->session, opts->profile, err);
	if (rc < 0)
		return rc;
	if (opts->profile) {
		cloud->profile = strdup(opts->profile);
		if (!cloud->profile)
			return cmek_error_sys(err, ENOMEM, "opening a key");
	}
	cloud->settings = cmek_kms_session_settings(cloud->session, provider, cloud->profile);
	cloud->deadline_ms =
		cmek_kms_session_deadline_ms(cloud->session, provider, cloud->profile, opts->deadline_ms);
	return 0;
}

void cmek_cloud_done(struct cmek_cloud *cloud)
{
	cmek_kms_session_free(cloud->own);
	free(cloud->profile);
	memset(cloud, 0, sizeof(*cloud));
}

const char *cmek_cloud_text(const struct cmek_cloud *cloud, const char *key)
{
	return cmek_kms_session_text(cloud->session, cloud->provider, cloud->profile, key);
}

const char *cmek_cloud_endpoint(const struct cmek_cloud *cloud, const char *key, const char *const *variables,
				const char *fallback)
{
	const char *url = cmek_cloud_text(cloud, key);

	for (; !url && variables && *variables; variables++) {
		url = getenv(*variables);
		if (url && url[0] == '\0')
			url = NULL;
	}
	return url ? url : fallback;
}

int cmek_cloud_begin(struct cmek_cloud *cloud, struct cmek_error *err)
{
	int rc = cmek_kms_session_http(cloud->session, &cloud->http, err);

	if (rc == 0)
		cmek_http_begin(cloud->http, cloud->deadline_ms);
	return rc;
}

/* Nothing that could end the header that a token goes into. */
static bool is_token(const struct cmek_secret *token)
{
	const uint8_t *p = cmek_secret_bytes(token, CMEK_KEY_TEXT);

	for (size_t i = 0; i < cmek_secret_len(token); i++) {
		if (p[i] <= ' ' || p[i] > '~')
			return false;
	}
	return cmek_secret_len(token) <= TOKEN_MAX_BYTES;
}

int cmek_cloud_token_of(const struct cmek_json_at *at, const char *name, struct cmek_secret **ret_token,
			struct cmek_error *err)
{
	struct cmek_secret *token = NULL;
	int rc = cmek_json_secret(at, name, &token, err);

	if (rc == 0 && !is_token(token))
		rc = cmek_json_bad(at, name, "is not a token", err);
	if (rc < 0)
		cmek_secret_free(token);
	else
		*ret_token = token;
	return rc;
}

int cmek_cloud_token_reply(const struct cmek_http_response *resp, const char *what, const char *token_member,
			   const char *expires_member, int64_t now, struct cmek_secret **ret_token, int64_t *ret_expires,
			   struct cmek_error *err)
{
	struct cmek_secret *token = NULL;
	struct cmek_json_at at;
	json_t *json = NULL;
	uint64_t life = 0;
	int rc = cmek_json_parse(resp->body, resp->body_len, what, &json, err);

	if (rc < 0)
		return rc;
	at = cmek_json_root(json, what);
	rc = cmek_cloud_token_of(&at, token_member, &token, err);
	if (rc == 0)
		rc = cmek_json_uint(&at, expires_member, 0, TOKEN_LIFE_MAX_S, &life, err);
	json_decref(json);
	if (rc < 0) {
		cmek_secret_free(token);
		return rc;
	}
	*ret_token = token;
	*ret_expires = now + (int64_t)life;
	return 0;
}

int cmek_cloud_append(struct cmek_secret *body, const char *text, bool escaped, struct cmek_error *err)
{
	char *out = (char *)cmek_secret_fill(body, CMEK_KEY_TEXT);
	size_t max = cmek_secret_len(body), used = strlen(out), len = strlen(text);
	bool fits;

	if (escaped) {
		fits = cmek_http_escape(out, max, text);
	} else {
		fits = len < max - used;
		if (fits)
			memcpy(out + used, text, len + 1);
	}
	return fits ? 0 : cmek_error_set(err, CMEK_E_LIMIT, EMSGSIZE, "credentials that are too long");
}
