/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Tells by its form which service a key URI belongs to, and checks the parts that we read ourselves. No I/O; it does
 * not know whether this build has a provider for the service.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "kms/kms_uri.h"

#define LOCAL_PREFIX "local:"

static bool starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* The n-th (from 0) field of s, separated by `sep`, is exactly `want`. */
static bool field_is(const char *s, char sep, unsigned n, const char *want)
{
	size_t len = strlen(want);

	for (; n > 0; n--) {
		s = strchr(s, sep);
		if (!s)
			return false;
		s++;
	}
	return strncmp(s, want, len) == 0 && (s[len] == sep || s[len] == '\0');
}

enum cmek_kms_service cmek_kms_uri_service(const char *uri)
{
	if (starts(uri, LOCAL_PREFIX))
		return CMEK_KMS_SERVICE_LOCAL;
	/* arn:partition:service:..., where the partition is aws, aws-cn, aws-us-gov, ... */
	if (starts(uri, "aws-kms://") || (starts(uri, "arn:aws") && field_is(uri, ':', 2, "kms")))
		return CMEK_KMS_SERVICE_AWS;
	if (starts(uri, "gcp-kms://") || (starts(uri, "projects/") && field_is(uri, '/', 6, "cryptoKeys")))
		return CMEK_KMS_SERVICE_GCP;
	/* crn:version:cloud:type:service:... */
	if (starts(uri, "crn:") && field_is(uri, ':', 4, "kms"))
		return CMEK_KMS_SERVICE_IBM;
	return CMEK_KMS_SERVICE_NONE;
}

const char *cmek_kms_service_title(enum cmek_kms_service service)
{
	switch (service) {
	case CMEK_KMS_SERVICE_LOCAL:
		return "the local key store";
	case CMEK_KMS_SERVICE_AWS:
		return "AWS KMS";
	case CMEK_KMS_SERVICE_GCP:
		return "Google Cloud KMS";
	case CMEK_KMS_SERVICE_IBM:
		return "IBM Key Protect";
	case CMEK_KMS_SERVICE_NONE:
		break;
	}
	return "no known service";
}

bool cmek_kms_local_name_ok(const char *name)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t len = strlen(name);

	return len >= 1 && len <= CMEK_KMS_LOCAL_NAME_MAX && name[0] != '.' && name[0] != '-' &&
	       strspn(name, alphabet) == len;
}

int cmek_kms_uri_local(const char *uri, const char **ret_name, struct cmek_error *err)
{
	const char *name = uri + strlen(LOCAL_PREFIX);

	if (name[0] != '\0' && !cmek_kms_local_name_ok(name))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "'%.100s' is not a local key: a name is 1 to %d of A-Z a-z 0-9 . _ - and begins with "
				      "none of . and -",
				      uri, CMEK_KMS_LOCAL_NAME_MAX);
	*ret_name = name;
	return 0;
}
