/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The order in which credentials are looked for (that of botocore), and the cache of those that are temporary. It must not
 * know what is done with them.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "kms/aws_creds.h"
#include "kms/cred_file.h"
#include "kms/cred_process.h"

#define CHAIN_MAX 5 /* source_profile that names another, and so on */
#define PROCESS_TIMEOUT_MS 20000
#define WEB_TOKEN_MAX 20000
#define NAME_MAX_BYTES 2048

static const char *env_text(const char *name)
{
	const char *text = getenv(name);

	return text && *text ? text : NULL;
}

/* ---- the cache: credentials as one text ---- */

/* "ACCESS KEY\nSECRET\nTOKEN\nSOURCE"; none of them holds a newline. */
static int pack(const struct cmek_aws_creds *c, struct cmek_secret **ret_text, struct cmek_error *err)
{
	const char *secret = (const char *)cmek_secret_bytes(c->secret_key, CMEK_KEY_TEXT);
	const char *token = c->token ? (const char *)cmek_secret_bytes(c->token, CMEK_KEY_TEXT) : "";
	size_t len = strlen(c->access_key) + strlen(secret) + strlen(token) + strlen(c->source) + 3;
	int rc = cmek_secret_new(CMEK_KEY_TEXT, len + 1, ret_text, err);

	if (rc == 0)
		snprintf((char *)cmek_secret_fill(*ret_text, CMEK_KEY_TEXT), len + 1, "%s\n%s\n%s\n%s", c->access_key, secret,
			 token, c->source);
	return rc;
}

static int unpack(const struct cmek_secret *packed, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	const char *access_key = (const char *)cmek_secret_bytes(packed, CMEK_KEY_TEXT);
	const char *secret = strchr(access_key, '\n') + 1, *token = strchr(secret, '\n') + 1;
	const char *source = strchr(token, '\n') + 1;
	size_t token_len = (size_t)(source - token) - 1;
	int rc = cmek_aws_creds_set(ret_creds, access_key, (size_t)(secret - access_key) - 1, secret,
				    (size_t)(token - secret) - 1, token_len ? token : NULL, token_len, err);

	if (rc == 0)
		snprintf(ret_creds->source, sizeof(ret_creds->source), "%s", source);
	return rc;
}

/* Something that gives temporary credentials, behind the cache. */
struct fetching {
	struct cmek_aws_client *client;
	const char *region;
	int (*get)(const struct fetching *f, struct cmek_aws_creds *ret_creds, struct cmek_error *err);
	/* What `get` needs of these: */
	const struct cmek_aws_role *role;
	const struct cmek_aws_creds *base;
	char *const *argv;
};

static int fetch(void *arg, struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err)
{
	const struct fetching *f = arg;
	struct cmek_aws_creds creds = { .access_key = "" };
	int rc = f->get(f, &creds, err);

	if (rc == 0) {
		rc = pack(&creds, ret_token, err);
		*ret_expires = creds.expires;
	}
	cmek_aws_creds_done(&creds);
	return rc;
}

/* name tells everything that makes the credentials other ones. */
static int cached(struct fetching *f, const char *name, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	const struct cmek_token_source source = { .fetch = fetch, .arg = f };
	struct cmek_secret *packed = NULL;
	int rc = cmek_token_get(cmek_kms_session_tokens(f->client->session), name,
				cmek_http_time(f->client->http) + f->client->skew, &source, &packed, err);

	if (rc == 0)
		rc = unpack(packed, ret_creds, err);
	cmek_secret_free(packed);
	return rc;
}

/* ---- single sources ---- */

/* 1: there are none, and the next source is asked; else 0 or -errno. */
#define NONE 1

static int from_environment(struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	const char *access_key = env_text("AWS_ACCESS_KEY_ID"), *secret = env_text("AWS_SECRET_ACCESS_KEY");
	const char *token = env_text("AWS_SESSION_TOKEN");
	int rc;

	if (!token)
		token = env_text("AWS_SECURITY_TOKEN");
	if (!access_key && !secret)
		return NONE;
	if (!access_key || !secret)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s is set without %s",
				      access_key ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
				      access_key ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
	rc = cmek_aws_creds_set(ret_creds, access_key, strlen(access_key), secret, strlen(secret), token,
				token ? strlen(token) : 0, err);
	if (rc < 0)
		cmek_error_prefix(err, "AWS credentials in the environment");
	else
		snprintf(ret_creds->source, sizeof(ret_creds->source), "the environment");
	return rc;
}

