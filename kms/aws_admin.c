/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Administration of keys of AWS KMS. It must not know how requests travel.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kms/aws_handle.h"

#define PAGES_MAX 64
#define DAYS_MIN 7
#define DAYS_MAX 30

/* Operations on the key itself take its ARN or id and no alias. */
static int resolve(struct cmek_aws *aws, struct cmek_aws_target *ret_target, struct cmek_error *err)
{
	struct cmek_aws_metadata meta;
	int rc;

	cmek_aws_begin(aws);
	rc = cmek_aws_target_of(aws, &aws->key, ret_target, err);
	if (rc < 0 || !cmek_aws_key_is_alias(&aws->key))
		return rc;
	rc = cmek_aws_metadata(aws, ret_target, &meta, err);
	if (rc < 0)
		return rc;
	snprintf(ret_target->id, sizeof(ret_target->id), "%s", meta.info.resolved);
	cmek_aws_metadata_done(&meta);
	return 0;
}

/* An operation that takes a KeyId and whose answer does not matter. */
static int order(struct cmek_aws *aws, const struct cmek_aws_target *target, const char *operation, struct cmek_error *err)
{
	json_t *members = cmek_aws_members("KeyId", target->id), *reply = NULL;
	int rc = cmek_aws_kms(aws, target, operation, &members, &reply, err);

	json_decref(reply);
	return rc;
}

/* All materials, if that may be asked: describe alone tells only the current one. */
static int add_rotations(struct cmek_aws *aws, const struct cmek_aws_target *target, struct cmek_kms_info *info,
			 struct cmek_error *err)
{
	struct cmek_kms_info all = { .state = info->state };
	json_t *members, *reply = NULL;
	char *marker = NULL, *next = NULL;
	int rc = 0;

	for (unsigned page = 0; rc == 0 && page < PAGES_MAX && (page == 0 || marker); page++) {
		members = cmek_aws_members("KeyId", target->id);
		cmek_aws_add(&members, "IncludeKeyMaterial", json_string("ALL_KEY_MATERIAL"));
		if (marker)
			cmek_aws_add(&members, "Marker", json_string(marker));
		rc = cmek_aws_kms(aws, target, "ListKeyRotations", &members, &reply, err);
		if (rc == 0)
			rc = cmek_aws_rotations_from_json(reply, &all, &next, err);
		json_decref(reply);
		reply = NULL;
		free(marker);
		marker = next;
		next = NULL;
	}
	free(marker);
	if (rc == 0 && all.n_versions > 0) {
		for (size_t i = 0; i < info->n_versions; i++)
			free(info->versions[i].id);
		free(info->versions);
		info->versions = all.versions;
		info->n_versions = all.n_versions;
		/* The first material is as old as the key. */
		if (info->versions[0].created == 0)
			info->versions[0].created = info->created;
	} else {
		cmek_kms_info_done(&all);
	}
	return rc;
}

int cmek_aws_describe(void *state, struct cmek_kms_info *ret_info, struct cmek_error *err)
{
	struct cmek_aws *aws = state;
	struct cmek_aws_target target;
	struct cmek_aws_metadata meta;
	int rc;

	cmek_aws_begin(aws);
	rc = cmek_aws_target_of(aws, &aws->key, &target, err);
	if (rc == 0)
		rc = cmek_aws_metadata(aws, &target, &meta, err);
	if (rc < 0)
		return rc;
	snprintf(target.id, sizeof(target.id), "%s", meta.info.resolved);
	(void)add_rotations(aws, &target, &meta.info, NULL); /* not permitted, or not for this kind of key: then it is left out */
	*ret_info = meta.info;
	return 0;
}

/* The alias that the URI names is given to the key that was made. */
static int name_key(struct cmek_aws *aws, const struct cmek_aws_target *target, const char *arn, struct cmek_error *err)
{
	json_t *members = cmek_aws_members("AliasName", aws->key.resource), *reply = NULL;
	struct cmek_aws_target named = *target;
	int rc;

	snprintf(named.id, sizeof(named.id), "%s", arn);
	cmek_aws_add(&members, "TargetKeyId", json_string(arn));
	rc = cmek_aws_kms(aws, &named, "CreateAlias", &members, &reply, err);
	if (rc < 0)
		cmek_error_prefix(err, "the key %s was made, but it could not be called %s", arn, aws->key.resource);
	json_decref(reply);
	return rc;
}

