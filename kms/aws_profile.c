/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Finds values in the files that AWS's tools share, in place. It must not know what they mean.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kms/aws_profile.h"
#include "kms/cred_file.h"

#define FILE_MAX_BYTES (256u << 10)
#define SECTION_MAX 160

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static struct cmek_aws_value trim(const char *p, const char *end)
{
	while (p < end && is_blank(*p))
		p++;
	while (end > p && is_blank(end[-1]))
		end--;
	return (struct cmek_aws_value){ p, (size_t)(end - p) };
}

static bool is_word(struct cmek_aws_value v, const char *word)
{
	return v.len == strlen(word) && memcmp(v.text, word, v.len) == 0;
}

/* "[profile  name ]" is `section` "profile name": words are compared, not the blanks between them. */
static bool is_section(const char *p, const char *end, const char *section)
{
	const char *close = memchr(p, ']', (size_t)(end - p));
	struct cmek_aws_value v = trim(p + 1, close ? close : end);
	size_t i = 0;

	while (*section) {
		if (*section == ' ') {
			if (i == v.len || !is_blank(v.text[i]))
				return false;
			while (i < v.len && is_blank(v.text[i]))
				i++;
		} else if (i == v.len || v.text[i++] != *section) {
			return false;
		}
		section++;
	}
	return close && i == v.len;
}

/* Where a comment begins behind a value: # or ; after a blank. */
static const char *end_of_value(const char *p, const char *end)
{
	for (const char *c = p; c + 1 < end; c++) {
		if (is_blank(*c) && (c[1] == '#' || c[1] == ';'))
			return c;
	}
	return end;
}

struct cmek_aws_value cmek_aws_ini_find(const char *text, const char *section, const char *parent, const char *key)
{
	struct cmek_aws_value none = { NULL, 0 }, name, value;
	bool in_section = false, in_parent = false;
	const char *end, *eq, *p = text;

	for (; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, '\n');
		if (*p == '#' || *p == ';' || trim(p, end).len == 0)
			continue;
		if (*p == '[') {
			in_section = is_section(p, end, section);
			in_parent = false;
			continue;
		}
		eq = memchr(p, '=', (size_t)(end - p));
		if (!in_section || !eq)
			continue;
		name = trim(p, eq);
		value = trim(eq + 1, end_of_value(eq, end));
		/* Lines that are indented belong to the one above that is not. */
		if (!is_blank(*p)) {
			in_parent = parent && is_word(name, parent);
			if (!parent && is_word(name, key) && value.len > 0)
				return value;
		} else if (in_parent && is_word(name, key) && value.len > 0) {
			return value;
		}
	}
	return none;
}

/* The path of a shared file: malloced, NULL = there can be none. *ret_given: it must exist. */
static char *path_of(const char *given, const char *variable, const char *credential, const char *name, bool *ret_given)
{
	const char *env = getenv(variable), *home = getenv("HOME");
	char *path = NULL;

	*ret_given = given != NULL;
	if (given)
		return strdup(given);
	if (env && *env) {
		if (strncmp(env, "~/", 2) == 0 && home)
			return asprintf(&path, "%s%s", home, env + 1) < 0 ? NULL : path;
		return strdup(env);
	}
	path = cmek_cred_systemd(credential);
	if (!path && home && asprintf(&path, "%s/.aws/%s", home, name) < 0)
		path = NULL;
	return path;
}

static int load(const char *path, bool given, struct cmek_secret **ret_text, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	int rc;

	if (!path)
		return 0;
	rc = cmek_cred_file_read(path, FILE_MAX_BYTES, ret_text, &failure);
	if (rc == 0 || (!given && rc == -ENOENT) || (failure.kind == CMEK_E_BAD_FORMAT && !given))
		return 0;
	return cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
}

