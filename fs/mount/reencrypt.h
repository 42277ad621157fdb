/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_REENCRYPT_H
#define CMEK_MOUNT_REENCRYPT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/content/content.h"
#include "fs/tree/tree.h"

/*
 * Online re-encryption: a thread of the storage daemon that brings what the store has under older data keys to the active
 * one, while the volume is in use. That it is wanted, and how fast, stands in .cmekfs/reencrypt, so the next mount goes on;
 * what was done already shows in the store itself. Thread-safe.
 */
struct cmek_reencrypt;

struct cmek_reencrypt_params {
	struct cmek_keyring *ring;    /* all borrowed */
	struct cmek_tree *tree;
	struct cmek_content *content;
	int meta_fd;                  /* STORE/.cmekfs */
};

/* Starts the thread (so: after the last fork), which goes on with what an earlier mount had begun. */
int cmek_reencrypt_new(const struct cmek_reencrypt_params *params, struct cmek_reencrypt **ret_work, struct cmek_error *err);
void cmek_reencrypt_free(struct cmek_reencrypt *work); /* waits for the step under way; NULL allowed */

/*
 * Begins, or goes on when it was paused or had failed; while it runs only the rate changes. rate: bytes of content a second,
 * 0 = as fast as it goes, CMEK_REENCRYPT_RATE_KEEP = as before. Kinds: system (the state can't be kept).
 */
#define CMEK_REENCRYPT_RATE_KEEP UINT64_MAX
int cmek_reencrypt_start(struct cmek_reencrypt *work, uint64_t rate, struct cmek_error *err);
/* Until the next start, also over mounts. Usage: it does not run. */
int cmek_reencrypt_pause(struct cmek_reencrypt *work, struct cmek_error *err);
/* For good: what was moved is moved, the next start finds the rest. Not running: 0. */
int cmek_reencrypt_stop(struct cmek_reencrypt *work, struct cmek_error *err);
/* What it does and has done (doc/control.md); NULL: no memory. work NULL: JSON null. */
json_t *cmek_reencrypt_json(struct cmek_reencrypt *work);

/*
 * While the volume is locked, or its keys' state makes it read-only: returns when no key is in use any more, and none will
 * be until the release. NULL allowed.
 */
void cmek_reencrypt_hold(struct cmek_reencrypt *work);
void cmek_reencrypt_release(struct cmek_reencrypt *work);

/* ---- between reencrypt.c and reencrypt_pass.c ---- */

struct cmek_reencrypt_counts {
	unsigned pass;                     /* over the whole volume; 0: it is being measured */
	uint64_t bytes_total, files_total; /* as measured */
	uint64_t bytes_done, files_done;   /* of this pass: looked at, and moved where that was needed */
	uint64_t bytes_moved;              /* in all passes */
	uint64_t moved;                    /* of this pass: anything at all */
	uint64_t bad;                      /* of this pass: blocks, pages and names that do not open */
	uint64_t left;                     /* of this pass: files that may not be written to, names that can't be changed */
	uint64_t busy;                     /* of this pass: directories that were being listed */
	uint64_t names_moved;              /* in all passes: names, targets of symlinks, attributes */
};
const struct cmek_reencrypt_params *cmek_reencrypt_params(const struct cmek_reencrypt *work);
/*
 * Everything that uses keys lies between these two. enter waits while it is paused or held; false: it is to end, and
 * nothing but what has to be given back is left to do. Each is paired with leave.
 */
bool cmek_reencrypt_enter(struct cmek_reencrypt *work);
void cmek_reencrypt_leave(struct cmek_reencrypt *work);
/* Tells how far it is, and waits as long as the rate asks for after so many more bytes. */
void cmek_reencrypt_tell(struct cmek_reencrypt *work, const struct cmek_reencrypt_counts *counts, uint64_t bytes);
/* Measures the volume. 0, -ECANCELED: it is to end, or -errno. */
int cmek_reencrypt_measure(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts);
/* Once over everything. The same. */
int cmek_reencrypt_pass(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts);

#endif
