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

/*
 * The end of a data key, which is a change of the header: retire.c. The ids are those of data keys that nothing in the store is
 * under any more, proof says how that is known. Called with the keys in use. Kind busy, to be tried again: another program
 * changes the header just now.
 */
struct cmek_reencrypt_host {
	void *arg;
	int (*retire)(void *arg, const uint16_t *ids, size_t n, uint64_t grace_s, const char *proof, struct cmek_error *err);
	/* The retired ones whose grace is over, or all of them. *ret_next: when the next one is due (Unix seconds), 0 = never. */
	int (*destroy)(void *arg, bool all, int64_t *ret_next, struct cmek_error *err);
};

struct cmek_reencrypt_params {
	struct cmek_keyring *ring;    /* all borrowed */
	struct cmek_tree *tree;
	struct cmek_content *content;
	int meta_fd;                  /* STORE/.cmekfs */
	const char *store_path;       /* as /proc/self/fd shows it */
	struct cmek_reencrypt_host host;
};

/* Starts the thread (so: after the last fork), which goes on with what an earlier mount had begun. */
int cmek_reencrypt_new(const struct cmek_reencrypt_params *params, struct cmek_reencrypt **ret_work, struct cmek_error *err);
void cmek_reencrypt_free(struct cmek_reencrypt *work); /* waits for the step under way; NULL allowed */

/*
 * Begins, or goes on when it was paused or had failed; while it runs only rate and grace change. rate: bytes of content a
 * second, 0 = as fast as it goes. grace_s: how long the data keys that it retires are kept; 0: all retired ones are destroyed
 * at its end. CMEK_REENCRYPT_KEEP: as before, or the default. Kinds: system (the state can't be kept).
 */
#define CMEK_REENCRYPT_KEEP UINT64_MAX
#define CMEK_REENCRYPT_GRACE_S (7 * 86400)
#define CMEK_REENCRYPT_GRACE_MAX_S (3650 * 86400)
int cmek_reencrypt_start(struct cmek_reencrypt *work, uint64_t rate, uint64_t grace_s, struct cmek_error *err);
/* Until the next start, also over mounts. Usage: it does not run. */
int cmek_reencrypt_pause(struct cmek_reencrypt *work, struct cmek_error *err);
/* For good: what was moved is moved, the next start finds the rest. Not running: 0. */
int cmek_reencrypt_stop(struct cmek_reencrypt *work, struct cmek_error *err);
/* The states that are told of in there, 0 to CMEK_REENCRYPT_STATES - 1: "idle", "running", ... */
#define CMEK_REENCRYPT_STATES 6
const char *cmek_reencrypt_state_name(unsigned i);
/* What it does and has done (doc/control.md); NULL: no memory. work NULL: JSON null. */
json_t *cmek_reencrypt_json(struct cmek_reencrypt *work);

/* How much of a pass that is under way is done; -1: none is, or it is NULL. */
int cmek_reencrypt_percent(struct cmek_reencrypt *work);

/*
 * While the volume is locked, or its keys' state makes it read-only: returns when no key is in use any more, and none will
 * be until the release. NULL allowed.
 */
void cmek_reencrypt_hold(struct cmek_reencrypt *work);
void cmek_reencrypt_release(struct cmek_reencrypt *work);

/* ---- between reencrypt.c, reencrypt_pass.c and reencrypt_proof.c ---- */

/* What a pass has looked at, to prove that nothing is under an older data key. */
struct cmek_reencrypt_looked {
	uint64_t directories, names, targets, attributes, files, pages, blocks;
	uint64_t nameless;    /* files among these that have no name any more */
	uint64_t moved;       /* of all, those that were looked at because they were renamed or linked meanwhile */
	uint64_t journal_seq; /* the journal's first record that counts */
};

struct cmek_reencrypt_counts {
	unsigned pass;                     /* over the whole volume; 0: it is being measured */
	uint64_t bytes_total, files_total; /* as measured */
	uint64_t bytes_done, files_done;   /* of this pass: looked at, and moved where that was needed */
	uint64_t bytes_moved;              /* in all passes */
	uint64_t moved;                    /* of this pass: anything at all */
	uint64_t bad;                      /* of this pass: blocks, pages and names that do not open */
	uint64_t left;                     /* of this pass: files that may not be written to, names that can't be changed */
	uint64_t busy;                     /* of this pass: directories that were being listed */
	uint64_t old;                      /* of this pass: seen under an older data key, for a later pass */
	uint64_t names_moved;              /* in all passes: names, targets of symlinks, attributes */
	bool proving;                      /* this pass also reads what the store has, and follows what is renamed */
	bool proved;                       /* and nothing is under an older data key */
	struct cmek_reencrypt_looked looked;
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
/* Waits, not between enter and leave; until it is to end at the longest. */
void cmek_reencrypt_wait(struct cmek_reencrypt *work, unsigned ms);
/*
 * Something in the store that keeps the older data keys from being retired: its path there ("" = not known) and inode (0 = not
 * known); why is for people. So many are kept for who asks; each pass begins with none.
 */
#define CMEK_REENCRYPT_HINDRANCES 8
#define CMEK_REENCRYPT_STORED 1024
void cmek_reencrypt_hinder(struct cmek_reencrypt *work, const char *stored, uint64_t inode, const char *why);
/* Measures the volume. 0, -ECANCELED: it is to end, or -errno. */
int cmek_reencrypt_measure(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts);
/* Once over everything. The same. */
int cmek_reencrypt_pass(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts);
/*
 * After a pass that proved it for these data keys: what is no part of the tree is looked at, store and journal are brought to
 * where a crash leaves nothing under them, and then they are retired. The same, and 1: something else hinders, which was told.
 */
int cmek_reencrypt_retire(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts, const uint16_t *ids, size_t n,
			  uint64_t grace_s);

#endif
