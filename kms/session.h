/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_SESSION_H
#define CMEK_KMS_SESSION_H

#include "base/conf.h"
#include "base/err.h"
#include "kms/http.h"
#include "kms/kms_uri.h"
#include "kms/token_cache.h"

/*
 * What handles of keys share while a process works with key services: the configuration, open connections, and
 * credentials that were fetched. Who opens many keys, or one many times, makes a session and names it in struct
 * cmek_kms_options; otherwise each handle has its own. One thread at a time; it must outlive the handles.
 */
struct cmek_kms_session;

/* config_path: NULL = the default. Errors of cmek_conf_load(). No network traffic. */
int cmek_kms_session_new(const char *config_path, struct cmek_kms_session **ret_session, struct cmek_error *err);
/* The same over another transport, which the session then owns (also on failure): for tests. conf may be NULL. */
int cmek_kms_session_over(struct cmek_conf **conf, struct cmek_http *http, struct cmek_kms_session **ret_session,
			  struct cmek_error *err);
void cmek_kms_session_free(struct cmek_kms_session *session);

struct cmek_conf *cmek_kms_session_conf(const struct cmek_kms_session *session);
/* Made by libcurl when it is first asked for. */
int cmek_kms_session_http(struct cmek_kms_session *session, struct cmek_http **ret_http, struct cmek_error *err);
struct cmek_token_cache *cmek_kms_session_tokens(const struct cmek_kms_session *session);

/*
 * What the configuration says for a provider ("aws", "gcp", "ibm"): the key in [provider PROFILE] if a profile is given
 * and has it, else in [provider], and for how to reach it, else in [kms]. Borrowed from the session; NULL = not set.
 */
const char *cmek_kms_session_text(const struct cmek_kms_session *session, const char *provider, const char *profile,
				  const char *key);
bool cmek_kms_session_bool(const struct cmek_kms_session *session, const char *provider, const char *profile,
			   const char *key);
/* Certificates, proxy, timeouts and attempts for this provider. */
struct cmek_http_settings cmek_kms_session_settings(const struct cmek_kms_session *session, const char *provider,
						    const char *profile);
/* The deadline of a whole call: as given if that is not 0, else as configured, else 0. */
unsigned cmek_kms_session_deadline_ms(const struct cmek_kms_session *session, const char *provider, const char *profile,
				      unsigned given_ms);
/* A profile that is named must exist for some provider. Kind usage. */
int cmek_kms_session_check_profile(const struct cmek_kms_session *session, const char *profile, struct cmek_error *err);

#endif
