/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_VOLCONF_H
#define CMEK_VOLUME_VOLCONF_H

#include "base/conf.h"
#include "base/err.h"

/*
 * What the configuration says of a volume, in a section [volume NAME] (cmekfs.conf(5)): the same for the mount and for
 * all tools. Thread-safe.
 */

/*
 * The NAME of the section for a volume, NULL if there is none: the one whose store this path is, or, where nothing is
 * there by that name and it has no '/', the one of that name. Sections without a store do not count. Borrowed from conf.
 */
const char *cmek_volconf_name(const struct cmek_conf *conf, const char *volume);

/* All malloced; NULL = not said. */
struct cmek_volconf {
	char *store;
	char *key;
	char *profile;
};
/* The section for a volume; all NULL if there is none. Kinds of cmek_conf_load(). */
int cmek_volconf_load(const char *config_path, const char *volume, struct cmek_volconf *ret_volconf,
		      struct cmek_error *err);
void cmek_volconf_done(struct cmek_volconf *volconf);

#endif
