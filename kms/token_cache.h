/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_TOKEN_CACHE_H
#define CMEK_KMS_TOKEN_CACHE_H

#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"

/*
 * Credentials that expire (bearer tokens, session keys), kept in locked memory until then and never written anywhere.
 * One thread at a time a cache.
 */
struct cmek_token_cache;

int cmek_token_cache_new(struct cmek_token_cache **ret_cache, struct cmek_error *err);
void cmek_token_cache_free(struct cmek_token_cache *cache);

/* Asks for a new token: CMEK_KEY_TEXT, owned by the caller, and when it expires (Unix seconds, INT64_MAX = never). */
struct cmek_token_source {
	int (*fetch)(void *arg, struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err);
	void *arg;
	/*
	 * Seconds before the expiry from which on a new one is asked for (0 = 300). If that fails, the old one serves until
	 * a minute before its end.
	 */
	unsigned early_s;
};

/*
 * The token called `name`, which must tell everything that makes it another one (provider, account, role, endpoint): from
 * the cache while it is good at the time `now`, else fetched and kept. The caller owns a reference. Errors of fetch.
 */
int cmek_token_get(struct cmek_token_cache *cache, const char *name, int64_t now, const struct cmek_token_source *source,
		   struct cmek_secret **ret_token, struct cmek_error *err);
/* The service refused it: the next cmek_token_get() fetches. */
void cmek_token_forget(struct cmek_token_cache *cache, const char *name);
/* The same for all whose names begin with prefix. */
void cmek_token_forget_all(struct cmek_token_cache *cache, const char *prefix);

#endif
