/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Joins configuration, transport and credentials of a process. It must not know what a provider does with them.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kms/session.h"

struct cmek_kms_session {
	struct cmek_conf *conf; /* NULL = nothing is configured */
	struct cmek_http *http; /* NULL = not asked for yet */
	struct cmek_token_cache *tokens;
};

int cmek_kms_session_over(struct cmek_conf **conf, struct cmek_http *http, struct cmek_kms_session **ret_session,
			  struct cmek_error *err)
{
	struct cmek_kms_session *session = calloc(1, sizeof(*session));
	int rc;

	if (!session) {
		cmek_http_free(http);
		return cmek_error_sys(err, ENOMEM, "preparing to talk to key services");
	}
	session->http = http;
	rc = cmek_token_cache_new(&session->tokens, err);
	if (rc < 0) {
		cmek_kms_session_free(session);
		return rc;
	}
	if (conf) {
		session->conf = *conf;
		*conf = NULL;
	}
	*ret_session = session;
	return 0;
}

int cmek_kms_session_new(const char *config_path, struct cmek_kms_session **ret_session, struct cmek_error *err)
{
	struct cmek_conf *conf = NULL;
	int rc = cmek_conf_load(config_path, &conf, err);

	if (rc == 0)
		rc = cmek_kms_session_over(&conf, NULL, ret_session, err);
	cmek_conf_free(conf);
	return rc;
}

void cmek_kms_session_free(struct cmek_kms_session *session)
{
	if (!session)
		return;
	cmek_token_cache_free(session->tokens);
	cmek_http_free(session->http);
	cmek_conf_free(session->conf);
	free(session);
}

struct cmek_conf *cmek_kms_session_conf(const struct cmek_kms_session *session)
{
	return session->conf;
}

int cmek_kms_session_http(struct cmek_kms_session *session, struct cmek_http **ret_http, struct cmek_error *err)
{
	int rc = session->http ? 0 : cmek_http_new_curl(&session->http, err);

	if (rc == 0)
		*ret_http = session->http;
	return rc;
}

struct cmek_token_cache *cmek_kms_session_tokens(const struct cmek_kms_session *session)
{
	return session->tokens;
}

/* The section that has the key: its name in *ret_section and *ret_name. False if none has. */
static bool find_section(const struct cmek_kms_session *session, const char *provider, const char *profile,
			 const char *key, const char **ret_section, const char **ret_name)
{
	*ret_section = provider;
	*ret_name = profile;
	if (profile && cmek_conf_text(session->conf, provider, profile, key))
		return true;
	*ret_name = NULL;
	if (cmek_conf_text(session->conf, provider, NULL, key))
		return true;
	*ret_section = "kms";
	return cmek_conf_text(session->conf, "kms", NULL, key) != NULL;
}

const char *cmek_kms_session_text(const struct cmek_kms_session *session, const char *provider, const char *profile,
				  const char *key)
{
	const char *section, *name;

	return find_section(session, provider, profile, key, &section, &name) ?
		       cmek_conf_text(session->conf, section, name, key) :
		       NULL;
}

bool cmek_kms_session_bool(const struct cmek_kms_session *session, const char *provider, const char *profile,
			   const char *key)
{
	const char *section, *name;
	bool value = false;

	if (find_section(session, provider, profile, key, &section, &name))
		(void)cmek_conf_bool(session->conf, section, name, key, &value);
	return value;
}

/* 0 if it is not set; the configuration's own bounds keep it small. */
static unsigned number_of(const struct cmek_kms_session *session, const char *provider, const char *profile,
			  const char *key, bool is_duration)
{
	const char *section, *name;
	uint64_t n = 0;

	if (!find_section(session, provider, profile, key, &section, &name))
		return 0;
	if (is_duration)
		(void)cmek_conf_duration(session->conf, section, name, key, &n);
	else
		(void)cmek_conf_number(session->conf, section, name, key, &n);
	return (unsigned)n;
}

struct cmek_http_settings cmek_kms_session_settings(const struct cmek_kms_session *session, const char *provider,
						    const char *profile)
{
	const char *proxy = cmek_kms_session_text(session, provider, profile, "proxy");

	return (struct cmek_http_settings){
		.ca_file = cmek_kms_session_text(session, provider, profile, "ca_file"),
		.proxy = proxy && strcmp(proxy, "none") == 0 ? "" : proxy,
		.connect_timeout_ms = 1000 * number_of(session, provider, profile, "connect_timeout", true),
		.attempts = number_of(session, provider, profile, "attempts", false),
	};
}

unsigned cmek_kms_session_deadline_ms(const struct cmek_kms_session *session, const char *provider, const char *profile,
				      unsigned given_ms)
{
	return given_ms ? given_ms : 1000 * number_of(session, provider, profile, "deadline", true);
}

int cmek_kms_session_check_profile(const struct cmek_kms_session *session, const char *profile, struct cmek_error *err)
{
	static const char *const providers[] = { "aws", "gcp", "ibm" };
	const char *name;

	if (!profile)
		return 0;
	for (size_t p = 0; p < sizeof(providers) / sizeof(providers[0]); p++) {
		for (size_t i = 0; (name = cmek_conf_name(session->conf, providers[p], i)) != NULL; i++) {
			if (strcmp(name, profile) == 0)
				return 0;
		}
	}
	return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
			      "the configuration has no profile '%s' (a section [aws %s], [gcp %s] or [ibm %s])", profile,
			      profile, profile, profile);
}
