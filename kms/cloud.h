/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_CLOUD_H
#define CMEK_KMS_CLOUD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/secret.h"
#include "kms/http.h"
#include "kms/json.h"
#include "kms/kms.h"
#include "kms/session.h"

/* What handles of keys in a cloud have in common: their session, how the service is reached, tokens. */

struct cmek_cloud {
	const char *provider;             /* section of the configuration; static */
	struct cmek_kms_session *session; /* the options', or own */
	struct cmek_kms_session *own;
	char *profile; /* of the configuration, NULL = none */
	unsigned deadline_ms;
	struct cmek_http_settings settings;
	struct cmek_http *http; /* the session's, once cmek_cloud_begin() was called */
};
/* No network traffic. On failure cmek_cloud_done() is due all the same. */
int cmek_cloud_init(struct cmek_cloud *cloud, const char *provider, const struct cmek_kms_options *opts,
		    struct cmek_error *err);
void cmek_cloud_done(struct cmek_cloud *cloud);
/* A setting of the provider's sections, NULL = not set. */
const char *cmek_cloud_text(const struct cmek_cloud *cloud, const char *key);
/* The same; else the first of these variables of the environment that is set (NULL ends them); else fallback. */
const char *cmek_cloud_endpoint(const struct cmek_cloud *cloud, const char *key, const char *const *variables,
				const char *fallback);
/* Begins a call: the deadline runs from here. */
int cmek_cloud_begin(struct cmek_cloud *cloud, struct cmek_error *err);

/* A member that is a token, fit for a header, as CMEK_KEY_TEXT. */
int cmek_cloud_token_of(const struct cmek_json_at *at, const char *name, struct cmek_secret **ret_token,
			struct cmek_error *err);
/* The token in an answer of a token endpoint, and when it expires. members: the token, and its seconds of life. */
int cmek_cloud_token_reply(const struct cmek_http_response *resp, const char *what, const char *token_member,
			   const char *expires_member, int64_t now, struct cmek_secret **ret_token, int64_t *ret_expires,
			   struct cmek_error *err);

/* Appends text to a body in the making, a CMEK_KEY_TEXT whose content is a string; escaped as in a form if asked. */
int cmek_cloud_append(struct cmek_secret *body, const char *text, bool escaped, struct cmek_error *err);

#endif
