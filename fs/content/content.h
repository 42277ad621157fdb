/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_CONTENT_H
#define CMEK_CONTENT_CONTENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "fs/content/room.h"
#include "fs/volume/keyring.h"

/*
 * Plaintext ranges of regular files on encrypted store files: read, write, truncate, sync. Knows store descriptors and
 * keys; knows no names, no directories and no FUSE. Thread-safe throughout; readers and writers of one file run in
 * parallel except where they meet in one group.
 *
 * The state shared by all opens of one inode is a struct cmek_ofile, found by the node number. It lives while
 * somebody has it open or while it has changes that are not in the store yet. While it lives, its size and its
 * modification time are the truth, and the store's follow.
 */
struct cmek_content;
struct cmek_ofile;
struct cmek_overlay;
struct stat;

/* What the content layer asks of its host (the mount). Called with no lock held that the host could need. */
struct cmek_content_host {
	void *arg;
	/*
	 * A new store descriptor of the node's regular file, the caller closes it: read-write if `write`, else read-only,
	 * O_CLOEXEC, O_NOATIME where permitted. -errno.
	 */
	int (*open_store)(void *arg, uint64_t node, bool write);
	/*
	 * keep: the number means this file until let_go(), whoever else forgets it; -ESTALE: it means none. There is one keep for
	 * each file that is open or has changes. Both may be NULL.
	 */
	int (*keep)(void *arg, uint64_t node);
	void (*let_go)(void *arg, uint64_t node);
	/* Something worth a log line happened to the inode: what is one of the texts of doc/operations.md. */
	void (*report)(void *arg, uint64_t node, int error, const char *what);
	/*
	 * The store file has data from now on, or none: kept with the node. Told when it changes, with the file's locks held.
	 * May be NULL.
	 */
	void (*set_data)(void *arg, uint64_t node, bool data);
	/* What was told last of the node, or what its look-up found: one that is empty all the same was emptied. May be NULL. */
	bool (*has_data)(void *arg, uint64_t node);
	/* Flushes the whole store (syncfs): the journal's checkpoint. 0 or -errno. */
	int (*flush_store)(void *arg);
	/* The volume has turned read-only, as reported: see cmek_content_failed(). May be NULL. */
	void (*failed)(void *arg);
};

struct cmek_content_params {
	uint32_t block_size;      /* 4096..65536, a power of two */
	bool read_only;           /* nothing is ever written */
	const struct cmek_overlay *overlay; /* read_only: what a replay would have written (cmek_replay_overlay()); borrowed */
	uint64_t held_max_bytes;  /* encrypted changes held in memory before writers wait; 0 = 64 MiB */
	uint64_t map_cache_bytes; /* decoded map pages kept; 0 = 64 MiB */
	unsigned max_keys;        /* content keys kept; 0 = 4096 */
	unsigned commit_ms;       /* changes go to the store after this at the latest; 0 = 5000 */
	struct cmek_room *room;   /* with a reserve for what finds no other place; borrowed, NULL = none */
	/* The journal, emptied by cmek_replay(). */
	bool no_journal;
	int meta_fd;              /* STORE/.cmekfs, borrowed while cmek_content_new() runs */
	uint8_t volume[16];
	uint64_t journal_bytes;   /* 0 = as it is, or the default */
	uint32_t dek_next;        /* of the header */
	const char *store_path;   /* the store's directory as /proc/self/fd shows it, for records; NULL = none; borrowed */
};

/* Starts the committer thread (so: after the last fork). The host struct is copied, the ring borrowed. */
int cmek_content_new(struct cmek_keyring *ring, const struct cmek_content_host *host,
		     const struct cmek_content_params *params, struct cmek_content **ret_content,
		     struct cmek_error *err);
/* Commits everything, stops the thread, frees. Returns the first error of the last commit, or why it failed. NULL allowed. */
int cmek_content_free(struct cmek_content *content);
/* Every change of every file into the store, which the caller then flushes as a whole (syncfs, orderly unmount). */
int cmek_content_commit_all(struct cmek_content *content);

/*
 * Locking the volume. suspend: every change into the store and that flushed, the journal emptied, derived keys let go of;
 * from then on nothing here needs a key, what cannot be written stays in memory, and whoever wants to write is told
 * -EKEYREVOKED. Nobody may read or write meanwhile. 0, or the first error of what could not be written: it is suspended
 * all the same. resume: after the ring was filled again; an error is of the journal, and is told by every sync from then on.
 */
int cmek_content_suspend(struct cmek_content *content);
int cmek_content_resume(struct cmek_content *content);

