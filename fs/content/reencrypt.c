/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Moves the contents of a file to the active data key: blocks under another one are opened and sealed anew, and wait for
 * a commit like anything that was written. It must not know which files there are, nor when it is enough.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/xattr.h>

#include "base/crypto.h"
#include "fs/content/ofile.h"

/* A step ends after so many groups even when nothing has to be moved. */
#define LOOK_MAX 1024u
/* A file with less waiting does not get a commit of its own. */
#define SMALL_BYTES (256u << 10)
#define CAPABILITY "security.capability"
#define CAPABILITY_MAX 64

/* Damage, or (EKEYREVOKED: what was put back into the store later) a data key that nothing was under any more. */
static bool is_bad(int r)
{
	return r == -EBADMSG || r == -EIO || r == -ENOKEY || r == -EKEYREVOKED;
}

/* How many of the group's blocks are under another data key, and which: bit i for block i. */
static unsigned find_old(struct cmek_group *group, uint16_t active, uint64_t old[2])
{
	unsigned i, n = 0;

	old[0] = old[1] = 0;
	for (i = 0; i < CMEK_GROUP_BLOCKS; i++) {
		const uint8_t *entry = cmek_group_entry(group, i);

		if (cmek_entry_is_hole(entry) || cmek_entry_dek(entry) == active)
			continue;
		old[i / 64] |= UINT64_C(1) << (i % 64);
		n++;
	}
	return n;
}

/* One block, sealed anew and held. group.lock is held exclusively. */
static int move_block_locked(struct cmek_group *group, unsigned i, const struct cmek_seal_right *right, uint32_t nth,
			     const struct cmek_secret *key, struct cmek_reencrypt_step *step)
{
	struct cmek_ofile *file = group->file;
	uint64_t block = group->index * CMEK_GROUP_BLOCKS + i;
	uint32_t len = cmek_block_plain_len(file->content->params.block_size, file->size, block);
	struct cmek_scratch *scratch = cmek_scratch_get(file->content);
	uint8_t entry[CMEK_ENTRY_BYTES];
	struct cmek_held *held;
	int r;

	if (scratch == NULL)
		return -ENOMEM;
	r = cmek_block_read_locked(group, block, len, scratch->plain);
	/* It stays as it is, for whoever mends it, and so does the need for its key. */
	if (is_bad(r)) {
		step->bad++;
		return 0;
	}
	if (r < 0)
		return r;
	held = malloc(sizeof(*held) + len);
	r = held != NULL ? cmek_block_seal(key, right, nth, block, scratch->plain, len, held->data, entry) : -ENOMEM;
	cmek_wipe(scratch->plain, len);
	if (r < 0) {
		free(held);
		return r;
	}
	held->len = len;
	memcpy(cmek_group_entry(group, i), entry, sizeof(entry));
	cmek_group_hold_locked(group, i, held);
	cmek_group_dirty_locked(group);
	step->moved_bytes += len;
	return 0;
}

/* group.lock is held exclusively, file.lock shared. */
static int move_group_locked(struct cmek_group *group, struct cmek_reencrypt_step *step)
{
	struct cmek_ofile *file = group->file;
	struct cmek_seal_right right;
	struct cmek_secret *key = NULL;
	uint32_t nth = 0;
	uint64_t old[2];
	unsigned i, n = find_old(group, step->dek, old);
	bool page = group->page_dek != 0 && group->page_dek != step->dek;
	int r;

	if (n == 0 && !page)
		return 0;
	r = cmek_content_check_write(file, file->size);
	if (r == 0 && n > 0)
		r = cmek_ofile_seal_key(file, n, (uint64_t)n * file->content->params.block_size, &right, &key);
	for (i = 0; r == 0 && n > 0 && i < CMEK_GROUP_BLOCKS; i++)
		if (old[i / 64] >> (i % 64) & 1)
			r = move_block_locked(group, i, &right, nth++, key, step);
	/* The commit seals the page, whether any of its blocks could be moved or not. */
	if (r == 0 && page) {
		cmek_group_dirty_locked(group);
		step->moved_pages++;
	}
	cmek_secret_free(key);
	return r;
}