typedef struct cmek_aws_value (*value_reader)(const struct cmek_aws_profiles *files, const char *profile,
					      const char *key);

/* Keys that stand in a file. */
static int from_file(const struct cmek_aws_client *client, const char *profile, value_reader value, const char *file,
		     struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	struct cmek_aws_value access_key = value(&client->files, profile, "aws_access_key_id");
	struct cmek_aws_value secret = value(&client->files, profile, "aws_secret_access_key");
	struct cmek_aws_value token = value(&client->files, profile, "aws_session_token");
	int rc;

	if (!access_key.text)
		return NONE;
	if (!secret.text)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "profile '%s' of AWS's %s file has no aws_secret_access_key",
				      profile, file);
	rc = cmek_aws_creds_set(ret_creds, access_key.text, access_key.len, secret.text, secret.len, token.text, token.len,
				err);
	if (rc < 0)
		cmek_error_prefix(err, "profile '%s' of AWS's %s file", profile, file);
	else
		snprintf(ret_creds->source, sizeof(ret_creds->source), "profile '%s' of the %s file", profile, file);
	return rc;
}

static int run_process(const struct fetching *f, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	static const char what[] = "what credential_process prints";
	struct cmek_secret *output = NULL;
	json_t *json = NULL;
	int rc = cmek_cred_run(f->argv, PROCESS_TIMEOUT_MS, &output, err);

	if (rc == 0)
		rc = cmek_json_parse(cmek_secret_bytes(output, CMEK_KEY_TEXT), cmek_secret_len(output), what, &json, err);
	if (rc == 0 && json_integer_value(json_object_get(json, "Version")) != 1)
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s: Version is not 1", what);
	json_decref(json);
	if (rc == 0)
		rc = cmek_aws_creds_from_json(cmek_secret_bytes(output, CMEK_KEY_TEXT), cmek_secret_len(output), what,
					      ret_creds, err);
	if (rc == 0)
		snprintf(ret_creds->source, sizeof(ret_creds->source), "credential_process %.200s", f->argv[0]);
	cmek_secret_free(output);
	return rc;
}

static int from_process(struct cmek_aws_client *client, const char *profile, struct cmek_aws_creds *ret_creds,
			struct cmek_error *err)
{
	struct cmek_aws_value command = cmek_aws_profile_value(&client->files, profile, "credential_process");
	struct fetching f = { .client = client, .get = run_process };
	char name[NAME_MAX_BYTES];
	char **argv = NULL;
	int rc;

	if (!command.text)
		return NONE;
	rc = cmek_cred_split(command.text, command.len, &argv, err);
	if (rc < 0) {
		cmek_error_prefix(err, "credential_process of the AWS profile '%s'", profile);
		return rc;
	}
	f.argv = argv;
	snprintf(name, sizeof(name), "aws process %.*s", (int)(command.len < 1500 ? command.len : 1500), command.text);
	rc = cached(&f, name, ret_creds, err);
	cmek_cred_split_free(argv);
	return rc;
}

static int get_role(const struct fetching *f, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	return cmek_aws_assume(f->client, f->role, f->region, f->base, ret_creds, err);
}

/* A role behind the cache; base NULL: by the web identity of the role. */
static int assume(struct cmek_aws_client *client, const char *region, const struct cmek_aws_role *role,
		  const struct cmek_aws_creds *base, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	struct fetching f = { .client = client, .region = region, .get = get_role, .role = role, .base = base };
	char name[NAME_MAX_BYTES];

	/* The base's own key may change while it stays the same source. */
	snprintf(name, sizeof(name), "aws role %.300s %.300s %.100s %s", role->arn, role->external_id ? role->external_id : "",
		 role->session_name ? role->session_name : "", base ? base->source : "web identity");
	return cached(&f, name, ret_creds, err);
}

/* The token's file is read each time that one is needed: whoever writes it renews it. */
static int from_web_identity(struct cmek_aws_client *client, const char *region, const char *path, const char *role_arn,
			     const char *session_name, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	struct cmek_aws_role role = { .arn = role_arn, .session_name = session_name };
	struct cmek_secret *file = NULL, *token = NULL;
	const char *text;
	int rc = cmek_cred_file_read(path, WEB_TOKEN_MAX, &file, err);

	if (rc == 0) {
		text = (const char *)cmek_secret_bytes(file, CMEK_KEY_TEXT);
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, text, strcspn(text, " \r\n"), &token, err);
	}
	role.web_identity = token;
	if (rc == 0)
		rc = assume(client, region, &role, NULL, ret_creds, err);
	cmek_secret_free(token);
	cmek_secret_free(file);
	return rc;
}

