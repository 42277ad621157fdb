/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TREE_TREE_IMPL_H
#define CMEK_TREE_TREE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/fds.h"
#include "fs/tree/cred.h"
#include "fs/tree/fd_cache.h"
#include "fs/tree/name_crypt.h"
#include "fs/tree/node.h"
#include "fs/tree/store.h"
#include "fs/tree/tree.h"

/*
 * What the files tree*.c share; nobody else includes this.
 *
 * Locks, in the order in which they are taken:
 *  1. dir_locks[(dev, ino) of a directory]: shared while its id is read into the cache and while an entry is added to
 *     it, exclusive while its id is taken away (rmdir, rename over it). Stripes; several in ascending order.
 *  2. name_locks[(dev, ino) of the directory, stored name]: held by everything that looks at or changes what a name
 *     refers to, so that a name, its long-name link, and the node's hint change together. Stripes; ascending order.
 *  3. the locks inside node.c and fd_cache.c, streams.lock, moves.lock: short, never around a system call on the store.
 * Before all of them: the locks of listings (tree_readdir.c), shared by a listing for one answer, exclusive while names
 * move to another data key. Apart from them: xattr_locks[inode], held where an attribute is changed under all its data keys.
 * Descriptors of directories are had before 1, since opening one by its hint takes locks of kind 2 for a moment.
 */
#define CMEK_TREE_DIR_LOCKS 256
#define CMEK_TREE_NAME_LOCKS 1024
#define CMEK_TREE_DIR_VERSIONS 1024
#define CMEK_TREE_XATTR_LOCKS 64

struct cmek_tree_streams;

/* tree_moves.c: what was renamed or linked since it is watched, each node once, with a lookup until it is given out. */
struct cmek_tree_moves {
	atomic_bool watched;  /* looked at with a name's lock held */
	pthread_mutex_t lock; /* the rest; short */
	uint64_t *notes;      /* room for `capacity`, a power of two */
	uint64_t *seen;       /* the same by hash, in twice as many slots; 0 = free */
	size_t next, n, capacity;
	bool lost;            /* not all could be noted */
};

struct cmek_tree {
	int root_fd;  /* O_RDONLY: also names the mount for open_by_handle_at(2) */
	int links_fd; /* .cmekfs/links, O_RDONLY, or -1: not there (yet) */
	struct cmek_keyring *ring; /* borrowed */
	struct cmek_tree_params params;
	struct cmek_cred_self self;
	atomic_bool read_only; /* params.read_only, or set later */
	bool by_handle;      /* open_by_handle_at(2) works here */
	struct cmek_fds fds; /* constant */
	bool has_mount_id;
	uint64_t mount_id;
	dev_t dev;

	struct cmek_node_table *nodes;
	struct cmek_fd_cache *dirs;
	struct cmek_fd_cache *files; /* all that are no directories: few, for requests that follow each other */
	struct cmek_tree_streams *streams; /* tree_readdir.c */

	bool flush_names;   /* the store does not order names with a file's fsync: tree_sync.c */
	uint32_t dirty_seq; /* atomic: last mark given */

	pthread_mutex_t links_lock; /* making links_fd */
	pthread_rwlock_t dir_locks[CMEK_TREE_DIR_LOCKS];
	pthread_mutex_t name_locks[CMEK_TREE_NAME_LOCKS];
	uint32_t dir_versions[CMEK_TREE_DIR_VERSIONS]; /* atomic; counts changes, by hash of the directory */
	pthread_mutex_t xattr_locks[CMEK_TREE_XATTR_LOCKS]; /* by hash of the inode */
	struct cmek_tree_moves moves;
};

/* tree_fd.c: descriptors of nodes */

/* A node in use and an O_PATH descriptor of it. */
struct cmek_tree_fd {
	struct cmek_node node;
	int fd;
	struct cmek_fd_ref *ref; /* the entry of tree.dirs or tree.files that fd belongs to; NULL: the root, or a pin */
};
int cmek_tree_fd_get(struct cmek_tree *tree, uint64_t number, struct cmek_tree_fd *ret_fd);
void cmek_tree_fd_put(struct cmek_tree *tree, struct cmek_tree_fd *fd);
/* A new descriptor of a node the caller holds: O_PATH, or flags that open it. */
int cmek_tree_node_open(struct cmek_tree *tree, const struct cmek_node *node, int flags);
/* r says that descriptors ran out, and now there is room for another attempt. */
bool cmek_tree_ran_out(struct cmek_tree *tree, int r);
/*
 * Brings the number of a descriptor below `end`, if need be at the cost of cached ones (base/fds.h). 0, or -EMFILE: *fd stays
 * as it was.
 */
int cmek_tree_fd_lower(struct cmek_tree *tree, int *fd, int end);
/* Whether there is room for a descriptor that a user keeps: 0 or -EMFILE. */
int cmek_tree_fd_room(struct cmek_tree *tree);
/* cmek_store_open(), and once more after making room when descriptors have run out. */
int cmek_tree_open_at(struct cmek_tree *tree, int dirfd, const char *name, int flags);

