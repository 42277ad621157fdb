/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_IBM_IAM_H
#define CMEK_KMS_IBM_IAM_H

#include "base/err.h"
#include "base/secret.h"
#include "kms/cloud.h"

/*
 * Access tokens of IBM Cloud IAM. An API key is looked for first: api_key_file of the configuration, $IBMCLOUD_API_KEY,
 * $CREDENTIALS_DIRECTORY/ibm-api-key. Without one the machine's own identity gets the token, for a trusted profile: by the
 * compute resource token that Kubernetes or Code Engine puts into a file, or on a virtual server by its metadata service.
 * With a key and a profile, the key's owner assumes the profile. One thread at a time a handle.
 */
struct cmek_ibm_iam;

/*
 * cloud is borrowed, and begun before a token is asked for. profile: id of a trusted profile ("Profile-..."), NULL = that of
 * the configuration where there is no API key. Reads no file, asks nobody.
 */
int cmek_ibm_iam_new(struct cmek_cloud *cloud, const char *profile, struct cmek_ibm_iam **ret_iam,
		     struct cmek_error *err);
void cmek_ibm_iam_free(struct cmek_ibm_iam *iam);

/* An access token, from the session's cache or fetched. Kinds as cmek_gcp_token_get(). */
int cmek_ibm_iam_get(struct cmek_ibm_iam *iam, struct cmek_secret **ret_token, struct cmek_error *err);
/* Whose tokens these are and where they come from, for people; malloced. A token is fetched for it if need be. */
int cmek_ibm_iam_identity(struct cmek_ibm_iam *iam, char **ret_text, struct cmek_error *err);
/* The service refused the token. */
void cmek_ibm_iam_forget(struct cmek_ibm_iam *iam);

#endif