static int get_container(const struct fetching *f, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	return cmek_aws_creds_container(f->client, ret_creds, err);
}

static int get_instance(const struct fetching *f, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	return cmek_aws_creds_instance(f->client, ret_creds, err);
}

static int from_container(struct cmek_aws_client *client, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	struct fetching f = { .client = client, .get = get_container };

	if (!env_text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") && !env_text("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
		return NONE;
	return cached(&f, "aws container", ret_creds, err);
}

static int from_instance(struct cmek_aws_client *client, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	const char *disabled = env_text("AWS_EC2_METADATA_DISABLED");
	struct fetching f = { .client = client, .get = get_instance };

	if (disabled && strcasecmp(disabled, "true") == 0)
		return NONE;
	return cached(&f, "aws instance", ret_creds, err);
}

/* ---- profiles ---- */

static int from_profile(struct cmek_aws_client *client, const char *region, const char *profile, unsigned depth,
			struct cmek_aws_creds *ret_creds, struct cmek_error *err);

static bool profile_text(const struct cmek_aws_client *client, const char *profile, const char *key, char *out, size_t max)
{
	return cmek_aws_value_copy(cmek_aws_profile_value(&client->files, profile, key), out, max);
}

/* Keys, or a program that prints them. */
static int from_profile_keys(struct cmek_aws_client *client, const char *profile, struct cmek_aws_creds *ret_creds,
			     struct cmek_error *err)
{
	int rc = from_file(client, profile, cmek_aws_credentials_value, "credentials", ret_creds, err);

	if (rc == NONE)
		rc = from_process(client, profile, ret_creds, err);
	if (rc == NONE)
		rc = from_file(client, profile, cmek_aws_config_value, "config", ret_creds, err);
	return rc;
}

static int from_credential_source(struct cmek_aws_client *client, const char *profile, const char *source,
				  struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	int rc;

	if (strcmp(source, "Environment") == 0)
		rc = from_environment(ret_creds, err);
	else if (strcmp(source, "EcsContainer") == 0)
		rc = from_container(client, ret_creds, err);
	else if (strcmp(source, "Ec2InstanceMetadata") == 0)
		rc = from_instance(client, ret_creds, err);
	else
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "the AWS profile '%s' has credential_source = %.100s, which is none of Environment, "
				      "EcsContainer, Ec2InstanceMetadata",
				      profile, source);
	if (rc == NONE)
		rc = cmek_error_set(err, CMEK_E_EXPIRED, ENOKEY, "the AWS profile '%s' has credential_source = %s, where there are none",
				    profile, source);
	return rc;
}

/* What a profile with a role assumes it with. */
static int base_of_role(struct cmek_aws_client *client, const char *region, const char *profile, unsigned depth,
			struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	char text[256];
	int rc;

	if (profile_text(client, profile, "credential_source", text, sizeof(text)))
		return from_credential_source(client, profile, text, ret_creds, err);
	if (!profile_text(client, profile, "source_profile", text, sizeof(text)))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "the AWS profile '%s' has a role_arn and neither source_profile, credential_source nor "
				      "web_identity_token_file",
				      profile);
	if (!cmek_aws_profile_exists(&client->files, text))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "the AWS profile '%s' has source_profile = %s, which does not exist", profile, text);
	/* A profile may be its own source: then its keys are meant. */
	rc = strcmp(text, profile) == 0 ? from_profile_keys(client, profile, ret_creds, err) :
					  from_profile(client, region, text, depth + 1, ret_creds, err);
	if (rc == NONE)
		rc = cmek_error_set(err, CMEK_E_EXPIRED, ENOKEY, "the AWS profile '%s', source of '%s', has no credentials", text,
				    profile);
	return rc;
}

