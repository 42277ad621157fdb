/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Finds a volume's section of the configuration. It must not know what its keys are good for, nor touch a store.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/volume/volconf.h"

/* Both are one directory, or one of them does not exist and they have the same text. */
static bool is_same_directory(const char *a, const char *b)
{
	char *real_a = realpath(a, NULL), *real_b = realpath(b, NULL);
	bool same = strcmp(real_a ? real_a : a, real_b ? real_b : b) == 0;

	free(real_a);
	free(real_b);
	return same;
}

const char *cmek_volconf_name(const struct cmek_conf *conf, const char *volume)
{
	bool is_name = !strchr(volume, '/') && access(volume, F_OK) != 0;
	const char *name, *store;
	size_t i;

	for (i = 0; (name = cmek_conf_name(conf, "volume", i)) != NULL; i++) {
		store = cmek_conf_text(conf, "volume", name, "store");
		if (store && (is_name ? strcmp(name, volume) == 0 : is_same_directory(store, volume)))
			return name;
	}
	return NULL;
}

/* A copy of the key's value, NULL if it is not set. */
static int copy_text(const struct cmek_conf *conf, const char *name, const char *key, char **ret_text)
{
	const char *text = cmek_conf_text(conf, "volume", name, key);

	*ret_text = text ? strdup(text) : NULL;
	return text && !*ret_text ? -ENOMEM : 0;
}

int cmek_volconf_load(const char *config_path, const char *volume, struct cmek_volconf *ret_volconf,
		      struct cmek_error *err)
{
	struct cmek_volconf found = { NULL, NULL, NULL };
	struct cmek_conf *conf = NULL;
	const char *name;
	int rc = cmek_conf_load(config_path, &conf, err);

	if (rc < 0)
		return rc;
	name = cmek_volconf_name(conf, volume);
	if (name && (copy_text(conf, name, "store", &found.store) < 0 || copy_text(conf, name, "key", &found.key) < 0 ||
		     copy_text(conf, name, "profile", &found.profile) < 0))
		rc = cmek_error_sys(err, ENOMEM, "the configuration of %s", volume);
	cmek_conf_free(conf);
	if (rc < 0)
		cmek_volconf_done(&found);
	else
		*ret_volconf = found;
	return rc;
}

void cmek_volconf_done(struct cmek_volconf *volconf)
{
	free(volconf->store);
	free(volconf->key);
	free(volconf->profile);
	memset(volconf, 0, sizeof(*volconf));
}
