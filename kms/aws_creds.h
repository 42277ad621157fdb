/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_AWS_CREDS_H
#define CMEK_KMS_AWS_CREDS_H

#include "kms/aws_profile.h"
#include "kms/aws_wire.h"
#include "kms/session.h"

/*
 * Where an AWS client finds the key that it signs with, and requests that are signed with it. One thread at a time a
 * struct cmek_aws_client.
 */

/* Everything borrowed but what cmek_aws_client_init() makes. */
struct cmek_aws_client {
	struct cmek_kms_session *session;
	const char *conf_profile;            /* of our configuration, NULL = none */
	const char *role, *external_id;      /* to be assumed with what the chain finds; NULL = none */
	struct cmek_http *http;              /* the session's */
	struct cmek_http_settings settings;  /* with AWS_CA_BUNDLE */
	struct cmek_aws_profiles files;
	char profile[128];                   /* of AWS's files */
	bool profile_given;                  /* by somebody, not just "default" */
	bool environment_last;               /* our configuration names a profile: it comes before the environment */
	char region[32];                     /* "" = not known */
	int64_t skew;                        /* seconds that AWS's clock is ahead of ours, once that was learned */
};

/* Loads AWS's files and finds the Region: as configured, AWS_REGION, AWS_DEFAULT_REGION, or the profile's. */
int cmek_aws_client_init(struct cmek_aws_client *client, struct cmek_kms_session *session, const char *conf_profile,
			 struct cmek_error *err);
void cmek_aws_client_done(struct cmek_aws_client *client);

/*
 * The endpoint of "kms" or "sts" in a Region, with a path: as configured (endpoint, sts_endpoint), AWS_ENDPOINT_URL_KMS or
 * _STS, AWS_ENDPOINT_URL, as the profile says, else AWS's own. Kind usage.
 */
int cmek_aws_client_endpoint(const struct cmek_aws_client *client, const char *service, const char *region, char *out,
			     size_t max, struct cmek_error *err);

/*
 * The key to sign with, for requests in this Region: the chain of doc/kms/aws.md, then client->role. Temporary ones are cached
 * in the session. Kinds: expired (-ENOKEY: nobody has any), denied, unreachable, throttled, usage,
 * unsupported, bad-format.
 */
int cmek_aws_creds_get(struct cmek_aws_client *client, const char *region, struct cmek_aws_creds *ret_creds,
		       struct cmek_error *err);
/* Those that were fetched are fetched anew next time. */
void cmek_aws_creds_forget(struct cmek_aws_client *client);

/* A request to be signed. */
struct cmek_aws_call {
	const char *service, *region;
	const char *what;   /* for errors */
	const char *target; /* X-Amz-Target, NULL = none */
	const char *content_type;
	const void *body;
	size_t body_len;
	const struct cmek_aws_creds *creds; /* NULL = not signed */
};
/* One cmek_http_call(), whose contract holds; a clock that is wrong is noticed, and the request then tried once more. */
int cmek_aws_send(struct cmek_aws_client *client, const struct cmek_aws_call *call, struct cmek_http_response *ret_resp,
		  struct cmek_error *err);

/* Credentials of a role (STS): with base, or with a token of another identity provider if base is NULL. */
struct cmek_aws_role {
	const char *arn, *session_name; /* NULL = "cmekfs" */
	const char *external_id;        /* NULL = none */
	unsigned duration_s;            /* 0 = 3,600 */
	const struct cmek_secret *web_identity;
};
int cmek_aws_assume(struct cmek_aws_client *client, const struct cmek_aws_role *role, const char *region,
		    const struct cmek_aws_creds *base, struct cmek_aws_creds *ret_creds, struct cmek_error *err);
/* GetCallerIdentity: the ARN of who signs, malloced. */
int cmek_aws_identity(struct cmek_aws_client *client, const char *region, char **ret_arn, struct cmek_error *err);

/* The metadata services of containers and instances. -ENOENT without an error set: there is none. */
int cmek_aws_creds_container(struct cmek_aws_client *client, struct cmek_aws_creds *ret_creds, struct cmek_error *err);
int cmek_aws_creds_instance(struct cmek_aws_client *client, struct cmek_aws_creds *ret_creds, struct cmek_error *err);

#endif
