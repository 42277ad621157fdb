/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Tells by its form which service a key URI belongs to, and checks the parts that we read ourselves. No I/O; it does
 * not know whether this build has a provider for the service.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "kms/kms_uri.h"

#define LOCAL_PREFIX "local:"
#define GCP_PREFIX "gcp-kms://"
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

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
	if (starts(uri, "recovery:"))
		return CMEK_KMS_SERVICE_RECOVERY;
	/* arn:partition:service:..., where the partition is aws, aws-cn, aws-us-gov, ... */
	if (starts(uri, "aws-kms://") || (starts(uri, "arn:aws") && field_is(uri, ':', 2, "kms")))
		return CMEK_KMS_SERVICE_AWS;
	if (starts(uri, GCP_PREFIX) || (starts(uri, "projects/") && field_is(uri, '/', 6, "cryptoKeys")))
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
	case CMEK_KMS_SERVICE_RECOVERY:
		return "a recovery code";
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

/*
 * Steps over one field of 1 to max characters of the alphabet and the text behind it ("" = it must be the end); NULL
 * when it is not that.
 */
static const char *take_field(const char *s, const char *alphabet, size_t max, const char *behind)
{
	size_t len = s ? strspn(s, alphabet) : 0;

	if (len < 1 || len > max || !starts(s + len, behind) || (behind[0] == '\0' && s[len] != '\0'))
		return NULL;
	return s + len + strlen(behind);
}

int cmek_kms_uri_gcp(const char *uri, const char **ret_name, struct cmek_error *err)
{
	const char *name = starts(uri, GCP_PREFIX) ? uri + strlen(GCP_PREFIX) : uri;
	const char *s = starts(name, "projects/") ? name + strlen("projects/") : NULL;

	/* A project may belong to a domain ("example.com:name"). */
	s = take_field(s, LOWER DIGITS "-.:", 128, "/locations/");
	s = take_field(s, LOWER DIGITS "-", 63, "/keyRings/");
	s = take_field(s, LOWER UPPER DIGITS "_-", 63, "/cryptoKeys/");
	if (s && take_field(s, LOWER UPPER DIGITS "_-", 63, "/cryptoKeyVersions/"))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "'%.300s' names one version of a key; name the key itself, as a volume follows its "
				      "key's rotation",
				      uri);
	if (!take_field(s, LOWER UPPER DIGITS "_-", 63, ""))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "'%.300s' is not a key of Google Cloud KMS: expected "
				      "gcp-kms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY",
				      uri);
	*ret_name = name;
	return 0;
}

/* Takes a UUID and the text behind it, as take_field(); out gets it in lower case. */
static const char *take_uuid(const char *s, const char *behind, char out[CMEK_UUID_TEXT])
{
	const char *end = take_field(s, LOWER UPPER DIGITS "-", CMEK_UUID_TEXT - 1, behind);
	uint8_t uuid[16];

	if (!end || (size_t)(end - s) != CMEK_UUID_TEXT - 1 + strlen(behind))
		return NULL;
	memcpy(out, s, CMEK_UUID_TEXT - 1);
	out[CMEK_UUID_TEXT - 1] = '\0';
	if (cmek_uuid_decode(out, uuid) < 0)
		return NULL;
	cmek_uuid_encode(uuid, out);
	return end;
}

int cmek_kms_uri_ibm(const char *uri, struct cmek_kms_crn *ret_crn, struct cmek_error *err)
{
	static const char prefix[] = "crn:v1:";
	struct cmek_kms_crn crn;
	const char *region, *s;

	memset(&crn, 0, sizeof(crn));
	s = starts(uri, prefix) ? uri + strlen(prefix) : NULL;
	s = take_field(s, LOWER DIGITS "-", 63, ":");    /* the cloud: bluemix */
	region = take_field(s, LOWER DIGITS "-", 63, ":kms:"); /* its type: public */
	s = take_field(region, LOWER DIGITS "-", CMEK_KMS_CRN_REGION_MAX, ":a/");
	if (s)
		memcpy(crn.region, region, (size_t)(s - region) - strlen(":a/"));
	s = take_field(s, LOWER UPPER DIGITS "-", 64, ":"); /* the account */
	if (s && take_uuid(s, "::", crn.instance)) {
		s += CMEK_UUID_TEXT - 1 + strlen("::");
		s = *s == '\0' ? s : NULL;
	} else {
		s = s ? take_uuid(s, ":key:", crn.instance) : NULL;
		s = s ? take_uuid(s, "", crn.key) : NULL;
	}
	if (!s)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "'%.300s' is not the full CRN of a key of IBM Key Protect: expected "
				      "crn:v1:bluemix:public:kms:REGION:a/ACCOUNT:INSTANCE:key:ID, as 'ibmcloud kp key show' "
				      "prints it",
				      uri);
	*ret_crn = crn;
	return 0;
}

bool cmek_kms_uri_is_bare_id(const char *uri)
{
	uint8_t uuid[16];

	return strlen(uri) == CMEK_UUID_TEXT - 1 && cmek_uuid_decode(uri, uuid) == 0;
}
