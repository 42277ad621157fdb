/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TREE_TREE_H
#define CMEK_TREE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/err.h"
#include "fs/volume/keyring.h"

/*
 * The tree of a mounted volume: nodes, plain names, directories, symlinks, over the store's directory. Knows no file
 * contents (sizes come from arithmetic) and no FUSE. Thread-safe. All functions return 0 or -errno as a user may see
 * it, with -EBADMSG for stored names, links or ids that fail authentication.
 *
 * A node is named by a 64-bit number: table index | generation << 32, the root is 1. Numbers are never pointers, and
 * the table (node.h) lives in a shared mapping outside the heap. A node is known while the kernel has lookups on it.
 */
#define CMEK_NODE_ROOT UINT64_C(1)

struct cmek_tree;

struct cmek_tree_params {
	uint32_t block_size;  /* for plain sizes */
	uint32_t symlink_max; /* longest symlink text of this store, from the header */
	bool read_only;
	unsigned max_fds;     /* open descriptors kept for nodes, half of RLIMIT_NOFILE at most; 0 = a quarter of it */
	uint64_t max_nodes;   /* 0 = 2^24 */
};

/* The caller of a creating request; new entries belong to them. */
struct cmek_cred {
	uid_t uid;
	gid_t gid;
	mode_t umask; /* applied unless the directory has a default ACL, which then stands for it */
};

/* An answer to a lookup or a creation: the kernel holds one lookup more on node (undo: cmek_tree_forget(.., 1)). */
struct cmek_entry {
	uint64_t node;
	struct stat st; /* st_size plain; st_ino the store's */
};

/* store_fd: the store's directory, taken over. The ring is borrowed. */
int cmek_tree_new(int store_fd, struct cmek_keyring *ring, const struct cmek_tree_params *params,
		  struct cmek_tree **ret_tree, struct cmek_error *err);
void cmek_tree_free(struct cmek_tree *tree);
/* From now on, and for good, whatever would change the store says -EROFS. */
void cmek_tree_set_read_only(struct cmek_tree *tree);

int cmek_tree_lookup(struct cmek_tree *tree, uint64_t parent, const char *name, struct cmek_entry *ret_entry);
void cmek_tree_forget(struct cmek_tree *tree, uint64_t node, uint64_t n_lookups);
int cmek_tree_getattr(struct cmek_tree *tree, uint64_t node, struct stat *ret_st);
/* The same without the times (cmek_store_stat_timeless() says why). */
int cmek_tree_getattr_timeless(struct cmek_tree *tree, uint64_t node, struct stat *ret_st);
/*
 * The kernel was told something of this file that can't be taken back (a size): from now on everything but forget says
 * -ESTALE, and the next look-up of the file gives it another number. Not for directories.
 */
void cmek_tree_retire(struct cmek_tree *tree, uint64_t node);

/*
 * Creation. cred: whose it is; mode: without the umask. Names: 1..255 bytes, no slash, else -ENAMETOOLONG/-EINVAL.
 * create: O_EXCL semantics when excl, else an existing entry is looked up; *ret_fd is a read-write store descriptor of the
 * new file, the caller owns it, or -1 when there was an entry. -EMFILE: no descriptor is left for files that are open
 * (base/fds.h), nothing was made.
 */
int cmek_tree_create(struct cmek_tree *tree, uint64_t parent, const char *name, mode_t mode, bool excl,
		     const struct cmek_cred *cred, struct cmek_entry *ret_entry, int *ret_fd);
int cmek_tree_mkdir(struct cmek_tree *tree, uint64_t parent, const char *name, mode_t mode,
		    const struct cmek_cred *cred, struct cmek_entry *ret_entry);
int cmek_tree_mknod(struct cmek_tree *tree, uint64_t parent, const char *name, mode_t mode, dev_t rdev,
		    const struct cmek_cred *cred, struct cmek_entry *ret_entry);
int cmek_tree_symlink(struct cmek_tree *tree, uint64_t parent, const char *name, const char *target,
		      const struct cmek_cred *cred, struct cmek_entry *ret_entry);
int cmek_tree_link(struct cmek_tree *tree, uint64_t node, uint64_t new_parent, const char *new_name,
		   struct cmek_entry *ret_entry);
int cmek_tree_unlink(struct cmek_tree *tree, uint64_t parent, const char *name);
int cmek_tree_rmdir(struct cmek_tree *tree, uint64_t parent, const char *name);
/* flags: 0, RENAME_NOREPLACE, RENAME_EXCHANGE; others -EINVAL. */
int cmek_tree_rename(struct cmek_tree *tree, uint64_t parent, const char *name, uint64_t new_parent,
		     const char *new_name, unsigned flags);
/* target gets at most size bytes (no NUL); returns the length of the target (at most 4095) or -errno. */
int cmek_tree_readlink(struct cmek_tree *tree, uint64_t node, char *target, size_t size);

/*
 * Re-encryption: what a node has under another data key than the active one moves to it, while the volume is in use. What is
 * found out is added to *sum. 0, or -errno: what made it stop half-way (-ENOSPC, -EROFS, -ESTALE: there is no such node).
 */
struct cmek_tree_reencrypt {
	uint64_t moved; /* names, targets, attributes */
	uint64_t bad;   /* that do not open, and stay as they are */
	uint64_t left;  /* that the store would not let go, or has no room for */
	uint64_t busy;  /* directories that somebody was listing: to be tried again later */
	uint64_t old;   /* seen, and to be moved by a later look */
	uint64_t targets, attributes; /* looked at */
};
/*
 * The names in a directory, and the targets of its symlinks. Those are stored anew: a symlink gets another inode, and one
 * with several names becomes several.
 */
