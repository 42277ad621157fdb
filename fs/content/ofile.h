/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_OFILE_H
#define CMEK_CONTENT_OFILE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/fds.h"
#include "fs/content/absent.h"
#include "fs/content/content.h"
#include "fs/content/journal.h"
#include "fs/content/key_cache.h"
#include "fs/content/map_page.h"
#include "fs/content/overlay.h"

/*
 * The inside of the content layer, shared by its own files only.
 *
 * Locks, in the order they are taken (doc/locking.md):
 *   file.commit_lock  -> file.lock -> group.lock -> file.dirty_lock, file.absent_lock
 *   content.files_lock and content.groups_lock: short, nothing is taken under them, no I/O.
 */

/* An encrypted block that is newer than the store's. Owned by its group; immutable, but for room. */
struct cmek_held {
	uint64_t version; /* content.held_version when it came; later ones are higher */
	uint32_t len;
	uint32_t room; /* promised for it, see cmek_room_promise(); under group.lock */
	uint8_t data[];
};

/*
 * The decoded map page of one group, with the blocks that wait. In memory while somebody uses it (refs > 0, which a
 * dirty one always has), then for as long as the cache has room.
 */
struct cmek_group {
	/* constant */
	struct cmek_ofile *file;
	uint64_t index;
	/* content.groups_lock */
	struct cmek_group *hash_next;
	struct cmek_group *file_prev, *file_next; /* all groups of the file */
	struct cmek_group *lru_prev, *lru_next;   /* only while refs == 0 */
	unsigned refs;
	/* set once, under lock */
	atomic_bool loaded;
	/* lock: shared to read entries and blocks, exclusive to change them or what they describe in the store */
	pthread_rwlock_t lock;
	bool dirty;                /* on file.dirty, the page in the store is older */
	uint16_t page_dek;         /* of the page as it was last read or sealed; 0: there is none */
	atomic_uint n_held;        /* read without the lock as an estimate */
	/*
	 * Bit i: nothing new goes to block i in place. The map page in the store, or a record, has an entry for it, or it
	 * was punched since then and the store may still have to free it: then its entry is a hole.
	 */
	uint64_t live[2];
	struct cmek_held *held[CMEK_GROUP_BLOCKS];
	uint8_t entries[CMEK_MAP_ENTRIES_BYTES];
	/* file.dirty_lock */
	struct cmek_group *dirty_next;
};

struct cmek_ofile {
	/* constant */
	struct cmek_content *content;
	uint64_t node;
	struct cmek_ofile_host host; /* the host's */
	/* content.files_lock */
	struct cmek_ofile *hash_next;
	struct cmek_ofile *queue_prev, *queue_next; /* while queued */
	unsigned refs;
	uint64_t queued_ms; /* when it was queued, monotonic */
	atomic_bool queued; /* waits for the committer; written under files_lock */
	/* content.groups_lock */
	struct cmek_group *groups;
	/* one commit at a time; outermost */
	pthread_mutex_t commit_lock;
	struct cmek_file_handle handle; /* of the store file, for records */
	bool has_handle;                /* it was asked for; an open file keeps it */
	char *path;                     /* of the store file when content.name_changes was path_names; NULL = not asked for */
	unsigned path_names;
	/* Durable commits that are not in place; guarded by commit_lock, or read to see if there are any. */
	_Atomic(struct cmek_stuck *) stuck;
	/* lock: shared for reads, writes inside the size and commits; exclusive for whatever changes the fields below */
	pthread_rwlock_t lock;
	int fd;             /* of the store file; -1 until opened */
	atomic_bool live;   /* it was opened: from here on this is the truth about it, and not the store */
	bool writable;      /* fd is read-write */
	const struct cmek_last_state *over; /* what the overlay has of it, mostly NULL */
	atomic_bool loaded; /* group 0 was read: size, file_id, absent are true */
	atomic_int size_check; /* enum cmek_size_check, what loading found */
	bool has_id;
	bool id_logged;     /* a record or the store's first page has this file id; guarded by commit_lock */
	uint64_t punched_first, punched_end; /* groups that become absent, in one commit that holds lock exclusively */
	uint64_t sealed_size; /* the size that the newest record, or the store's first page, has; guarded by commit_lock */
	/* What is not known to be durable of the store file itself: changes counted, and how many a flush has covered. */
	atomic_uint metadata_changes, metadata_flushed;
	atomic_bool privs_gone; /* not known to be durable: that the store file lost suid, sgid or its capability */
	atomic_bool touched; /* a durable record says that fresh data is being written in place; ends under dirty_lock */
	struct cmek_journal_touch *touch; /* that one; guarded by commit_lock */
	uint8_t file_id[CMEK_FILE_ID_LEN];
	_Atomic uint64_t size;
	atomic_bool rewritten; /* it was emptied, and what it had is gone for good: its last close commits what it has now */
	atomic_bool cut_waits; /* no record has the last cut yet: what was cut off may be back after a crash */
	int has_data; /* what the host knows of that: -1 as the file was found, else 0 or 1; guarded by commit_lock */
	bool fitted; /* the store file ends where a commit of this size left it; written under commit_lock, too */
	/* dirty_lock: the rest */
	pthread_mutex_t dirty_lock;
	struct cmek_group *dirty; /* groups to write, each with a reference */
	atomic_uint n_dirty;
	bool size_dirty;          /* the sealed size in the store is older */
	bool mtime_dirty;         /* the store's mtime is not mtime */
	bool free_holes;          /* the store shall free what has become a hole */
	unsigned in_place_writers; /* who write fresh data in place, under the touch, just now */
	bool in_place_since;       /* one of them began, or was at it, since the newest commit was prepared */
	bool mtime_valid;
	struct timespec mtime;
	atomic_int error;         /* first error of deferred work, until the last close */
	atomic_uint_fast64_t held_bytes;
	/* absent_lock (and file.lock shared at least) */
	pthread_mutex_t absent_lock;
	struct cmek_absent absent;
};