/* The next group at or behind *index that is not absent. False: there is none. file.lock is held, either way. */
static bool next_group(struct cmek_ofile *file, uint64_t *index)
{
	(void)pthread_mutex_lock(&file->absent_lock);
	*index = cmek_absent_skip(&file->absent, *index);
	(void)pthread_mutex_unlock(&file->absent_lock);
	return *index < cmek_group_count(file->content->params.block_size, file->size);
}

/* One group at a time under the locks, so that others get at the file in between. 1: there is none any more. */
static int move_next(struct cmek_ofile *file, struct cmek_reencrypt_step *step)
{
	struct cmek_group *group;
	int r = 1;

	(void)pthread_rwlock_rdlock(&file->lock);
	if (next_group(file, &step->group)) {
		r = cmek_group_get(file, step->group, false, &group);
		if (r == 0) {
			(void)pthread_rwlock_wrlock(&group->lock);
			r = move_group_locked(group, step);
			(void)pthread_rwlock_unlock(&group->lock);
			cmek_group_put(group);
		} else if (is_bad(r)) {
			step->bad++;
			r = 0;
		}
	}
	(void)pthread_rwlock_unlock(&file->lock);
	return r;
}

/*
 * Whoever was given the right to seal before the active data key changed has used it by now: who changes blocks holds
 * file.lock, who seals pages commit_lock.
 */
static void let_others_end(struct cmek_ofile *file)
{
	(void)pthread_mutex_lock(&file->commit_lock);
	(void)pthread_rwlock_wrlock(&file->lock);
	(void)pthread_rwlock_unlock(&file->lock);
	(void)pthread_mutex_unlock(&file->commit_lock);
}

/* What is written in place costs a file its capabilities, which nobody has asked for here. */
static int commit_keeping_capabilities(struct cmek_ofile *file)
{
	uint8_t value[CAPABILITY_MAX];
	ssize_t n = fgetxattr(file->fd, CAPABILITY, value, sizeof(value));
	int r;

	/* With others of its size, for which the committer needs one flush. */
	if (n <= 0 && file->held_bytes < SMALL_BYTES) {
		cmek_ofile_queue(file);
		return cmek_content_make_room(file);
	}
	r = cmek_content_commit(file);

	if (n > 0 && fgetxattr(file->fd, CAPABILITY, NULL, 0) < 0 && errno == ENODATA &&
	    fsetxattr(file->fd, CAPABILITY, value, (size_t)n, XATTR_CREATE) < 0 && r == 0)
		r = -errno;
	return r;
}

int cmek_content_reencrypt(struct cmek_ofile *file, uint64_t max_bytes, struct cmek_reencrypt_step *step)
{
	unsigned looked = 0;
	int r = cmek_ofile_load(file), committed;

	step->done = false;
	step->moved_bytes = step->moved_pages = step->bad = 0;
	if (is_bad(r)) {
		step->bad = 1;
		step->done = true;
		return 0;
	}
	if (r < 0)
		return r;
	if (step->group == 0)
		let_others_end(file);
	step->dek = cmek_keyring_active_dek(file->content->ring);
	if (step->dek == 0)
		return -EKEYREVOKED;
	while (r == 0 && looked++ < LOOK_MAX && step->moved_bytes < max_bytes) {
		r = move_next(file, step);
		if (r == 0)
			step->group++;
	}
	step->done = r == 1;
	/* Also what was waiting before: a page that others have changed is under the old key until it is sealed anew. */
	if ((step->moved_bytes + step->moved_pages > 0 || step->done) && cmek_commit_needed(file)) {
		committed = commit_keeping_capabilities(file);
		r = r < 0 ? r : committed;
	}
	return r < 0 ? r : 0;
}