/* tree_place.c: a plain name in a directory */

struct cmek_tree_dir {
	struct cmek_tree_fd fd;
	bool has_id; /* else: empty */
	struct cmek_dir_id id;
};
/* -ENOTDIR. */
int cmek_tree_dir_get(struct cmek_tree *tree, uint64_t number, struct cmek_tree_dir *ret_dir);
void cmek_tree_dir_put(struct cmek_tree *tree, struct cmek_tree_dir *dir);
/* Fills in has_id and id. -ENOLINK: entries without an id; -EBADMSG: a broken one. locked: its directory lock is held. */
int cmek_tree_dir_load_id(struct cmek_tree *tree, struct cmek_tree_dir *dir, bool locked);

struct cmek_tree_locks {
	uint16_t dirs[2];
	bool dirs_write[2];
	unsigned n_dirs;
	uint16_t names[4];
	unsigned n_names;
	bool dirs_held, names_held;
};
/* Which of n stripes a directory has. */
unsigned cmek_tree_dir_stripe(const struct cmek_node_key *dir, unsigned n);
void cmek_tree_locks_add_dir(struct cmek_tree_locks *locks, const struct cmek_node_key *key, bool write);
void cmek_tree_locks_add_name(struct cmek_tree_locks *locks, const struct cmek_node_key *dir, const char *entry);
void cmek_tree_lock_dirs(struct cmek_tree *tree, struct cmek_tree_locks *locks);
void cmek_tree_lock_names(struct cmek_tree *tree, struct cmek_tree_locks *locks);
void cmek_tree_unlock(struct cmek_tree *tree, struct cmek_tree_locks *locks); /* all, and empties the set */

struct cmek_tree_place {
	struct cmek_tree_dir dir;
	struct cmek_stored_name names[2]; /* under the DEK of the directory, and under its old one */
	unsigned n_names;
	const struct cmek_stored_name *name; /* the one that counts, see cmek_tree_place_find() */
	bool made_link;                      /* the long-name link is new */
};
/* The directory of a place, with the plain name checked. No names yet. */
int cmek_tree_place_get(struct cmek_tree *tree, uint64_t parent, const char *plain, struct cmek_tree_place *ret_place);
/* Computes the names; -ENOENT when the directory is empty. */
int cmek_tree_place_name(struct cmek_tree *tree, struct cmek_tree_place *place, const char *plain);
/* The same, giving the directory an id first if it has none. The directory's lock is held. */
int cmek_tree_place_new_name(struct cmek_tree *tree, struct cmek_tree_place *place, const char *plain);
void cmek_tree_place_put(struct cmek_tree *tree, struct cmek_tree_place *place);
void cmek_tree_place_lock(struct cmek_tree_locks *locks, const struct cmek_tree_place *place);
/* What is there: 0 and name set, or -ENOENT and name set to where it would be made. Names locked. */
int cmek_tree_place_find(struct cmek_tree *tree, struct cmek_tree_place *place, struct cmek_store_stat *ret_stat);
/*
 * The link of the long name that was found: -EBADMSG when it is missing or another one. Listings don't show such an
 * entry, nothing but damage makes one. Names locked.
 */
int cmek_tree_place_check_link(const struct cmek_tree_place *place);
/* Makes the link of a long name (also heals a wrong one) / takes a link away after its entry. Names locked. */
int cmek_tree_place_make_link(struct cmek_tree *tree, struct cmek_tree_place *place);
void cmek_tree_place_drop_link(struct cmek_tree *tree, const struct cmek_tree_place *place);
/*
 * After -ENOENT, with nothing locked: true when the names move, or have moved, to another data key since they were computed.
 * They are computed again, and looking for the entry is worth another attempt.
 */
bool cmek_tree_place_moved(struct cmek_tree *tree, struct cmek_tree_place *place, const char *plain);
/* The directory has changed: listings that begin from now on show it, whatever was read ahead. */
void cmek_tree_dir_changed(struct cmek_tree *tree, const struct cmek_tree_dir *dir);
uint32_t cmek_tree_dir_version(struct cmek_tree *tree, const struct cmek_node_key *dir);

/* What a store directory holds, apart from its id. */
struct cmek_tree_census {
	bool entries; /* something that is an entry */
	bool foreign; /* something that is not ours */
	bool links;   /* long-name links */
};
/* drop_links: removes long-name links on the way (of a directory without entries, with its lock held). */
int cmek_tree_census(struct cmek_tree *tree, int dirfd, bool drop_links, struct cmek_tree_census *ret_census);

/* tree.c: entries and attributes */

