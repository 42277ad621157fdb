/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_WALK_H
#define CMEK_MOUNT_WALK_H

#include "fs/tree/tree.h"

/*
 * Goes through all that a directory and those below it hold, while the volume is in use. Each name is met once, a file with
 * several names several times; what is renamed meanwhile may be met twice or not at all. One thread.
 */
struct cmek_walk;

/* From this directory on, on which the caller has a lookup to give (or it is the root). 0 or -ENOMEM, and it has it still. */
int cmek_walk_new(struct cmek_tree *tree, uint64_t node, struct cmek_walk **ret_walk);
void cmek_walk_free(struct cmek_walk *walk); /* NULL allowed */
/*
 * 1: *ret_entry is next; its node is known until the next call (a lookup more: the caller's), a directory comes before what
 * is in it. 0: there is no more. -errno: a directory could not be listed to its end; the walk goes on behind it.
 */
int cmek_walk_next(struct cmek_walk *walk, struct cmek_entry *ret_entry);
/* Names that did not authenticate, so far. */
uint64_t cmek_walk_bad(const struct cmek_walk *walk);
/*
 * Entries that are there and could not be looked at (something is mounted on them, the store fails, no memory), and directories
 * that could not be found again, so far: what they are and hold was not met. *ret_dir: the node of the directory
 * that has the last such entry, known for as long as the walk; 0: there is none.
 */
uint64_t cmek_walk_unseen(const struct cmek_walk *walk, uint64_t *ret_dir);
uint64_t cmek_walk_lost(const struct cmek_walk *walk);

#endif
