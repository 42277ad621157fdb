/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_CTL_MANIFEST_H
#define CMEK_TOOLS_CTL_MANIFEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "fs/volume/slot.h"
#include "kms/kms.h"

/* The manifest of cmekctl slot apply (doc/man/cmekctl.8): text -> struct, no I/O. One thread at a time per manifest. */

/* One key that the volume shall have, or shall have no more; all texts are borrowed from the manifest. */
struct cmek_manifest_key {
	size_t index; /* in region_specs */
	const char *provider, *uri;
	const char *region; /* NULL = not given */
	struct cmek_kms_principal principal;
};

struct cmek_manifest {
	json_t *json;
	bool revoke;
	struct cmek_manifest_key keys[CMEK_SLOTS_MAX]; /* no URI twice */
	size_t n_keys;                                 /* 0: a revocation of all that the volume has */
};

/* what: names the text in messages. The caller ends *ret_manifest, after a failure too. Kind bad-format, system. */
int cmek_manifest_parse(const void *text, size_t len, const char *what, struct cmek_manifest *ret_manifest,
			struct cmek_error *err);
void cmek_manifest_done(struct cmek_manifest *manifest);

#endif
