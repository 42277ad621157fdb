/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Proves of a file that nothing which the store has of it is under another data key than the active one. It reads the store
 * and not what is in memory, and changes nothing; it must not know which files there are.
 */
#include "config.h"

#include <errno.h>
#include <sys/stat.h>

#include "fs/content/ofile.h"

/* So many groups while the file's commits wait. */
#define STEP_GROUPS 32u

static bool is_bad(int r)
{
	return r == -EBADMSG || r == -EIO || r == -ENOKEY || r == -EKEYREVOKED;
}

/*
 * The first page in the store, which says what groups there are. 1: the store has no contents of the file. commit_lock and
 * file.lock are held, so nobody writes pages.
 */
static int read_first(struct cmek_ofile *file, struct cmek_map_trailer *ret_first)
{
	uint8_t entries[CMEK_MAP_ENTRIES_BYTES];
	struct cmek_map_head head;
	struct stat st;
	int r;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	/* What of a new file is in place already nothing speaks of, unless it has no name and gets no records. */
	if (st.st_size == 0 || (!file->id_logged && st.st_nlink > 0))
		return 1;
	r = cmek_ofile_read_page(file, 0, &head, entries, ret_first);
	return r == -EBADMSG && !file->id_logged ? 1 : r;
}

/* The first group from this one on that is not absent. */
static uint64_t skip_absent(const struct cmek_map_trailer *first, uint64_t group)
{
	uint32_t i;

	for (i = 0; i < first->n_absent; i++) /* in ascending order */
		if (group >= first->absent[i].first && group - first->absent[i].first < first->absent[i].count)
			group = first->absent[i].first + first->absent[i].count;
	return group;
}

static int look_at_group(struct cmek_ofile *file, uint64_t group, uint16_t active, struct cmek_verify_step *step)
{
	uint8_t entries[CMEK_MAP_ENTRIES_BYTES];
	struct cmek_map_trailer trailer;
	struct cmek_map_head head;
	unsigned i;
	int r = cmek_ofile_read_page(file, group, &head, entries, &trailer);

	if (is_bad(r))
		step->bad++;
	if (r < 0)
		return is_bad(r) ? 0 : r;
	step->pages++;
	step->old += head.dek != active;
	for (i = 0; i < CMEK_GROUP_BLOCKS; i++) {
		const uint8_t *entry = entries + (size_t)i * CMEK_ENTRY_BYTES;

		if (cmek_entry_is_hole(entry))
			continue;
		step->blocks++;
		step->old += cmek_entry_dek(entry) != active;
	}
	return 0;
}

/* Some groups, with the locks held. */
static int look(struct cmek_ofile *file, uint16_t active, struct cmek_verify_step *step)
{
	struct cmek_map_trailer first;
	unsigned n;
	int r = read_first(file, &first);

	if (r != 0) {
		step->bad += is_bad(r);
		step->done = true;
		return r == 1 || is_bad(r) ? 0 : r;
	}
	for (n = 0; r == 0 && n < STEP_GROUPS && !step->done; n++) {
		step->group = skip_absent(&first, step->group);
		step->done = step->group >= first.group_count;
		if (!step->done)
			r = look_at_group(file, step->group++, active, step);
	}
	return r;
}

int cmek_content_verify(struct cmek_ofile *file, struct cmek_verify_step *step)
{
	uint16_t active = cmek_keyring_active_dek(file->content->ring);
	int r = cmek_ofile_load(file);

	step->pages = step->blocks = step->old = step->bad = 0;
	step->done = is_bad(r);
	step->bad = step->done;
	if (r < 0 || active == 0)
		return step->done ? 0 : r < 0 ? r : -EKEYREVOKED;
	/* What is shorter in memory, or has holes there, than in the store. */
	if (step->group == 0 && cmek_commit_needed(file))
		r = cmek_content_commit(file);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&file->commit_lock);
	(void)pthread_rwlock_rdlock(&file->lock);
	/* A durable record that could not be written in place: the volume is read-only by now. */
	r = file->stuck != NULL ? -EROFS : look(file, active, step);
	(void)pthread_rwlock_unlock(&file->lock);
	(void)pthread_mutex_unlock(&file->commit_lock);
	return r;
}