/* Plain attributes from the store's; (dirfd, name) is where the symlink can be read if that is needed. */
int cmek_tree_plain_stat(struct cmek_tree *tree, int dirfd, const char *name, struct stat *st);
/* -EXDEV when something else is mounted there. */
int cmek_tree_check_mount(const struct cmek_tree *tree, const struct cmek_store_stat *st);
int cmek_tree_key(const struct cmek_store_stat *st, int dirfd, const char *name, struct cmek_node_key *ret_key);
/*
 * Counts a lookup on the entry at a place and tells about it; fd is a descriptor of it (just made), or -1: found by
 * cmek_tree_place_find(), whose answer is st. Names locked.
 */
int cmek_tree_enter(struct cmek_tree *tree, const struct cmek_tree_place *place, int fd, struct cmek_store_stat *st,
		    struct cmek_entry *ret_entry);

/* tree_symlink.c */

/* Reads and decrypts the target of the symlink (dirfd, name). */
int cmek_tree_read_target(struct cmek_tree *tree, int dirfd, const char *name, char *ret_target, size_t *ret_len);
/* The text for a new link, malloced; its pieces are made and flushed. */
int cmek_tree_make_target(struct cmek_tree *tree, const char *target, char **ret_text);
/*
 * Puts a symlink with this text at (dirfd, name), in place of what is there, in one step. like: whose owner and times it
 * gets, NULL = nobody's.
 */
int cmek_tree_replace_link(struct cmek_tree *tree, const char *text, const struct stat *like, int dirfd, const char *name);
/* The target of a symlink to the active data key; 0 also when the entry is none. */
int cmek_tree_reencrypt_symlink(struct cmek_tree *tree, const struct cmek_tree_dir *dir, const char *entry,
				struct cmek_tree_reencrypt *sum);
/* The text is under another data key than the active one. */
bool cmek_tree_target_is_old(struct cmek_tree *tree, const char *text);
/* Removes the pieces of a link with this text, which is gone (or was not made). */
void cmek_tree_drop_pieces(struct cmek_tree *tree, const char *text);

/* tree_moves.c: for whoever goes through the tree just now. Before it is done; names locked, from here until it is. */

/* The entry at a place, which cmek_tree_place_find() has found (st), is about to be renamed. */
void cmek_tree_note_entry(struct cmek_tree *tree, const struct cmek_tree_place *place, const struct cmek_store_stat *st);
/* A known inode is about to get another name, at this place. */
void cmek_tree_note_link(struct cmek_tree *tree, const struct cmek_node *node, const struct cmek_tree_place *place);

/* tree_xattr.c */

/* The mode for a new entry of the directory. */
mode_t cmek_tree_mode_for(struct cmek_tree *tree, const struct cmek_tree_dir *dir, mode_t mode, mode_t mask);

/* tree_remove.c: an inode about to lose a name */

struct cmek_tree_victim {
	struct cmek_store_stat st;
	struct cmek_node node; /* held if known */
	bool known;
	int fd;     /* O_PATH, or -1 if nothing has to be known afterwards */
	char *text; /* of a symlink with pieces */
};
/* st: what cmek_tree_place_find() said. Names locked. */
int cmek_tree_victim_get(struct cmek_tree *tree, const struct cmek_tree_place *place, const struct cmek_store_stat *st,
			 struct cmek_tree_victim *ret_victim);
/* It has lost the name at this place: keeps a known inode reachable. Names locked. */
void cmek_tree_victim_gone(struct cmek_tree *tree, const struct cmek_tree_place *place,
			   struct cmek_tree_victim *victim);
void cmek_tree_victim_put(struct cmek_tree *tree, struct cmek_tree_victim *victim); /* zeroed with fd -1 allowed */
/*
 * Takes the id of an empty directory away, so that the store's rmdir or rename takes it for empty, or puts it back
 * when that failed. The directory's lock is held exclusively. -ENOTEMPTY.
 */
struct cmek_tree_taken {
	bool had_id;
	struct cmek_dir_id id;
};
int cmek_tree_take_id(struct cmek_tree *tree, const struct cmek_tree_victim *victim, struct cmek_tree_taken *ret_taken);
void cmek_tree_give_id_back(const struct cmek_tree_victim *victim, const struct cmek_tree_taken *taken);

/* tree_readdir.c */

int cmek_tree_streams_new(struct cmek_tree_streams **ret_streams);
void cmek_tree_streams_free(struct cmek_tree_streams *streams);
void cmek_tree_streams_drop(struct cmek_tree_streams *streams, uint64_t node);
/*
 * Names of the directory are about to change in the store, which would have a listing that is resumed by the store's cookie
 * tell some of them twice, or not at all. False: somebody seems to be in the middle of one. Else listings wait until the end.
 */
bool cmek_tree_listings_begin_move(struct cmek_tree *tree, const struct cmek_node_key *dir);
void cmek_tree_listings_end_move(struct cmek_tree *tree, const struct cmek_node_key *dir);

/* tree_sync.c */

/* An id link or long-name link was made in the directory: it has to be flushed before a fsync below is answered. */
int cmek_tree_dirty_add(struct cmek_tree *tree, uint64_t dir);

#endif
