/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_OPS_H
#define CMEK_MOUNT_OPS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "fs/content/content.h"
#include "fs/mount/fuse.h"
#include "fs/mount/reply.h"
#include "fs/mount/wire.h"
#include "fs/tree/tree.h"

#define CMEK_LISTED 1024

/*
 * One thin handler for each FUSE request: arguments to the tree or the content, the result to reply.h. Handlers run in
 * any number of threads at once and keep no state of their own. A file handle is the node's number (with a bit for some
 * directories), so that it means the same to a daemon that takes over; which requests come in pairs (open and release)
 * is the kernel's to keep.
 */
struct cmek_ops {
	struct cmek_tree *tree;
	struct cmek_content *content;
	struct cmek_reply_timeouts timeouts;
	bool refuse_listing_cache;  /* the kernel keeps no listings (allow_root) */
	atomic_bool listed[CMEK_LISTED]; /* ops_dir.c: by directory, whether an open uses the listing that the kernel keeps */
	bool kernel_sets_mtime;     /* the kernel keeps dirty pages, and then the modification times of what is written */
	pthread_key_t read_buffer;
	struct cmek_wire wire;
	struct fuse_session *session; /* for notes to the kernel */
	/* Something stored failed authentication, see struct cmek_reply_site; may be NULL */
	void (*unauthentic)(void *arg, uint64_t node, uint64_t offset, const char *what);
	void *unauthentic_arg;
	struct cmek_laters *laters; /* ops_later.c; NULL: the kernel has no data that we don't know of */
	struct cmek_room *room;   /* borrowed; NULL: nothing is refused for want of it */
	atomic_uint_fast64_t commit_again_ms, removed_ms; /* ops_room.c */
	bool asks_before_writes;  /* the kernel does, of a file whose attributes it does not know: ops_room.c */
};

/* The longest read the kernel asks for, and the longest write. */
#define CMEK_IO_MAX (1u << 20)

int cmek_ops_init(struct cmek_ops *ops, struct cmek_tree *tree, struct cmek_content *content, bool cached);
void cmek_ops_done(struct cmek_ops *ops);

static inline struct cmek_ops *cmek_ops_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* Whose a new entry is. */
struct cmek_cred cmek_ops_caller(fuse_req_t req);

/* For a request on a node that isn't about a place in its data. */
static inline struct cmek_reply_site cmek_site(const char *what, uint64_t node)
{
	struct cmek_reply_site site = { what, node, UINT64_MAX };

	return site;
}

/*
 * Puts over the store's attributes what the content layer knows better: size and modification time of a file that has
 * changes which are not in the store yet.
 */
void cmek_ops_overlay(struct cmek_ops *ops, uint64_t node, struct stat *st);
/*
 * Changes of a file into the store before its name does something that must not overtake them (doc/format.md
 * section 6). Nothing to do for what is no file, or has none.
 */
int cmek_ops_commit(const struct cmek_ops *ops, uint64_t node);
/* The node's name, links, mode or owner changed: a sync of it has to see to that, too. */
void cmek_ops_metadata_changed(const struct cmek_ops *ops, uint64_t node);

/* ops_dir.c */
void cmek_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void cmek_op_forget(fuse_req_t req, fuse_ino_t node, uint64_t n_lookups);
void cmek_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void cmek_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void cmek_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void cmek_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void cmek_op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t new_parent, const char *new_name);
void cmek_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void cmek_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void cmek_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		    unsigned flags);
void cmek_op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void cmek_op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off, struct fuse_file_info *fi);
void cmek_op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t off, struct fuse_file_info *fi);
void cmek_op_releasedir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void cmek_op_fsyncdir(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi);

/* ops_file.c */
void cmek_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void cmek_op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void cmek_op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t off, struct fuse_file_info *fi);
void cmek_op_write(fuse_req_t req, fuse_ino_t node, const char *data, size_t size, off_t off,
		   struct fuse_file_info *fi);
void cmek_op_fsync(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi);
void cmek_op_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
/* The calling thread's buffer of CMEK_IO_MAX bytes, page-aligned, left out of dumps; NULL: no memory. */
void *cmek_ops_read_buffer(const struct cmek_ops *ops);
/* Clears the calling thread's buffer. */
void cmek_ops_forget_thread(const struct cmek_ops *ops);

/* ops_space.c */
void cmek_op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void cmek_op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence, struct fuse_file_info *fi);