int cmek_tree_reencrypt_dir(struct cmek_tree *tree, uint64_t node, struct cmek_tree_reencrypt *sum);
/* The extended attributes of a file or directory. */
int cmek_tree_reencrypt_xattrs(struct cmek_tree *tree, uint64_t node, struct cmek_tree_reencrypt *sum);

/* The target of a symlink, by its node: told, and not moved, for that takes the directory that it is in. */
int cmek_tree_reencrypt_link(struct cmek_tree *tree, uint64_t node, struct cmek_tree_reencrypt *sum);
/* Takes away what a crash has left of symlinks on their way to their places, and nobody needs. */
int cmek_tree_reencrypt_spares(struct cmek_tree *tree);

/*
 * For whoever has to see everything in a tree in use. What has the same name from `watch` to `end` is met by a walk through all
 * of it; what is renamed, or gets a name more, is noted: each node is given out once by `next`, with a lookup for the caller.
 * So whatever was there at the beginning, and has a name at a moment when all that the walk and `next` gave out was looked at,
 * has been looked at. One user at a time. next: false: there is none now. end: false: not all could be noted.
 */
void cmek_tree_moves_watch(struct cmek_tree *tree);
bool cmek_tree_moves_next(struct cmek_tree *tree, uint64_t *ret_node);
bool cmek_tree_moves_end(struct cmek_tree *tree);

/* Keeps a node known until it is let go, whoever forgets it. -ESTALE: there is no such node. */
int cmek_tree_keep(struct cmek_tree *tree, uint64_t node);
void cmek_tree_let_go(struct cmek_tree *tree, uint64_t node);

/* Goes through the nodes that the kernel knows: as cmek_node_next(). */
uint64_t cmek_tree_next_node(struct cmek_tree *tree, uint64_t *index);

/* Attributes of any node, following the node, never a symlink. */
int cmek_tree_chmod(struct cmek_tree *tree, uint64_t node, mode_t mode);
int cmek_tree_chown(struct cmek_tree *tree, uint64_t node, uid_t uid, gid_t gid); /* -1 = leave */
int cmek_tree_utimens(struct cmek_tree *tree, uint64_t node, const struct timespec ts[2]); /* UTIME_NOW/OMIT allowed */

/*
 * Extended attributes: user.* and trusted.* are sealed, security.* and POSIX ACLs pass to the store, others are
 * -EOPNOTSUPP. get and list return a length (with size 0: the one needed), -ERANGE, -ENODATA; trusted: list those, too.
 * flags: XATTR_CREATE, XATTR_REPLACE. -E2BIG: with what sealing adds it is more than an attribute can have.
 */
int cmek_tree_getxattr(struct cmek_tree *tree, uint64_t node, const char *name, void *value, size_t size);
int cmek_tree_listxattr(struct cmek_tree *tree, uint64_t node, bool trusted, char *list, size_t size);
int cmek_tree_setxattr(struct cmek_tree *tree, uint64_t node, const char *name, const void *value, size_t size, int flags);
int cmek_tree_removexattr(struct cmek_tree *tree, uint64_t node, const char *name);

/*
 * Directory listing without open state. Calls emit for each entry from cookie `off` (0 = start) on until it returns
 * non-zero (the buffer is full; that entry is not consumed) or the directory ends. next_off is the cookie behind the
 * entry. plus: entry has node (a lookup more, except for "." and "..", which have node 0) and attributes; else, and
 * for an entry that can't be looked up now (a mount point of the store, no memory), node is 0, with only st_ino and the
 * type bits of st_mode. Entries that fail authentication are skipped and counted in *ret_bad.
 */
typedef int (*cmek_emit_fn)(void *arg, const char *name, const struct cmek_entry *entry, uint64_t next_off);
int cmek_tree_readdir(struct cmek_tree *tree, uint64_t node, uint64_t off, bool plus, cmek_emit_fn emit, void *arg,
		      unsigned *ret_bad);

/*
 * The same with `plus` for somebody of this program, who does not mind when names that move to another data key meanwhile are
 * told twice, or not at all. For others, that waits until their listings have ended.
 */
int cmek_tree_walk_dir(struct cmek_tree *tree, uint64_t node, uint64_t off, cmek_emit_fn emit, void *arg, unsigned *ret_bad);

/* fsync of a directory, with what its entries need (doc/format.md section 6). */
int cmek_tree_fsyncdir(struct cmek_tree *tree, uint64_t node, bool datasync);
/* After the store file of `node` was flushed for a user's fsync: what else its name needs to be durable. */
int cmek_tree_fsync_entry(struct cmek_tree *tree, uint64_t node);
/*
 * A new store descriptor of a file or directory (see struct cmek_content_host.open_store): O_RDONLY or O_RDWR, plus
 * O_DIRECTORY. -EINVAL for special files: they are never opened.
 */
int cmek_tree_open_store(struct cmek_tree *tree, uint64_t node, int flags);
/*
 * Whether the store file had data at the first look-up, or when whoever writes to it said so last: one that has none now
 * was emptied by somebody else. Both take short locks only.
 */
bool cmek_tree_has_data(struct cmek_tree *tree, uint64_t node);
void cmek_tree_set_data(struct cmek_tree *tree, uint64_t node, bool data);
/*
 * What a message says of a node: "inode 12 (AbC/DeF)", its number and where it was last seen in the store, which is of a long
 * path the end. From memory: no system call is made, and short locks only are taken.
 */
#define CMEK_TREE_WHERE_ROOM 360
void cmek_tree_where(struct cmek_tree *tree, uint64_t node, char text[CMEK_TREE_WHERE_ROOM]);
/* Of the store, names and blocks in plain terms. */
int cmek_tree_statfs(struct cmek_tree *tree, uint64_t kept_bytes, struct statvfs *ret_st);
int cmek_tree_syncfs(struct cmek_tree *tree);

#endif