/* What it has to do and has done, for people. */
struct cmek_content_status {
	uint64_t files;            /* known to be open, or with changes */
	uint64_t waiting_files;    /* with changes that are not in the store */
	uint64_t waiting_bytes;    /* held in memory for that */
	uint64_t oldest_ms;        /* how long the oldest of those has waited; 0 = none */
	uint64_t map_pages;        /* decoded, in memory */
	/* since the mount: */
	uint64_t read_bytes, written_bytes; /* of users */
	uint64_t map_hits, map_misses;      /* map pages that were in memory, or had to be read */
	uint64_t key_hits, key_misses;      /* content keys that were in memory, or had to be derived */
	bool has_journal;
	uint64_t journal_length_bytes, journal_used_bytes;
	uint64_t journal_records;  /* that a replay would read */
	uint64_t journal_oldest_ms; /* how long the oldest of those has been there; 0 = none */
	uint64_t journal_appends, journal_flushes, journal_checkpoints, journal_appended_bytes;
	int journal_error;         /* -errno; after one nothing is appended any more */
};
void cmek_content_status(struct cmek_content *content, struct cmek_content_status *ret_status);

/*
 * 0, or why no change is taken any more (-EROFS for whoever tries): a durable change could not be written in place, or
 * the journal failed. What was answered for is in the journal, and reads see it, until the end of the mount.
 */
int cmek_content_failed(const struct cmek_content *content);

/*
 * Opens, or joins those who have it open. fd: a read-write store descriptor the caller already has (just created),
 * taken over, or -1. trunc: empties the file in the same step (O_TRUNC). Each success is paired with cmek_ofile_close().
 * -EMFILE: the descriptors that are left are kept for other things (base/fds.h).
 */
int cmek_ofile_open(struct cmek_content *content, uint64_t node, int fd, bool trunc, struct cmek_ofile **ret_file);
/* The same for a single request, which is one of those other things. */
int cmek_ofile_open_briefly(struct cmek_content *content, uint64_t node, struct cmek_ofile **ret_file);
/*
 * Descriptors ran out: brings the changes of files that nobody has open to the store, which lets go of theirs. False: there
 * are none, or it did not work.
 */
bool cmek_content_commit_closed(struct cmek_content *content);
/* One open less. Errors of earlier deferred work are told by cmek_ofile_flush(), not here. */
void cmek_ofile_close(struct cmek_ofile *file);
/* It has changes that are not in the store yet. */
bool cmek_ofile_is_dirty(struct cmek_ofile *file);
/*
 * Nobody will ask for the node any more unless it is looked up again. The changes of a file that has no name are dropped, and
 * with them the last that holds its room in the store; others go the way they would have gone.
 */
void cmek_content_forgotten(struct cmek_content *content, uint64_t node);
/*
 * The live state of a node with a reference for the caller, or NULL when it has none, or is just being opened (then the store
 * is the truth).
 */
struct cmek_ofile *cmek_ofile_find(struct cmek_content *content, uint64_t node);

/* Bytes read (0 at or past the end) or -errno: -EBADMSG for data that does not authenticate, -EIO. */
ssize_t cmek_content_read(struct cmek_ofile *file, void *buf, size_t len, uint64_t off);
/* All of it or -errno: -EFBIG, -ENOSPC, -EDQUOT, -EIO, -EROFS. */
int cmek_content_write(struct cmek_ofile *file, const void *buf, size_t len, uint64_t off);
/*
 * The same for a page that a user changed earlier (a write-back): the modification time stays as it is, whoever had the
 * page tells it with cmek_ofile_set_mtime(), before or after.
 */
int cmek_content_write_back(struct cmek_ofile *file, const void *buf, size_t len, uint64_t off);
int cmek_content_truncate(struct cmek_ofile *file, uint64_t size);
/*
 * fallocate(2): mode 0 (the range gets room in the store, and the file at least that size), FALLOC_FL_KEEP_SIZE,
 * FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE with and without it; others, and room where the
 * store has no such call: -EOPNOTSUPP. len 0: -EINVAL. Otherwise as cmek_content_write_back(): the time is not set.
 */
int cmek_content_fallocate(struct cmek_ofile *file, int mode, uint64_t off, uint64_t len);
/*
 * lseek(2) with SEEK_DATA or SEEK_HOLE, in whole blocks: -ENXIO behind the end, or behind the last data. Of what the host
 * still has in a cache above this layer it knows nothing.
 */
int cmek_content_seek(struct cmek_ofile *file, int whence, uint64_t off, uint64_t *ret_off);
/*
 * All changes durable, and every error that was not told yet (it stays until the last close). With a journal the store
 * file itself is flushed only when its metadata is not known to be durable: the first time after an opening, and after
 * cmek_ofile_metadata_changed().
 */
