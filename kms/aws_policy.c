/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The IAM policy that a use of a key needs, and how it gets where it belongs. No network; it must not know who will be
 * allowed what.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "kms/aws_handle.h"

/* An array of texts that ends with NULL, or NULL. */
static json_t *text_list(const char *const *texts)
{
	json_t *list = json_array();

	for (size_t i = 0; list && texts[i]; i++) {
		if (json_array_append_new(list, json_string(texts[i])) < 0) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

static json_t *volume_list(const struct cmek_kms_policy_wish *wish)
{
	char uuid[CMEK_UUID_TEXT];
	json_t *list = json_array();

	for (size_t i = 0; list && i < wish->n_volumes; i++) {
		cmek_uuid_encode(wish->volumes[i], uuid);
		if (json_array_append_new(list, json_string(uuid)) < 0) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

/*
 * What limits a statement: the volumes, and for an alias, which IAM does not know as a resource, that the key has this
 * name. An empty object if nothing does.
 */
static json_t *condition(const struct cmek_kms_policy_wish *wish, const char *alias)
{
	json_t *all = json_object();

	if (all && wish)
		cmek_aws_add(&all, "StringEquals", json_pack("{s:o}", "kms:EncryptionContext:cmekfs:volume", volume_list(wish)));
	if (all && alias)
		cmek_aws_add(&all, "ForAnyValue:StringEquals", json_pack("{s:s}", "kms:ResourceAliases", alias));
	return all;
}

static json_t *statement(const char *sid, const char *const *actions, const char *resource, json_t *limits)
{
	json_t *s = json_pack("{s:s, s:s, s:o, s:s}", "Sid", sid, "Effect", "Allow", "Action", text_list(actions), "Resource",
			      resource);

	if (!limits)
		cmek_aws_add(&s, "", NULL);
	else if (json_object_size(limits) > 0)
		cmek_aws_add(&s, "Condition", limits);
	else
		json_decref(limits);
	return s;
}

static char *build_document(const struct cmek_aws *aws, const struct cmek_kms_policy_wish *wish, const char *resource)
{
	static const char *const open_actions[] = { "kms:Decrypt", NULL };
	static const char *const make_actions[] = { "kms:Decrypt", "kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo",
						    NULL };
	static const char *const look_actions[] = { "kms:DescribeKey", "kms:ListKeyRotations", NULL };
	const char *alias = cmek_aws_key_is_alias(&aws->key) ? aws->key.resource : NULL;
	json_t *policy;
	char *text;

	policy = json_pack("{s:s, s:[o, o]}", "Version", "2012-10-17", "Statement",
			   statement("CmekfsUse", wish->create ? make_actions : open_actions, resource,
				     condition(wish->n_volumes ? wish : NULL, alias)),
			   statement("CmekfsDescribe", look_actions, resource, condition(NULL, alias)));
	text = policy ? json_dumps(policy, JSON_INDENT(2)) : NULL;
	json_decref(policy);
	return text;
}

/* "role/NAME" of an ARN of IAM; NULL if it is none. */
static const char *iam_name(const char *arn, const char *type)
{
	const char *p = arn ? strrchr(arn, ':') : NULL;

	return p && strncmp(p + 1, type, strlen(type)) == 0 ? strrchr(p, '/') + 1 : NULL;
}

static bool other_account(const struct cmek_aws *aws, const char *arn)
{
	char account[16] = "";

	return arn && aws->key.account[0] && sscanf(arn, "arn:%*[^:]:iam::%15[0-9]:", account) == 1 &&
	       strcmp(account, aws->key.account) != 0;
}

static void add_lines(FILE *f, const struct cmek_aws *aws, const struct cmek_kms_policy_wish *wish)
{
	const char *who = aws->role ? aws->role : wish->member;
	const char *role = iam_name(who, "role/"), *user = iam_name(who, "user/");

	fputs("Save the document above as cmekfs-policy.json, then:\n", f);
	if (user)
		fprintf(f, "  aws iam put-user-policy --user-name %s --policy-name cmekfs --policy-document "
			   "file://cmekfs-policy.json\n", user);
	else
		fprintf(f, "  aws iam put-role-policy --role-name %s --policy-name cmekfs --policy-document "
			   "file://cmekfs-policy.json\n", role ? role : "ROLE");
	fputs("The key's own policy must let IAM policies of its account decide (the default of new keys does).\n", f);
	if (other_account(aws, who))
		fprintf(f, "%s is of another account than the key: the key's policy must also allow the same actions to\n"
			   "{\"AWS\": \"%s\"} (aws kms put-key-policy).\n", who, who);
	if (aws->role && aws->external_id)
		fprintf(f, "The role's trust policy should demand the external id:\n"
			   "  \"Condition\": {\"StringEquals\": {\"sts:ExternalId\": \"%s\"}}\n", aws->external_id);
	if (wish->n_volumes == 0)
		fputs("Any volume whose key was wrapped by this key may be opened; --volume UUID limits it.\n", f);
}

int cmek_aws_policy(void *state, const struct cmek_kms_policy_wish *wish, struct cmek_kms_policy *ret_policy,
		    struct cmek_error *err)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:/+=,.@_-";
	struct cmek_aws *aws = state;
	const char *const words[] = { wish->member, aws->role, aws->external_id };
	struct cmek_aws_key key = aws->key;
	char resource[CMEK_AWS_ARN_MAX];
	size_t len = 0;
	FILE *f;

	/* It goes into commands that people paste into a shell. */
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (words[i] && words[i][strspn(words[i], plain)] != '\0')
			return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "'%.200s' is not the ARN of a user or role, or an external id",
					      words[i]);
	}
	/* A policy names keys by their ARN. */
	if (!key.region[0])
		snprintf(key.region, sizeof(key.region), "%s", aws->client.region[0] ? aws->client.region : "*");
	if (!key.partition[0])
		snprintf(key.partition, sizeof(key.partition), "%s", cmek_aws_partition_of(key.region));
	if (!key.account[0])
		snprintf(key.account, sizeof(key.account), "*");
	if (cmek_aws_key_is_multi_region(&key)) /* its replicas, too */
		snprintf(key.region, sizeof(key.region), "*");
	if (cmek_aws_key_is_alias(&key))
		snprintf(key.resource, sizeof(key.resource), "key/*");
	cmek_aws_key_id(&key, resource);
	ret_policy->document = build_document(aws, wish, resource);
	f = open_memstream(&ret_policy->guide, &len);
	if (f) {
		add_lines(f, aws, wish);
		if (fclose(f) != 0)
			f = NULL;
	}
	return ret_policy->document && f ? 0 : cmek_error_sys(err, ENOMEM, "making a policy");
}