struct cmek_content {
	/* constant */
	struct cmek_keyring *ring;
	struct cmek_content_host host;
	struct cmek_content_params params;
	struct cmek_key_cache *keys;
	struct cmek_journal *journal; /* NULL: none */
	uint8_t mount_id[16];
	atomic_bool suspended; /* the volume is locked: nothing is committed */
	struct cmek_fds fds;
	size_t max_queued; /* files with changes, beyond which they are committed without waiting for their time */
	pthread_key_t scratch;
	pthread_t committer;
	/* files_lock: the table of files and the queue of those with changes, oldest first */
	pthread_mutex_t files_lock;
	pthread_cond_t files_cond; /* the committer waits */
	struct cmek_ofile **files;
	size_t n_files;
	struct cmek_ofile *queue_head, *queue_tail;
	atomic_size_t n_queued;
	bool stopping;
	bool committing;          /* the committer is at work */
	pthread_cond_t idle_cond; /* it has ended that */
	/* groups_lock: the cache of groups */
	pthread_mutex_t groups_lock;
	struct cmek_group **groups;
	struct cmek_group *lru_head, *lru_tail; /* head = oldest */
	size_t n_groups, max_groups, n_buckets;
	atomic_int failed;                   /* why the volume has turned read-only; 0 = it has not */
	atomic_uint name_changes;            /* of files and directories, counted */
	atomic_uint_fast64_t space_until_ms; /* up to then the store counts as far from full; monotonic */
	/* held everywhere */
	atomic_uint_fast64_t held_bytes, held_version;
	/* since the mount */
	atomic_uint_fast64_t read_bytes, written_bytes; /* of users */
	atomic_uint_fast64_t group_hits, group_misses;
};

/* Per-thread buffers: ciphertext of one write, plaintext of one block (wiped after use). */
struct cmek_scratch {
	uint8_t *stored; /* CMEK_RUN_MAX + CMEK_BLOCK_MAX bytes */
	uint8_t *plain;  /* CMEK_BLOCK_MAX bytes */
};
#define CMEK_RUN_MAX (1u << 20)
struct cmek_scratch *cmek_scratch_get(struct cmek_content *content); /* NULL: no memory */

/* content.c: the store or the journal can't be relied on any more: from now on nothing is changed. Told once. */
void cmek_content_fail(struct cmek_content *content, int error, const char *why);

/* ofile.c: the table of files, used by content.c and commit.c. */
int cmek_ofile_table_new(struct cmek_content *content);
/* Forgets every file, with changes that could not be written; nobody may have one open any more. */
void cmek_ofile_table_drop(struct cmek_content *content);
/*
 * Takes the file that has waited longest off the queue if that is min_age_ms or more, with a reference for the caller;
 * else NULL, and *ret_wait_ms says how long to wait.
 */
struct cmek_ofile *cmek_ofile_dequeue(struct cmek_content *content, uint64_t min_age_ms, uint64_t *ret_wait_ms);
/* Whether a file waits that nobody has open. */
bool cmek_ofile_any_closed(struct cmek_content *content);
/* How long the file that has waited longest has waited; 0: none waits. */
uint64_t cmek_ofile_oldest_ms(struct cmek_content *content);
/*
 * Drops the changes of a file that has no name any more and that only the caller has: nobody would read them. False: it is not
 * such a file.
 */
bool cmek_ofile_abandon(struct cmek_ofile *file);
/* Gives a reference back without trying to commit. */
void cmek_ofile_unref(struct cmek_ofile *file);

