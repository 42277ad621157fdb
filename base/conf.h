/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_CONF_H
#define CMEK_BASE_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * The configuration file, cmekfs.conf(5): sections of "key = value". Which sections and keys exist, and what a value of
 * each looks like, is one table in conf.c; a file with anything else is refused as a whole, with the number of the line.
 * What was loaded never changes: threads may share it.
 */
#define CMEK_CONF_PATH "/etc/cmekfs/cmekfs.conf"

struct cmek_conf;

/*
 * Reads path, or if it is NULL $CMEKFS_CONFIG, else CMEK_CONF_PATH, which need not exist: that is an empty one, and so is
 * /dev/null. The caller owns *ret_conf. Kinds: not-found; denied (-EPERM: others than its owner may change the file, or its
 * owner is neither root nor this user); usage (-EINVAL: "PATH:LINE: what is wrong"); limit (-EFBIG: above 1 MiB); system.
 */
int cmek_conf_load(const char *path, struct cmek_conf **ret_conf, struct cmek_error *err);
void cmek_conf_free(struct cmek_conf *conf);

/*
 * The value of a key in [section], or in [section name] when name is not NULL; NULL if it is not set there. The text is
 * borrowed and of the key's form, so that the readers below cannot fail. conf may be NULL: nothing is set.
 */
const char *cmek_conf_text(const struct cmek_conf *conf, const char *section, const char *name, const char *key);
/* True when the key is set, and *ret then is its value; else it stays untouched. Durations are in seconds. */
bool cmek_conf_number(const struct cmek_conf *conf, const char *section, const char *name, const char *key,
		      uint64_t *ret);
bool cmek_conf_duration(const struct cmek_conf *conf, const char *section, const char *name, const char *key,
			uint64_t *ret_seconds);
bool cmek_conf_bool(const struct cmek_conf *conf, const char *section, const char *name, const char *key, bool *ret);

/* The name of the i-th [section NAME] in the order of the file, NULL past the end. */
const char *cmek_conf_name(const struct cmek_conf *conf, const char *section, size_t i);

#endif
