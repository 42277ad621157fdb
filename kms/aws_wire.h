/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_AWS_WIRE_H
#define CMEK_KMS_AWS_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "kms/http.h"
#include "kms/json.h"
#include "kms/kms.h"

/* What AWS answers, as values: KMS, STS, and the places that hand out credentials. Pure; thread-safe. Kind bad-format. */

/* For struct cmek_http_request: JSON of KMS and of containers, XML of STS. */
void cmek_aws_read_problem(const struct cmek_http_response *resp, struct cmek_problem *ret_problem);

/* A key to sign with. */
struct cmek_aws_creds {
	char access_key[144];
	struct cmek_secret *secret_key; /* CMEK_KEY_TEXT */
	struct cmek_secret *token;      /* the same, NULL = not temporary */
	int64_t expires;                /* Unix seconds, INT64_MAX = never */
	char source[256];               /* where they come from, for people */
};
void cmek_aws_creds_done(struct cmek_aws_creds *creds);
/* Takes texts of the environment or a file; kind usage when they can't be what they should. token may be NULL. */
int cmek_aws_creds_set(struct cmek_aws_creds *creds, const char *access_key, size_t access_len, const char *secret,
		       size_t secret_len, const char *token, size_t token_len, struct cmek_error *err);

/* The JSON of credential_process, containers and instances. what: names the text in errors. source is left empty. */
int cmek_aws_creds_from_json(const void *text, size_t len, const char *what, struct cmek_aws_creds *ret_creds,
			     struct cmek_error *err);
/* The XML of AssumeRole and AssumeRoleWithWebIdentity. */
int cmek_aws_creds_from_xml(const char *text, size_t len, const char *what, struct cmek_aws_creds *ret_creds,
			    struct cmek_error *err);
/* The text of the first element <name> in XML into out: -ENOENT if there is none, or it has markup, or does not fit. */
int cmek_aws_xml_text(const char *text, size_t len, const char *name, char *out, size_t max);

/* KeyMetadata of DescribeKey. Versions are filled with the current one only. */
struct cmek_aws_metadata {
	struct cmek_kms_info info;
	char key_state[32]; /* as AWS names it */
	bool multi_region;
};
void cmek_aws_metadata_done(struct cmek_aws_metadata *meta);
int cmek_aws_metadata_from_json(const json_t *reply, struct cmek_aws_metadata *ret_meta, struct cmek_error *err);
/* Rotations of ListKeyRotations, added to info's versions; *ret_marker (malloced): where to go on, NULL = the end. */
int cmek_aws_rotations_from_json(const json_t *reply, struct cmek_kms_info *info, char **ret_marker,
				 struct cmek_error *err);

/* A time of KMS, a number: seconds, 0 if it is missing. */
int64_t cmek_aws_time(const json_t *object, const char *name);
/* "2030-01-01T00:00:00Z", with a fraction or +00:00: 0 or -EINVAL. */
int cmek_aws_iso_time(const char *text, int64_t *ret_unix_seconds);

#endif