static int from_profile_role(struct cmek_aws_client *client, const char *region, const char *profile, const char *arn,
			     unsigned depth, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	struct cmek_aws_creds base = { .access_key = "" };
	char external_id[1280], session[80], duration[16], path[1024];
	struct cmek_aws_role role = { .arn = arn };
	uint64_t seconds = 0;
	int rc;

	if (profile_text(client, profile, "mfa_serial", path, sizeof(path)))
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, EOPNOTSUPP,
				      "the AWS profile '%s' asks for a code of an MFA device, which nobody can give a mount: use "
				      "another profile, or credential_process",
				      profile);
	if (profile_text(client, profile, "role_session_name", session, sizeof(session)))
		role.session_name = session;
	if (profile_text(client, profile, "web_identity_token_file", path, sizeof(path)))
		return from_web_identity(client, region, path, arn, role.session_name, ret_creds, err);
	if (profile_text(client, profile, "external_id", external_id, sizeof(external_id)))
		role.external_id = external_id;
	if (profile_text(client, profile, "duration_seconds", duration, sizeof(duration)) &&
	    cmek_parse_u64(duration, 43200, &seconds) == 0)
		role.duration_s = (unsigned)seconds;
	rc = base_of_role(client, region, profile, depth, &base, err);
	if (rc == 0)
		rc = assume(client, region, &role, &base, ret_creds, err);
	cmek_aws_creds_done(&base);
	return rc;
}

static int from_profile(struct cmek_aws_client *client, const char *region, const char *profile, unsigned depth,
			struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	char arn[512];
	int rc;

	if (depth == CHAIN_MAX)
		return cmek_error_set(err, CMEK_E_USAGE, ELOOP, "AWS profiles that are each other's source_profile, or too many: "
								"'%s'", profile);
	if (profile_text(client, profile, "role_arn", arn, sizeof(arn)))
		return from_profile_role(client, region, profile, arn, depth, ret_creds, err);
	rc = from_profile_keys(client, profile, ret_creds, err);
	if (rc == NONE && (cmek_aws_profile_value(&client->files, profile, "sso_session").text ||
			   cmek_aws_profile_value(&client->files, profile, "sso_start_url").text))
		rc = cmek_error_set(err, CMEK_E_UNSUPPORTED, EOPNOTSUPP,
				    "the AWS profile '%s' is one of IAM Identity Center (sso): give it a line credential_process = "
				    "aws configure export-credentials --profile %s", profile, profile);
	return rc;
}

/* ---- the chain ---- */

static int nobody_has_any(const struct cmek_aws_client *client, const struct cmek_error *instance, struct cmek_error *err)
{
	return cmek_error_set(err, CMEK_E_EXPIRED, ENOKEY,
			      "no AWS credentials: none in the environment, in the profile '%s' of ~/.aws, of a web identity or "
			      "of a container, and %s",
			      client->profile, cmek_error_is_set(instance) ? instance->text : "the metadata service is not asked");
}

static int find_base(struct cmek_aws_client *client, const char *region, struct cmek_aws_creds *ret_creds,
		     struct cmek_error *err)
{
	const char *token_file = env_text("AWS_WEB_IDENTITY_TOKEN_FILE"), *role = env_text("AWS_ROLE_ARN");
	struct cmek_error failure = CMEK_ERROR_INIT;
	int rc = NONE;

	if (!client->environment_last)
		rc = from_environment(ret_creds, err);
	if (rc == NONE && client->profile_given && !cmek_aws_profile_exists(&client->files, client->profile))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "no AWS profile '%s' in the config or credentials file",
				      client->profile);
	/* Of a profile that nobody named, only what it is itself counts for more than what the machine was given. */
	if (rc == NONE && (client->profile_given || cmek_aws_profile_value(&client->files, client->profile, "role_arn").text))
		rc = from_profile(client, region, client->profile, 0, ret_creds, err);
	if (rc == NONE && token_file && role)
		rc = from_web_identity(client, region, token_file, role, env_text("AWS_ROLE_SESSION_NAME"), ret_creds, err);
	if (rc == NONE)
		rc = from_profile(client, region, client->profile, 0, ret_creds, err);
	if (rc == NONE)
		rc = from_container(client, ret_creds, err);
	if (rc != NONE)
		return rc;
	rc = from_instance(client, ret_creds, &failure);
	return rc == 0 ? 0 : nobody_has_any(client, &failure, err);
}

int cmek_aws_creds_get(struct cmek_aws_client *client, const char *region, struct cmek_aws_creds *ret_creds,
		       struct cmek_error *err)
{
	const struct cmek_aws_role role = { .arn = client->role, .external_id = client->external_id };
	struct cmek_aws_creds base = { .access_key = "" };
	int rc = find_base(client, region, &base, err);

	if (rc == 0 && !client->role) {
		*ret_creds = base;
		return 0;
	}
	if (rc == 0)
		rc = assume(client, region, &role, &base, ret_creds, err);
	cmek_aws_creds_done(&base);
	return rc;
}

void cmek_aws_creds_forget(struct cmek_aws_client *client)
{
	cmek_token_forget_all(cmek_kms_session_tokens(client->session), "aws ");
}
