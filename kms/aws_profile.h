/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_AWS_PROFILE_H
#define CMEK_KMS_AWS_PROFILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/secret.h"

/*
 * The files that AWS's own tools share: ~/.aws/config and ~/.aws/credentials. (inih can't read them: its lines have 200
 * bytes, session tokens have more.) Read-only after loading: thread-safe.
 */
struct cmek_aws_profiles {
	struct cmek_secret *config;      /* NULL = there is no such file */
	struct cmek_secret *credentials;
};

/*
 * Paths: as given, else AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE, else what systemd handed over (aws-config,
 * aws-credentials), else in ~/.aws. Files that do not exist are empty, unless they were given. Kinds of
 * cmek_cred_file_read().
 */
int cmek_aws_profiles_load(const char *config_path, const char *credentials_path, struct cmek_aws_profiles *ret_files,
			   struct cmek_error *err);
void cmek_aws_profiles_done(struct cmek_aws_profiles *files);

/* A value, borrowed from the file; not NUL-terminated. */
struct cmek_aws_value {
	const char *text; /* NULL = not set */
	size_t len;
};
struct cmek_aws_value cmek_aws_config_value(const struct cmek_aws_profiles *files, const char *profile, const char *key);
struct cmek_aws_value cmek_aws_credentials_value(const struct cmek_aws_profiles *files, const char *profile,
						 const char *key);
/* In the credentials file, else in the configuration. */
struct cmek_aws_value cmek_aws_profile_value(const struct cmek_aws_profiles *files, const char *profile,
					     const char *key);
/* endpoint_url of a service ("kms", "sts") in [services NAME] of the profile, else the profile's own. */
struct cmek_aws_value cmek_aws_profile_endpoint(const struct cmek_aws_profiles *files, const char *profile,
						const char *service);
bool cmek_aws_profile_exists(const struct cmek_aws_profiles *files, const char *profile);
/* Copies it to out of max bytes, with a NUL. False: not set, or it does not fit. */
bool cmek_aws_value_copy(struct cmek_aws_value value, char *out, size_t max);

/* Exposed for tests: the value of key (below `parent` if that is not NULL) in the section of this exact name. */
struct cmek_aws_value cmek_aws_ini_find(const char *text, const char *section, const char *parent, const char *key);

#endif
