/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_GCP_H
#define CMEK_KMS_GCP_H

#include "kms/cloud.h"
#include "kms/gcp_token.h"
#include "kms/kms.h"

extern const struct cmek_kms_provider cmek_kms_gcp;

/* For the provider's own files. */

/* A key of Google Cloud KMS. */
struct cmek_gcp {
	struct cmek_cloud cloud;
	struct cmek_gcp_token *tokens;
	char *name;      /* projects/.../cryptoKeys/K */
	char *principal; /* the account to impersonate, NULL = none */
	char *endpoint;
	bool outdated; /* what was unwrapped last is not under the primary version */
};

/*
 * One request of a call that was begun (cmek_cloud_begin()): the body, or NULL, to ENDPOINT/v1/PATH, with a token that is
 * renewed once if it is refused. As cmek_http_call() otherwise.
 */
int cmek_gcp_call(struct cmek_gcp *g, const char *what, const char *method, const char *path, const void *body,
		  size_t body_len, struct cmek_http_response *ret_resp, struct cmek_error *err);

/* The key's own record, of a call that was begun: all of *ret_info but the versions. */
int cmek_gcp_get_key(struct cmek_gcp *g, struct cmek_kms_info *ret_info, struct cmek_error *err);

/* Operations of the provider (gcp_admin.c). */
int cmek_gcp_describe(void *state, struct cmek_kms_info *ret_info, struct cmek_error *err);
int cmek_gcp_create(void *state, const struct cmek_kms_create *how, struct cmek_error *err);
int cmek_gcp_rotate(void *state, char **ret_version, struct cmek_error *err);
int cmek_gcp_enable(void *state, struct cmek_error *err);
int cmek_gcp_disable(void *state, struct cmek_error *err);
int cmek_gcp_schedule_deletion(void *state, unsigned days, int64_t *ret_date, struct cmek_error *err);
int cmek_gcp_cancel_deletion(void *state, struct cmek_error *err);
int cmek_gcp_identity(void *state, char **ret_text, struct cmek_error *err);
int cmek_gcp_policy(void *state, const struct cmek_kms_policy_wish *wish, struct cmek_kms_policy *ret_policy,
		    struct cmek_error *err);

#endif
