/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_VOLHDR_STORE_H
#define CMEK_VOLUME_VOLHDR_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/volume/volhdr.h"

/*
 * The two header copies in a store, and the lock that keeps a second writer out. One thread at a time per handle.
 *
 * A handle has the copies as they were when it was opened, the better one picked. At every point in time one copy on
 * the disk is whole: a copy is replaced (temporary, fsync, rename, fsync of the directory), the older or bad one first.
 */
#define CMEK_META_DIR ".cmekfs"
#define CMEK_ROOT_LINK ".cmekfs.dir"

enum cmek_store_access {
	CMEK_STORE_PEEK,  /* no lock: to show a header, nothing else */
	CMEK_STORE_READ,  /* shared lock: many read-only mounts and checks, no writer */
	CMEK_STORE_WRITE, /* exclusive lock */
	/*
	 * The header alone, of a volume that may be mounted: the lock of the header, held until close. Waits for another
	 * program that changes the header, CMEK_HEADER_WAIT_MS at the longest.
	 */
	CMEK_STORE_CHANGE,
	CMEK_STORE_CHANGE_NOW, /* the same without a wait: busy when another program changes the header */
};
#define CMEK_HEADER_WAIT_MS 30000

/* What a library has to say that is no error: one line without newline. NULL function = not wanted. */
struct cmek_report {
	void (*line)(void *arg, const char *text);
	void *arg;
};
void cmek_report(const struct cmek_report *report, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct cmek_volhdr_store;

/*
 * Opens the store directory's volume: store_fd is borrowed for the call. The lock lasts until close, in all processes
 * that inherited it. A bad copy beside a good one is reported.
 * Kinds: not-found (no volume here), busy (-EBUSY, another mount or program), bad-format (no copy is good: both are
 * told), unsupported, key-destroyed (-EIDRM: it was shredded, and no newer header was put there since), system.
 */
int cmek_volhdr_store_open(int store_fd, enum cmek_store_access access, const struct cmek_report *report,
			   struct cmek_volhdr_store **ret_store, struct cmek_error *err);
void cmek_volhdr_store_close(struct cmek_volhdr_store *store); /* NULL allowed */

/*
 * Reads the copies again, of which others may have written newer ones (CMEK_STORE_CHANGE), and picks anew. On failure all
 * is as it was. The locks stay.
 */
int cmek_volhdr_store_reload(struct cmek_volhdr_store *store, struct cmek_error *err);

enum cmek_store_access cmek_volhdr_store_access(const struct cmek_volhdr_store *store);
/* The picked header, borrowed: valid until the store is closed, yielded or updated. */
const struct cmek_volhdr *cmek_volhdr_store_header(const struct cmek_volhdr_store *store);
/* The picked copy is not to be trusted: picks the other one for good, or -ENOENT when it is bad or was yielded too. */
int cmek_volhdr_store_yield(struct cmek_volhdr_store *store);
/* True when the copies differ, or one is bad. */
bool cmek_volhdr_store_unequal(const struct cmek_volhdr_store *store);
/* A copy of the picked header, the caller's: to be changed, for cmek_volhdr_store_update(). */
int cmek_volhdr_store_copy(const struct cmek_volhdr_store *store, struct cmek_volhdr **ret_hdr, struct cmek_error *err);
/* The picked copy as it stands on the disk, borrowed like the header, and which one it is ("header.0"). */
const uint8_t *cmek_volhdr_store_bytes(const struct cmek_volhdr_store *store, size_t *ret_len, const char **ret_name);
/*
 * Makes the other copy equal to the picked one, which the caller has verified. Needs CMEK_STORE_WRITE or _CHANGE.
 * Kind busy when somebody else changes the header, or has.
 */
int cmek_volhdr_store_repair(struct cmek_volhdr_store *store, struct cmek_error *err);
/*
 * Writes a changed header as both copies, with the next sequence number. Needs CMEK_STORE_WRITE, which waits for the
 * lock of the header as long as CMEK_STORE_CHANGE does, or _CHANGE. Kind busy, -ESTALE, when the copies on the
 * disk are not the ones that were read. When it fails the volume has the old header, and *hdr is still the caller's;
 * or the new one, when it got so far that one copy has it: *hdr is then taken over (nulled) and picked, as on success.
 * Either way the handle can be used on.
 */
int cmek_volhdr_store_update(struct cmek_volhdr_store *store, struct cmek_volhdr **hdr,
			     const struct cmek_secret *mac_key, struct cmek_error *err);

/*
 * For a header that comes from elsewhere, or is to go: opens the volume with CMEK_STORE_WRITE or _CHANGE, whatever its
 * copies are. There is no picked header when none is usable, or they belong to two volumes: cmek_volhdr_store_header() is
 * NULL then, and of the other functions only _close(), _access(), _claim(), _problem() and _put() may be called.
 */
int cmek_volhdr_store_open_any(int store_fd, enum cmek_store_access access, struct cmek_volhdr_store **ret_store,
			       struct cmek_error *err);
/*
 * With CMEK_STORE_CHANGE: the volume's exclusive lock as well, so that nobody can mount it until close. Kind busy, -EBUSY:
 * it is mounted, or read by a program.
 */
int cmek_volhdr_store_claim(struct cmek_volhdr_store *store, struct cmek_error *err);
/* The highest sequence number of anything that is there, a tombstone included; 0: nothing is whole. */
uint64_t cmek_volhdr_store_newest(const struct cmek_volhdr_store *store);
/* True when a tombstone is among the copies. */
bool cmek_volhdr_store_shredded(const struct cmek_volhdr_store *store, struct cmek_tombstone *ret_tombstone);
/* Writes *hdr as both copies, with its own sequence number; otherwise as cmek_volhdr_store_update(). */
int cmek_volhdr_store_put(struct cmek_volhdr_store *store, struct cmek_volhdr **hdr, const struct cmek_secret *mac_key,
			  struct cmek_error *err);

/* For people: what is wrong with copy i (0 or 1), NULL if it is usable; *ret_sequence is then its number. Borrowed. */
const char *cmek_volhdr_store_problem(const struct cmek_volhdr_store *store, int i, uint64_t *ret_sequence);
/* Who has the volume's lock at this moment, for a handle without one (CMEK_STORE_PEEK). */
enum cmek_store_use { CMEK_USE_NONE, CMEK_USE_READERS, CMEK_USE_WRITER, CMEK_USE_UNKNOWN };
enum cmek_store_use cmek_volhdr_store_use(const struct cmek_volhdr_store *store);

/* The name of a half-written copy that a crash can leave: CMEK_STORE_WRITE and _CHANGE remove those. */
bool cmek_volhdr_is_temporary(const char *name);
/* Writes both copies into a new metadata directory (mkfs), flushed. hdr->sequence is used as it is. */
int cmek_volhdr_store_create(int meta_fd, const struct cmek_volhdr *hdr, const struct cmek_secret *mac_key,
			     struct cmek_error *err);

#endif