int cmek_aws_profiles_load(const char *config_path, const char *credentials_path, struct cmek_aws_profiles *ret_files,
			   struct cmek_error *err)
{
	struct cmek_aws_profiles files = { NULL, NULL };
	bool given = false;
	char *path;
	int rc;

	path = path_of(config_path, "AWS_CONFIG_FILE", "aws-config", "config", &given);
	rc = load(path, given, &files.config, err);
	free(path);
	path = path_of(credentials_path, "AWS_SHARED_CREDENTIALS_FILE", "aws-credentials", "credentials", &given);
	if (rc == 0)
		rc = load(path, given, &files.credentials, err);
	free(path);
	if (rc < 0)
		cmek_aws_profiles_done(&files);
	else
		*ret_files = files;
	return rc;
}

void cmek_aws_profiles_done(struct cmek_aws_profiles *files)
{
	cmek_secret_free(files->config);
	cmek_secret_free(files->credentials);
	memset(files, 0, sizeof(*files));
}

static struct cmek_aws_value find_in(const struct cmek_secret *text, const char *prefix, const char *name,
				     const char *parent, const char *key)
{
	char section[SECTION_MAX];
	int n = snprintf(section, sizeof(section), "%s%s%s", prefix, *prefix ? " " : "", name);

	if (!text || n < 0 || (size_t)n >= sizeof(section))
		return (struct cmek_aws_value){ NULL, 0 };
	return cmek_aws_ini_find((const char *)cmek_secret_bytes(text, CMEK_KEY_TEXT), section, parent, key);
}

struct cmek_aws_value cmek_aws_config_value(const struct cmek_aws_profiles *files, const char *profile, const char *key)
{
	struct cmek_aws_value v = find_in(files->config, "profile", profile, NULL, key);

	return !v.text && strcmp(profile, "default") == 0 ? find_in(files->config, "", profile, NULL, key) : v;
}

struct cmek_aws_value cmek_aws_credentials_value(const struct cmek_aws_profiles *files, const char *profile,
						 const char *key)
{
	return find_in(files->credentials, "", profile, NULL, key);
}

struct cmek_aws_value cmek_aws_profile_value(const struct cmek_aws_profiles *files, const char *profile,
					     const char *key)
{
	struct cmek_aws_value v = cmek_aws_credentials_value(files, profile, key);

	return v.text ? v : cmek_aws_config_value(files, profile, key);
}

struct cmek_aws_value cmek_aws_profile_endpoint(const struct cmek_aws_profiles *files, const char *profile,
						const char *service)
{
	struct cmek_aws_value v = { NULL, 0 };
	char services[SECTION_MAX / 2];

	if (cmek_aws_value_copy(cmek_aws_config_value(files, profile, "services"), services, sizeof(services)))
		v = find_in(files->config, "services", services, service, "endpoint_url");
	return v.text ? v : cmek_aws_config_value(files, profile, "endpoint_url");
}

static bool has_section(const struct cmek_secret *text, const char *prefix, const char *name)
{
	char section[SECTION_MAX];
	const char *p, *end;
	int n = snprintf(section, sizeof(section), "%s%s%s", prefix, *prefix ? " " : "", name);

	if (!text || n < 0 || (size_t)n >= sizeof(section))
		return false;
	for (p = (const char *)cmek_secret_bytes(text, CMEK_KEY_TEXT); *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, '\n');
		if (*p == '[' && is_section(p, end, section))
			return true;
	}
	return false;
}

bool cmek_aws_profile_exists(const struct cmek_aws_profiles *files, const char *profile)
{
	return has_section(files->credentials, "", profile) || has_section(files->config, "profile", profile) ||
	       (strcmp(profile, "default") == 0 && has_section(files->config, "", profile));
}

bool cmek_aws_value_copy(struct cmek_aws_value value, char *out, size_t max)
{
	if (!value.text || value.len + 1 > max)
		return false;
	memcpy(out, value.text, value.len);
	out[value.len] = '\0';
	return true;
}
