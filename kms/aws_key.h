/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_AWS_KEY_H
#define CMEK_KMS_AWS_KEY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Names of keys in AWS KMS, and the addresses of its endpoints. Pure; thread-safe. */

#define CMEK_AWS_ARN_MAX 512

/* Parts that a name does not tell are empty. */
struct cmek_aws_key {
	char partition[24]; /* "aws", "aws-cn", ... */
	char region[32];
	char account[16];
	char resource[288]; /* "key/ID", "alias/NAME" */
};

/*
 * aws-kms://ARN, aws-kms:///ARN or a bare ARN of a key or an alias; aws-kms://alias/NAME, aws-kms://KEY-ID (in the
 * configured Region and the caller's account). Kind usage: what is wrong with it.
 */
int cmek_aws_key_parse(const char *uri, struct cmek_aws_key *ret_key, struct cmek_error *err);
bool cmek_aws_key_is_alias(const struct cmek_aws_key *key);
/* One of the keys that exist in several Regions under one id. */
bool cmek_aws_key_is_multi_region(const struct cmek_aws_key *key);
/* What KeyId takes: the ARN if the name was one, else the id or alias. */
void cmek_aws_key_id(const struct cmek_aws_key *key, char out[CMEK_AWS_ARN_MAX]);
bool cmek_aws_region_ok(const char *region);

/* "https://kms.eu-central-1.amazonaws.com/" for "kms" or "sts". -ENOSPC never with regions that are ok. */
int cmek_aws_endpoint(const char *service, const char *region, bool fips, bool dual_stack, char *out, size_t max);
/* The partition a Region belongs to. */
const char *cmek_aws_partition_of(const char *region);

#endif
