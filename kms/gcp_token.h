/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_GCP_TOKEN_H
#define CMEK_KMS_GCP_TOKEN_H

#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "kms/cloud.h"

/*
 * Google Cloud's application default credentials: where access tokens come from. In this order: credentials_file of the
 * configuration, $GOOGLE_APPLICATION_CREDENTIALS, $CREDENTIALS_DIRECTORY/gcp-credentials.json, gcloud's file
 * ($CLOUDSDK_CONFIG or ~/.config/gcloud, application_default_credentials.json), the metadata server. A file is of type
 * service_account, authorized_user or impersonated_service_account; others are kind unsupported.
 * One thread at a time a handle.
 */
struct cmek_gcp_token;

/*
 * cloud is borrowed, and begun (cmek_cloud_begin()) before a token is asked for. impersonate: a service account to act as,
 * NULL = none. Reads no file, asks nobody.
 */
int cmek_gcp_token_new(struct cmek_cloud *cloud, const char *impersonate, struct cmek_gcp_token **ret_source,
		       struct cmek_error *err);
void cmek_gcp_token_free(struct cmek_gcp_token *source);

/*
 * An access token, from the session's cache or fetched. Kinds: expired (-EKEYEXPIRED: refused, or no credentials found),
 * denied (impersonation is not allowed), bad-format (a credentials file), unreachable, throttled.
 */
int cmek_gcp_token_get(struct cmek_gcp_token *source, struct cmek_secret **ret_token, struct cmek_error *err);
/* Whose tokens these are and where they come from, for people; malloced. A token is fetched for it. */
int cmek_gcp_token_identity(struct cmek_gcp_token *source, char **ret_text, struct cmek_error *err);
/* The service refused the token. */
void cmek_gcp_token_forget(struct cmek_gcp_token *source);
/* The project that pays for requests, NULL = the key's own. Known once a token was got; borrowed. */
const char *cmek_gcp_token_quota_project(const struct cmek_gcp_token *source);

/*
 * The signed assertion of a service account (RFC 7523) as CMEK_KEY_TEXT. Public for its test.
 * key_id may be NULL. now: Unix seconds; it is good for an hour.
 */
int cmek_gcp_token_assertion(const char *email, const char *key_id, const char *audience, const struct cmek_secret *pem,
			     int64_t now, struct cmek_secret **ret_assertion, struct cmek_error *err);

#endif