/* ofile.c: reads group 0 if it was not yet. Call without file.lock. 0 or -errno. */
int cmek_ofile_load(struct cmek_ofile *file);
/* Puts the file on the committer's queue if it isn't. After the change itself was marked. */
void cmek_ofile_queue(struct cmek_ofile *file);
/* Records an error of deferred work. */
void cmek_ofile_fail(struct cmek_ofile *file, int error, const char *what);
/* A write happened now: the modification time is known here from now on. */
void cmek_ofile_touch(struct cmek_ofile *file);
/* Size changed; file.lock held exclusively. */
void cmek_ofile_set_size_locked(struct cmek_ofile *file, uint64_t size);

/*
 * The right to seal n times, bytes in all at the most, and the file's content key for it (freed by the caller). Errors of
 * keyring and key cache.
 */
int cmek_ofile_seal_key(struct cmek_ofile *file, uint32_t n, uint64_t bytes, struct cmek_seal_right *ret_right,
			struct cmek_secret **ret_key);
/*
 * Reads and opens the stored page of a group; any of ret_entries' bytes may be written on failure. With file.has_id it
 * must have the file's id. -EBADMSG also when the store file ends before it.
 */
int cmek_ofile_read_page(struct cmek_ofile *file, uint64_t group, struct cmek_map_head *ret_head,
			 uint8_t ret_entries[CMEK_MAP_ENTRIES_BYTES], struct cmek_map_trailer *ret_trailer);

/* Stored bytes of a block, from the overlay or the store: how many (short at the end of the file), or -errno. */
ssize_t cmek_ofile_read_block(struct cmek_ofile *file, uint64_t block, void *buf, size_t len);
/* The store does not have this block's newest version, the overlay has. */
static inline bool cmek_ofile_is_overlaid(const struct cmek_ofile *file, uint64_t block)
{
	return file->over != NULL && cmek_last_image_find(file->over, CMEK_PLACE_BLOCK(block)) != NULL;
}

/*
 * group.c: the group with a reference, its page loaded. fresh: the caller overwrites all of it, so a page that can't be
 * read does not matter. file.lock is held (either way). -EBADMSG, -EIO, -ENOMEM.
 */
int cmek_group_get(struct cmek_ofile *file, uint64_t index, bool fresh, struct cmek_group **ret_group);
/* The group only if it is in memory, else NULL. */
struct cmek_group *cmek_group_peek(struct cmek_ofile *file, uint64_t index);
void cmek_group_put(struct cmek_group *group);
/* Marks as different from the store (group.lock held exclusively). */
void cmek_group_dirty_locked(struct cmek_group *group);
/* Drops groups first..end-1 with all that waits in them; file.commit_lock and file.lock held exclusively. */
void cmek_group_drop_range(struct cmek_ofile *file, uint64_t first, uint64_t end);
/* The lowest index from `first` on of the groups in memory; UINT64_MAX: none. All with changes are. */
uint64_t cmek_group_next_in_memory(struct cmek_ofile *file, uint64_t first);
/* Puts a sealed block to the held ones / removes one; group.lock held exclusively. NULL held = just remove. */
void cmek_group_hold_locked(struct cmek_group *group, unsigned i, struct cmek_held *held);

static inline uint8_t *cmek_group_entry(struct cmek_group *group, unsigned i)
{
	return group->entries + i * CMEK_ENTRY_BYTES;
}

static inline bool cmek_group_is_live(const struct cmek_group *group, unsigned i)
{
	return group->live[i / 64] >> (i % 64) & 1;
}

/* write.c: 0 if a file may be written to and have this size: -EROFS, -EACCES, -EFBIG. */
int cmek_content_check_write(const struct cmek_ofile *file, uint64_t size);
/* Writers stand back while too much waits; called with no lock held. */
int cmek_content_make_room(struct cmek_ofile *file);
/* Makes the file larger if it is smaller than size; called with no lock held. */
int cmek_content_extend(struct cmek_ofile *file, uint64_t size);
/* Zeros in a part of a block; file.lock is held, either way. */
int cmek_block_zero(struct cmek_group *group, uint64_t block, uint32_t from, uint32_t len);

/* read.c: plaintext of one whole block into plain (len bytes, its plain length); group.lock held, either way. */
int cmek_block_read_locked(struct cmek_group *group, uint64_t block, uint32_t len, uint8_t *plain);

/* commit.c: before the file is freed. Records that are not in place stay in the journal, for the next mount. */
void cmek_commit_drop_records(struct cmek_ofile *file);
/* Something waits to go to the store. */
bool cmek_commit_needed(struct cmek_ofile *file);

/* sync.c: a commit while file.commit_lock and file.lock are held exclusively. Errors are recorded by the caller. */
int cmek_commit_exclusive(struct cmek_ofile *file);
/*
 * Before fresh data goes in place: a durable record that names the file and its sealed size, once for each commit of
 * the file. -EAGAIN: not now, because of too many others. Call with no lock held.
 */
int cmek_commit_touch(struct cmek_ofile *file);
/* So much waits that the committer should not. */
bool cmek_content_is_pressed(struct cmek_content *content);
/* The committer thread; arg is the content. */
void *cmek_committer_main(void *arg);

#endif
