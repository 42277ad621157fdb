/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TREE_FD_CACHE_H
#define CMEK_TREE_FD_CACHE_H

#include <stdint.h>

#include "base/err.h"
#include "fs/tree/dir_id.h"

/*
 * Nodes that are in use or were lately: an O_PATH descriptor, and the id of a directory, by node number. Bounded; the ones used
 * longest ago go first, those in use never (so the bound can be passed by the number of threads). Descriptors with numbers from
 * fd_end on are closed as soon as nobody uses them (base/fds.h). Thread-safe.
 */
struct cmek_fd_cache;
struct cmek_fd_ref; /* one node's entry, held by a reference */

enum cmek_dir_state {
	CMEK_DIR_UNKNOWN,
	CMEK_DIR_EMPTY, /* has no id, and was seen to have no entries */
	CMEK_DIR_HAS_ID
};

int cmek_fd_cache_new(unsigned max, int fd_end, struct cmek_fd_cache **ret_cache, struct cmek_error *err);
void cmek_fd_cache_free(struct cmek_fd_cache *cache); /* nothing may be in use; NULL allowed */

/* With a reference for the caller, or NULL: not there. */
struct cmek_fd_ref *cmek_fd_cache_get(struct cmek_fd_cache *cache, uint64_t node);
/* Adds a descriptor, taken over (*fd becomes -1); an entry that is there already is the one. NULL: no memory. */
struct cmek_fd_ref *cmek_fd_cache_add(struct cmek_fd_cache *cache, uint64_t node, int *fd);
void cmek_fd_cache_put(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref); /* NULL allowed */
/* Forgets a node; who uses its entry keeps it until the put. */
void cmek_fd_cache_drop(struct cmek_fd_cache *cache, uint64_t node);
/* Closes up to half of what is not in use and has a number below fd_end (descriptors ran out). Returns how many. */
unsigned cmek_fd_cache_shrink(struct cmek_fd_cache *cache, int fd_end);

int cmek_fd_ref_fd(const struct cmek_fd_ref *ref);
enum cmek_dir_state cmek_fd_ref_id(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref, struct cmek_dir_id *ret_id);
void cmek_fd_ref_set_id(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref, const struct cmek_dir_id *id);
/* The id of this node, if it is in the cache, has to be read again. */
void cmek_fd_cache_forget_id(struct cmek_fd_cache *cache, uint64_t node);
/* What is known of a directory's default ACL. */
enum cmek_acl_state { CMEK_ACL_UNKNOWN, CMEK_ACL_NONE, CMEK_ACL_DEFAULT };
enum cmek_acl_state cmek_fd_ref_acl(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref);
void cmek_fd_ref_set_acl(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref, enum cmek_acl_state state);
/* Only if nothing is known: who made an id in between knows better. */
void cmek_fd_ref_set_empty(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref);

#endif