int cmek_content_sync(struct cmek_ofile *file, bool datasync);
/* The store file was linked, renamed, or got another mode or owner: the next sync has to flush that, too. */
void cmek_ofile_metadata_changed(struct cmek_ofile *file);
/*
 * A change of contents is about to come, and suid, sgid or a capability went because of it: as above, and the store file
 * is flushed before a record has that change, because replay leaves the file those that it has.
 */
void cmek_ofile_privs_gone(struct cmek_ofile *file);
/* A file or directory was renamed or removed: the paths of open files in the store may be others now. */
void cmek_content_names_changed(struct cmek_content *content);
/* Errors of deferred work, without waiting for any: what close(2) tells. */
int cmek_ofile_flush(struct cmek_ofile *file);
/* Changes into the store, in order, not flushed: before a rename over, a link, an unmapping. */
int cmek_content_commit(struct cmek_ofile *file);

/*
 * One step of moving a file to the active data key: of what is under another one, from `group` on, about max_bytes of
 * plaintext are sealed anew and committed like any change, at once or with others; readers and writers go on meanwhile. Times
 * stay. 0, or -errno of a commit: -EROFS, -EACCES (may only be read), -ENOSPC; -EKEYREVOKED when the volume is locked. What was
 * moved by then is.
 */
struct cmek_reencrypt_step {
	uint64_t group;       /* 0 at first; then where the next step begins */
	uint16_t dek;         /* the data key that was active */
	uint64_t moved_bytes; /* plaintext, in this step */
	uint64_t moved_pages; /* map pages that had to be sealed anew for themselves */
	uint64_t bad;         /* blocks, and groups, that don't open: they stay as they are */
	bool done;            /* nothing of the file is under another data key, but for what is bad */
};
int cmek_content_reencrypt(struct cmek_ofile *file, uint64_t max_bytes, struct cmek_reencrypt_step *step);

/*
 * One step of proving that: what the store has of the file is read and authenticated, page by page, and told; the contents of
 * blocks are not. What waits in memory is committed first. Call it after cmek_content_reencrypt() has come to the end of the
 * file. 0, or -errno of a commit or of the store.
 */
struct cmek_verify_step {
	uint64_t group;    /* 0 at first; then where the next step begins */
	uint64_t pages, blocks; /* looked at, in this step: map pages, and blocks that they name */
	uint64_t old;      /* pages and blocks under another data key than the active one */
	uint64_t bad;      /* pages that don't open */
	bool done;
};
int cmek_content_verify(struct cmek_ofile *file, struct cmek_verify_step *step);
/*
 * After that was done for all files: nothing that a replay would read is under another data key than the active one. The
 * store is flushed, the journal's older records are freed, its superblocks are written anew. *seq: 0 at first; then the first
 * record that counts. -EAGAIN: to be called again, with *seq as it is.
 */
int cmek_content_renew_journal(struct cmek_content *content, uint64_t *seq);
/* Lets go of every derived key: a data key is retired. They are derived again when they are needed. */
void cmek_content_forget_keys(struct cmek_content *content);

/*
 * Whether the size that the store file had (cmek_content_plain_size(), what a look-up says) was the sealed one. Reads the
 * first map page if that was not done yet; true when it can't be read, reads will say why.
 */
enum cmek_size_check {
	CMEK_SIZE_TRUE,
	CMEK_SIZE_MENDED, /* the store file was longer and has been cut: asked anew, it says the truth */
	CMEK_SIZE_WRONG,  /* it is shorter than what is sealed, or longer and can't be cut */
};
enum cmek_size_check cmek_ofile_check_size(struct cmek_ofile *file);

/* Bytes that the store has set aside for the file behind its end (of one that has holes: less, or 0). */
uint64_t cmek_content_set_aside(struct cmek_ofile *file);

/* What the host (the mount) keeps with the state of a file, zero when that is new; nobody looks at it here. */
struct cmek_ofile_host {
	atomic_uint privs; /* ops_xattr.c */
	atomic_bool asks, grew; /* ops_room.c */
};
struct cmek_ofile_host *cmek_ofile_host(struct cmek_ofile *file);

/* Plain size, and the modification time if this layer knows better than the store (true). */
uint64_t cmek_ofile_size(const struct cmek_ofile *file);
bool cmek_ofile_mtime(struct cmek_ofile *file, struct timespec *ret_mtime);
/* The user set the modification time: later deferred writes keep it. */
void cmek_ofile_set_mtime(struct cmek_ofile *file, struct timespec mtime);

/*
 * What an overlay says of a regular file that nobody has open: *st has dev and ino of the store file, and gets the size
 * and the mtime of its last state. Does nothing without an overlay.
 */
void cmek_content_stat(const struct cmek_content *content, struct stat *st);

/* Plain size of a closed file from its stored size (doc/format.md section 5.1); no I/O. */
uint64_t cmek_content_plain_size(uint32_t block_size, uint64_t stored_size);

#endif
