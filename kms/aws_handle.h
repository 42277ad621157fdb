/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_AWS_HANDLE_H
#define CMEK_KMS_AWS_HANDLE_H

#include "kms/aws_creds.h"
#include "kms/aws_key.h"
#include "kms/json.h"
#include "kms/kms.h"

/* An opened key of AWS KMS: what the files of the provider share. */
struct cmek_aws {
	struct cmek_kms_session *session, *own_session; /* own: made by and for this handle, NULL = given */
	struct cmek_aws_client client;
	struct cmek_aws_key key;
	char *profile, *role, *external_id; /* copies; NULL = none */
	unsigned deadline_ms;
};

int cmek_aws_handle_new(const char *uri, const struct cmek_kms_principal *principal,
			const struct cmek_kms_options *opts, struct cmek_aws **ret_aws, struct cmek_error *err);
void cmek_aws_handle_free(struct cmek_aws *aws);

/* First thing of each operation of the provider: the deadline runs from here. */
void cmek_aws_begin(struct cmek_aws *aws);

/*
 * Where a key is asked: its own Region, or for one of several Regions (mrk-) the one that replica_region in the
 * configuration names. id: what KeyId then takes. Kind usage: no Region is known.
 */
struct cmek_aws_target {
	char region[32];
	char id[CMEK_AWS_ARN_MAX];
};
int cmek_aws_target_of(const struct cmek_aws *aws, const struct cmek_aws_key *key, struct cmek_aws_target *ret_target,
		       struct cmek_error *err);

/*
 * One operation of KMS. *members goes to it (nulled, wiped). *ret_reply: the answer, owned by the caller. A refusal names
 * the operation and the key, and for a key in a state that forbids it tells which one.
 */
int cmek_aws_kms(struct cmek_aws *aws, const struct cmek_aws_target *target, const char *operation, json_t **members,
		 json_t **ret_reply, struct cmek_error *err);
/* DescribeKey. */
int cmek_aws_metadata(struct cmek_aws *aws, const struct cmek_aws_target *target, struct cmek_aws_metadata *ret_meta,
		      struct cmek_error *err);

/* Members as json_pack() would make them, for callers that check once: NULL stays NULL. */
json_t *cmek_aws_members(const char *key_name, const char *key_id);
/* Adds a member; *value goes to it. On failure *members is freed and NULL. */
void cmek_aws_add(json_t **members, const char *name, json_t *value);

/* Administration (aws_admin.c), arguments as in struct cmek_kms_provider. */
int cmek_aws_describe(void *state, struct cmek_kms_info *ret_info, struct cmek_error *err);
int cmek_aws_create(void *state, const struct cmek_kms_create *how, struct cmek_error *err);
int cmek_aws_rotate(void *state, char **ret_version, struct cmek_error *err);
int cmek_aws_enable(void *state, struct cmek_error *err);
int cmek_aws_disable(void *state, struct cmek_error *err);
int cmek_aws_schedule_deletion(void *state, unsigned days, int64_t *ret_date, struct cmek_error *err);
int cmek_aws_cancel_deletion(void *state, struct cmek_error *err);
/* aws_policy.c */
int cmek_aws_policy(void *state, const struct cmek_kms_policy_wish *wish, struct cmek_kms_policy *ret_policy,
		    struct cmek_error *err);

#endif
