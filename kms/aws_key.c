/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Takes names of AWS keys apart and makes endpoints of Regions. No I/O; it does not know whether a key exists.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kms/aws_key.h"

#define SCHEME "aws-kms://"

/* By prefix of the Region; the last one is everything else. */
static const struct {
	const char *region_prefix, *partition, *suffix, *dual_suffix;
} partitions[] = {
	{ "cn-", "aws-cn", "amazonaws.com.cn", "api.amazonwebservices.com.cn" },
	{ "us-gov-", "aws-us-gov", "amazonaws.com", "api.aws" },
	{ "eusc-", "aws-eusc", "amazonaws.eu", "api.amazonwebservices.eu" },
	{ "us-iso-", "aws-iso", "c2s.ic.gov", "api.aws.ic.gov" },
	{ "us-isob-", "aws-iso-b", "sc2s.sgov.gov", "api.aws.scloud" },
	{ "eu-isoe-", "aws-iso-e", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk" },
	{ "us-isof-", "aws-iso-f", "csp.hci.ic.gov", "api.aws.hci.ic.gov" },
	{ "", "aws", "amazonaws.com", "api.aws" },
};

static size_t partition_index(const char *region)
{
	size_t i = 0;

	while (strncmp(region, partitions[i].region_prefix, strlen(partitions[i].region_prefix)) != 0)
		i++;
	return i;
}

const char *cmek_aws_partition_of(const char *region)
{
	return partitions[partition_index(region)].partition;
}

/* Part of a host name: nothing that could lead elsewhere. */
bool cmek_aws_region_ok(const char *region)
{
	size_t n = strlen(region);

	return n >= 1 && n < sizeof(((struct cmek_aws_key *)NULL)->region) &&
	       strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

int cmek_aws_endpoint(const char *service, const char *region, bool fips, bool dual_stack, char *out, size_t max)
{
	size_t i = partition_index(region);
	int n = snprintf(out, max, "https://%s%s.%s.%s/", service, fips ? "-fips" : "", region,
			 dual_stack ? partitions[i].dual_suffix : partitions[i].suffix);

	return n > 0 && (size_t)n < max ? 0 : -ENOSPC;
}

static int refuse(const char *uri, const char *why, struct cmek_error *err)
{
	return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
			      "'%.200s' is not a key of AWS KMS: %s (aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID)", uri, why);
}

/* The next field of an ARN into out; *p moves behind its colon. False: it is missing, or too long. */
static bool field(const char **p, char *out, size_t max)
{
	const char *end = strchr(*p, ':');
	size_t n = end ? (size_t)(end - *p) : 0;

	if (!end || n + 1 > max)
		return false;
	memcpy(out, *p, n);
	out[n] = '\0';
	*p = end + 1;
	return true;
}

static bool resource_ok(const char *resource)
{
	static const char id[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-";
	const char *name;
	size_t n;

	if (strncmp(resource, "key/", 4) == 0) {
		name = resource + 4;
		n = strspn(name, id);
	} else if (strncmp(resource, "alias/", 6) == 0) {
		name = resource + 6;
		n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:/_-");
	} else {
		return false;
	}
	return n >= 1 && name[n] == '\0';
}

static int parse_arn(const char *uri, const char *arn, struct cmek_aws_key *key, struct cmek_error *err)
{
	char word[8];
	const char *p = arn;

	if (!field(&p, word, sizeof(word)) || !field(&p, key->partition, sizeof(key->partition)) ||
	    !field(&p, word, sizeof(word)) || strcmp(word, "kms") != 0)
		return refuse(uri, "its ARN is not one of kms", err);
	if (!field(&p, key->region, sizeof(key->region)) || !cmek_aws_region_ok(key->region))
		return refuse(uri, "its ARN has no Region", err);
	if (!field(&p, key->account, sizeof(key->account)) || strlen(key->account) != 12 ||
	    strspn(key->account, "0123456789") != 12)
		return refuse(uri, "its ARN has no account of 12 digits", err);
	if (strlen(p) >= sizeof(key->resource) || !resource_ok(p))
		return refuse(uri, "its ARN ends neither with key/ID nor with alias/NAME", err);
	memcpy(key->resource, p, strlen(p) + 1);
	return 0;
}

int cmek_aws_key_parse(const char *uri, struct cmek_aws_key *ret_key, struct cmek_error *err)
{
	struct cmek_aws_key key = { .partition = "" };
	const char *p = uri;
	int rc = 0, n;

	if (strncmp(p, SCHEME, strlen(SCHEME)) == 0)
		p += strlen(SCHEME);
	if (strncmp(p, "/arn:", 5) == 0)
		p++;
	if (strncmp(p, "arn:", 4) == 0) {
		rc = parse_arn(uri, p, &key, err);
	} else {
		n = snprintf(key.resource, sizeof(key.resource), "%s%s", strncmp(p, "alias/", 6) == 0 ? "" : "key/", p);
		if ((size_t)n >= sizeof(key.resource) || !resource_ok(key.resource))
			rc = refuse(uri, "it is neither an ARN, nor alias/NAME, nor an id", err);
	}
	if (rc == 0)
		*ret_key = key;
	return rc;
}

bool cmek_aws_key_is_alias(const struct cmek_aws_key *key)
{
	return strncmp(key->resource, "alias/", 6) == 0;
}

bool cmek_aws_key_is_multi_region(const struct cmek_aws_key *key)
{
	return strncmp(key->resource, "key/mrk-", 8) == 0;
}

void cmek_aws_key_id(const struct cmek_aws_key *key, char out[CMEK_AWS_ARN_MAX])
{
	if (key->partition[0])
		snprintf(out, CMEK_AWS_ARN_MAX, "arn:%s:kms:%s:%s:%s", key->partition, key->region, key->account,
			 key->resource);
	else
		snprintf(out, CMEK_AWS_ARN_MAX, "%s", key->resource + (cmek_aws_key_is_alias(key) ? 0 : 4));
}
