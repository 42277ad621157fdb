/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_URI_H
#define CMEK_KMS_URI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Pure functions over key URIs. Thread-safe. */

enum cmek_kms_service { CMEK_KMS_SERVICE_NONE, CMEK_KMS_SERVICE_LOCAL, CMEK_KMS_SERVICE_AWS, CMEK_KMS_SERVICE_GCP,
			CMEK_KMS_SERVICE_IBM, CMEK_KMS_SERVICE_RECOVERY };

/*
 * Which service a URI means, by its form alone: local:NAME; aws-kms://..., a bare arn:PARTITION:kms:...;
 * gcp-kms://..., a bare projects/P/locations/L/keyRings/R/cryptoKeys/K; crn:VERSION:...:kms:...;
 * recovery:NAME:....
 */
enum cmek_kms_service cmek_kms_uri_service(const char *uri);
/* "AWS KMS", ...: for messages. */
const char *cmek_kms_service_title(enum cmek_kms_service service);

/* Names of local keys: 1..64 of A-Z a-z 0-9 . _ -, not beginning with '.' or '-'. */
#define CMEK_KMS_LOCAL_NAME_MAX 64
bool cmek_kms_local_name_ok(const char *name);
/* The name in "local:NAME" (a pointer into uri); "" for "local:", which means the whole store. Kind usage. */
int cmek_kms_uri_local(const char *uri, const char **ret_name, struct cmek_error *err);

/*
 * The resource name in "gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K" or in that without the scheme: a
 * pointer into uri, of characters that a URL's path takes as they are. Kind usage: anything else; a version of a key,
 * as one that is pinned would miss every rotation.
 */
int cmek_kms_uri_gcp(const char *uri, const char **ret_name, struct cmek_error *err);

/*
 * What crn:v1:bluemix:public:kms:REGION:a/ACCOUNT:INSTANCE:key:ID says; host name and path take it as it is. The CRN of an
 * instance ends in "::" and has no key: keys can be made in it.
 */
#define CMEK_KMS_CRN_REGION_MAX 31
struct cmek_kms_crn {
	char region[CMEK_KMS_CRN_REGION_MAX + 1];
	char instance[37]; /* UUIDs, lower case */
	char key[37]; /* "" for an instance */
};
/* Kind usage: it is not the full CRN of a key or an instance. */
int cmek_kms_uri_ibm(const char *uri, struct cmek_kms_crn *ret_crn, struct cmek_error *err);
/* A UUID alone, as IBM shows its keys: it names neither region nor instance, so no key can be found by it. */
bool cmek_kms_uri_is_bare_id(const char *uri);

#endif
