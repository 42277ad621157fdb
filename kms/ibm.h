/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_IBM_H
#define CMEK_KMS_IBM_H

#include "kms/cloud.h"
#include "kms/ibm_iam.h"
#include "kms/kms.h"
#include "kms/kms_uri.h"

extern const struct cmek_kms_provider cmek_kms_ibm;

/* For the provider's own files. */

/* A root key of IBM Key Protect. */
struct cmek_ibm {
	struct cmek_cloud cloud;
	struct cmek_ibm_iam *iam;
	char *crn; /* as given, or of the key that was made */
	struct cmek_kms_crn id; /* without a key: only good to make one */
	char *profile;   /* trusted profile, NULL = none */
	char *endpoint;
	const char *ring; /* key ring of the configuration, NULL = the service looks through all */
};

/* A request of a call that was begun. */
struct cmek_ibm_request {
	const char *what, *method;
	const char *path; /* behind /api/v2/ */
	const char *type; /* of the body */
	const char *prefer; /* NULL = nothing said */
	const void *body;
	size_t body_len;
};

/* With a token that is renewed once if it is refused; refused again means denied. As cmek_http_call() otherwise. */
int cmek_ibm_call(struct cmek_ibm *k, const struct cmek_ibm_request *want, struct cmek_http_response *ret_resp,
		  struct cmek_error *err);
/* The key's metadata, of a call that was begun: all of *ret_info but the versions. */
int cmek_ibm_get_key(struct cmek_ibm *k, struct cmek_kms_info *ret_info, struct cmek_error *err);

/* Operations of the provider (ibm_admin.c). */
int cmek_ibm_create(void *state, const struct cmek_kms_create *how, struct cmek_error *err);
int cmek_ibm_describe(void *state, struct cmek_kms_info *ret_info, struct cmek_error *err);
int cmek_ibm_rotate(void *state, char **ret_version, struct cmek_error *err);
int cmek_ibm_enable(void *state, struct cmek_error *err);
int cmek_ibm_disable(void *state, struct cmek_error *err);
int cmek_ibm_schedule_deletion(void *state, unsigned days, int64_t *ret_date, struct cmek_error *err);
int cmek_ibm_force_deletion(void *state, int64_t *ret_date, struct cmek_error *err);
int cmek_ibm_cancel_deletion(void *state, struct cmek_error *err);
int cmek_ibm_registrations(void *state, struct cmek_kms_registration **ret_regs, size_t *ret_n, struct cmek_error *err);
int cmek_ibm_identity(void *state, char **ret_text, struct cmek_error *err);
int cmek_ibm_policy(void *state, const struct cmek_kms_policy_wish *wish, struct cmek_kms_policy *ret_policy,
		    struct cmek_error *err);

#endif
