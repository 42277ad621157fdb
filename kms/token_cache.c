/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A short list of named secrets with an expiry. It must not know what they are for, nor where they come from.
 */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kms/token_cache.h"

#define EARLY_DEFAULT_S 300
#define LAST_USE_S 60 /* before the end nothing is begun with it: clocks differ, requests take time */
#define TOKENS_MAX 64

struct token {
	char *name;
	struct cmek_secret *value;
	int64_t expires;
};

struct cmek_token_cache {
	struct token tokens[TOKENS_MAX];
	size_t n;
};

int cmek_token_cache_new(struct cmek_token_cache **ret_cache, struct cmek_error *err)
{
	struct cmek_token_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return cmek_error_sys(err, ENOMEM, "a cache of credentials");
	*ret_cache = cache;
	return 0;
}

/* The last one takes its place. */
static void drop(struct cmek_token_cache *cache, struct token *t)
{
	free(t->name);
	cmek_secret_free(t->value);
	*t = cache->tokens[--cache->n];
	memset(&cache->tokens[cache->n], 0, sizeof(*t));
}

void cmek_token_cache_free(struct cmek_token_cache *cache)
{
	if (!cache)
		return;
	while (cache->n > 0)
		drop(cache, &cache->tokens[cache->n - 1]);
	free(cache);
}

static struct token *find(struct cmek_token_cache *cache, const char *name)
{
	for (size_t i = 0; i < cache->n; i++) {
		if (strcmp(cache->tokens[i].name, name) == 0)
			return &cache->tokens[i];
	}
	return NULL;
}

static bool lasts(const struct token *t, int64_t now, int64_t seconds)
{
	return t->expires == INT64_MAX || t->expires - now > seconds;
}

/* Keeps it if there is room and memory; a cache need not. */
static void keep(struct cmek_token_cache *cache, const char *name, struct cmek_secret *value, int64_t expires)
{
	char *copy;

	if (cache->n == TOKENS_MAX)
		drop(cache, &cache->tokens[0]);
	copy = strdup(name);
	if (!copy)
		return;
	cache->tokens[cache->n++] = (struct token){ copy, cmek_secret_ref(value), expires };
}

int cmek_token_get(struct cmek_token_cache *cache, const char *name, int64_t now, const struct cmek_token_source *source,
		   struct cmek_secret **ret_token, struct cmek_error *err)
{
	unsigned early_s = source->early_s ? source->early_s : EARLY_DEFAULT_S;
	struct token *old = find(cache, name);
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_secret *value = NULL;
	int64_t expires = 0;
	int rc;

	if (old && lasts(old, now, early_s)) {
		*ret_token = cmek_secret_ref(old->value);
		return 0;
	}
	rc = source->fetch(source->arg, &value, &expires, &failure);
	old = find(cache, name); /* fetching may use the cache itself */
	if (rc < 0 && old && lasts(old, now, LAST_USE_S)) {
		cmek_log(CMEK_LOG_DEBUG, "credentials could not be renewed early (%s); the old ones serve", failure.text);
		*ret_token = cmek_secret_ref(old->value);
		return 0;
	}
	if (rc < 0)
		return cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
	if (old)
		drop(cache, old);
	keep(cache, name, value, expires);
	*ret_token = value;
	return 0;
}

void cmek_token_forget(struct cmek_token_cache *cache, const char *name)
{
	struct token *t = find(cache, name);

	if (t)
		drop(cache, t);
}

void cmek_token_forget_all(struct cmek_token_cache *cache, const char *prefix)
{
	for (size_t i = cache->n; i-- > 0;) {
		if (strncmp(cache->tokens[i].name, prefix, strlen(prefix)) == 0)
			drop(cache, &cache->tokens[i]);
	}
}