/* A URI of an alias that is free: a new key gets that name. AWS itself chooses the ids of keys. */
int cmek_aws_create(void *state, const struct cmek_kms_create *how, struct cmek_error *err)
{
	struct cmek_aws *aws = state;
	struct cmek_aws_target target;
	struct cmek_aws_metadata meta;
	json_t *members, *reply = NULL;
	int rc;

	if (how->passphrase)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "a passphrase protects local keys only");
	if (!cmek_aws_key_is_alias(&aws->key))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "AWS KMS chooses the ids of keys itself: name an alias that the new key shall have, as in "
				      "aws-kms://alias/NAME");
	cmek_aws_begin(aws);
	rc = cmek_aws_target_of(aws, &aws->key, &target, err);
	if (rc < 0)
		return rc;
	if (cmek_aws_metadata(aws, &target, &meta, NULL) == 0) {
		rc = cmek_error_set(err, CMEK_E_EXISTS, EEXIST, "%s is a name of %s already", aws->key.resource,
				    meta.info.resolved);
		cmek_aws_metadata_done(&meta);
		return rc;
	}
	members = cmek_aws_members(NULL, NULL);
	cmek_aws_add(&members, "Description", json_string("cmekfs"));
	if (how->multi_region)
		cmek_aws_add(&members, "MultiRegion", json_true());
	target.id[0] = '\0';
	rc = cmek_aws_kms(aws, &target, "CreateKey", &members, &reply, err);
	if (rc == 0)
		rc = cmek_aws_metadata_from_json(reply, &meta, err);
	json_decref(reply);
	if (rc < 0)
		return rc;
	rc = name_key(aws, &target, meta.info.resolved, err);
	cmek_aws_metadata_done(&meta);
	return rc;
}

int cmek_aws_rotate(void *state, char **ret_version, struct cmek_error *err)
{
	struct cmek_aws *aws = state;
	struct cmek_aws_target target;
	struct cmek_aws_metadata meta;
	int rc = resolve(aws, &target, err);

	if (rc == 0)
		rc = order(aws, &target, "RotateKeyOnDemand", err);
	if (rc < 0)
		return rc;
	/* AWS rotates in the background; the version is told if it is known already. */
	if (cmek_aws_metadata(aws, &target, &meta, NULL) == 0) {
		*ret_version = meta.info.primary_version;
		meta.info.primary_version = NULL;
		cmek_aws_metadata_done(&meta);
	}
	return 0;
}

int cmek_aws_enable(void *state, struct cmek_error *err)
{
	struct cmek_aws_target target;
	int rc = resolve(state, &target, err);

	return rc < 0 ? rc : order(state, &target, "EnableKey", err);
}

int cmek_aws_disable(void *state, struct cmek_error *err)
{
	struct cmek_aws_target target;
	int rc = resolve(state, &target, err);

	return rc < 0 ? rc : order(state, &target, "DisableKey", err);
}

int cmek_aws_schedule_deletion(void *state, unsigned days, int64_t *ret_date, struct cmek_error *err)
{
	struct cmek_aws_target target;
	json_t *members, *reply = NULL;
	int rc;

	if (days == CMEK_KMS_DAYS_DEFAULT)
		days = DAYS_MAX;
	if (days < DAYS_MIN || days > DAYS_MAX)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "AWS KMS deletes keys after %d to %d days, not %u", DAYS_MIN,
				      DAYS_MAX, days);
	rc = resolve(state, &target, err);
	if (rc < 0)
		return rc;
	members = cmek_aws_members("KeyId", target.id);
	cmek_aws_add(&members, "PendingWindowInDays", json_integer(days));
	rc = cmek_aws_kms(state, &target, "ScheduleKeyDeletion", &members, &reply, err);
	if (rc == 0)
		*ret_date = cmek_aws_time(reply, "DeletionDate");
	json_decref(reply);
	return rc;
}

int cmek_aws_cancel_deletion(void *state, struct cmek_error *err)
{
	struct cmek_aws_target target;
	int rc = resolve(state, &target, err);

	return rc < 0 ? rc : order(state, &target, "CancelKeyDeletion", err);
}