/* ops_later.c: what is done when the kernel has dropped what it keeps of a node. */
struct cmek_later {
	const char *what; /* the request, for the log */
	struct cmek_later *next; /* of the queue */
	uint64_t node;
	bool is_new; /* the kernel hears of the node now, and does not know it yet */
	off_t drop_from; /* pages from here on, the dirty ones written back first; -1: the attributes only */
	/* Answers the request; NULL: there is none. */
	void (*answer)(struct cmek_ops *ops, const struct cmek_later *later);
	fuse_req_t req;
	/* of lseek */
	uint64_t off;
	int whence;
};
void cmek_ops_later(struct cmek_ops *ops, const struct cmek_later *later);
/*
 * For a kernel that holds dirty pages: starts the thread that does it. From cmek_ops_laters_close() on, which waits for the one
 * under way, requests are refused: the session may then stop serving.
 */
int cmek_ops_laters_start(struct cmek_ops *ops);
void cmek_ops_laters_close(struct cmek_ops *ops);
void cmek_ops_laters_wait(struct cmek_ops *ops); /* until none is under way */
void cmek_ops_laters_end(struct cmek_ops *ops); /* nobody serves any more */

/* ops_room.c: -ENOSPC: the store is nearly full, and no room is to be set aside up to `end` of a file; else 0. */
int cmek_ops_check_room(struct cmek_ops *ops, uint64_t end);
/* Something was removed, of which there may be room in a moment. */
void cmek_ops_removed(struct cmek_ops *ops);
/* -ENOSPC: there is no such entry, and nothing new is begun any more; else 0. */
int cmek_ops_check_new(struct cmek_ops *ops, uint64_t parent, const char *name);
/* -ENOSPC: the file is not that long, and is not to grow so far; else 0. */
int cmek_ops_check_size(struct cmek_ops *ops, struct cmek_ofile *file, uint64_t end);
/*
 * The file is about to grow, or has grown by what the kernel had taken. True: there is little room, so that the kernel is to
 * ask before it takes more.
 */
bool cmek_ops_grows(const struct cmek_ops *ops, struct cmek_ofile *file);
bool cmek_ops_grew(const struct cmek_ops *ops, struct cmek_ofile *file);
/* Has it do so: attributes of such a file, which it has, or is being told, it does not keep. Of others: nothing. */
void cmek_ops_ask_again(struct cmek_ops *ops, uint64_t node, struct cmek_ofile *file);
/*
 * The same before the answer to a request for them (GETATTR), which the kernel then gives to who asked and does not keep: so
 * there is no moment in which it has them, as there is with the other, and who calls stat(2) before each write(2) has the
 * second one unasked. Whoever asks has the inode, so that the kernel has not to wait for it.
 */
void cmek_ops_keep_asking(struct cmek_ops *ops, uint64_t node, struct cmek_ofile *file);
/* Whether it was to. What it has of the file from *ret_off on is to be written back, then it can be said if it may go on. */
bool cmek_ops_asks(const struct cmek_ops *ops, uint64_t node, uint64_t *ret_off);
int cmek_ops_check_write(struct cmek_ops *ops, uint64_t node); /* 0, -ENOSPC */

/* ops_xattr.c */
void cmek_op_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size);
void cmek_op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size);
void cmek_op_setxattr(fuse_req_t req, fuse_ino_t node, const char *name, const char *value, size_t size, int flags);
void cmek_op_removexattr(fuse_req_t req, fuse_ino_t node, const char *name);
/*
 * The caller changes a file: takes its capabilities away, and suid and sgid if suidgid (the caller can't keep them).
 * What is known to be gone costs nothing. 0 or -errno.
 */
int cmek_ops_kill_privs(fuse_req_t req, uint64_t node, struct cmek_ofile *file, bool suidgid);
/* chown(-1, -1) changes no owner and takes privileges away all the same. -EPERM: by somebody else. */
int cmek_ops_chown_nothing(fuse_req_t req, uint64_t node);
/* Mode, owner or capabilities of the node were set. */
void cmek_ops_privs_changed(const struct cmek_ops *ops, uint64_t node);

/* ops_attr.c */
void cmek_op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void cmek_op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *attr, int to_set, struct fuse_file_info *fi);
void cmek_op_readlink(fuse_req_t req, fuse_ino_t node);
void cmek_op_statfs(fuse_req_t req, fuse_ino_t node);

#endif
