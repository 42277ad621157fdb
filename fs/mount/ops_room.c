/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What is refused while the store is nearly full: files that grow, and then new entries, too. It must not know how room is
 * kept.
 *
 * A write(2) into its cache the kernel takes without a question, and its error would come with fsync, when it is too late for
 * who wrote it. But it asks for a file's attributes first when it does not know its mode, and an error of that is the error of
 * the write. It says which handle they are for then, which it does for nobody else: reads go by the size alone, which it
 * knows itself, and stat(2) is for no handle. So a file that has grown while there was little room has its attributes taken
 * away, and each write(2) to it waits until what the cache has of its growth is here. When the store is full, one that comes
 * behind growth is refused; it may be no growth itself, which is not to be seen, so the one after it may go on again, and
 * what that takes is taken from the room that is kept. When there is little of this left, all are refused. What was taken
 * finds its room. (Linux 5.17 on: fuse_cache_write_iter() and fuse_update_get_attr() in its fs/fuse.)
 */
#include "config.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"
#include "fs/mount/ops.h"

/* A file up to this size may grow as long as there is any of the room that is kept: databases have some that must not fail. */
#define SMALL_BYTES (UINT64_C(64) << 10)
/* When some of what waits in memory has found no room. */
#define COMMIT_AGAIN_MS 500
/* What was removed goes from the store when the kernel has forgotten it, which it says after the removal. */
#define REMOVAL_MS 300
#define REMOVAL_TICK_MS 5

/* The level when it is FULL or more by what is known. */
static enum cmek_room_level look_again(struct cmek_ops *ops)
{
	const struct timespec tick = { 0, REMOVAL_TICK_MS * 1000000L };
	enum cmek_room_level level;

	/* What waits in memory may need less than was thought. That some of it finds none is for others to be told. */
	if (cmek_room_has_promised(ops->room) && cmek_now_ms() >= atomic_load(&ops->commit_again_ms) &&
	    cmek_content_commit_all(ops->content) < 0)
		atomic_store(&ops->commit_again_ms, cmek_now_ms() + COMMIT_AGAIN_MS);
	while ((level = cmek_room_level_now(ops->room)) >= CMEK_ROOM_FULL &&
	       cmek_now_ms() < atomic_load(&ops->removed_ms) + REMOVAL_MS)
		(void)nanosleep(&tick, NULL); /* sooner is fine */
	return level;
}

static enum cmek_room_level level_of(struct cmek_ops *ops)
{
	enum cmek_room_level level = cmek_room_level(ops->room);

	return level < CMEK_ROOM_FULL ? level : look_again(ops);
}

void cmek_ops_removed(struct cmek_ops *ops)
{
	if (cmek_room_level(ops->room) >= CMEK_ROOM_FULL)
		atomic_store(&ops->removed_ms, cmek_now_ms());
}

int cmek_ops_check_new(struct cmek_ops *ops, uint64_t parent, const char *name)
{
	struct cmek_entry entry;
	int rc;

	if (level_of(ops) < CMEK_ROOM_GONE)
		return 0;
	rc = cmek_tree_lookup(ops->tree, parent, name, &entry);
	if (rc == 0)
		cmek_tree_forget(ops->tree, entry.node, 1);
	return rc == -ENOENT ? -ENOSPC : 0; /* any other error comes again where it belongs */
}

int cmek_ops_check_room(struct cmek_ops *ops, uint64_t end)
{
	enum cmek_room_level level = level_of(ops);

	return level >= CMEK_ROOM_GONE || (level == CMEK_ROOM_FULL && end > SMALL_BYTES) ? -ENOSPC : 0;
}

int cmek_ops_check_size(struct cmek_ops *ops, struct cmek_ofile *file, uint64_t end)
{
	uint64_t size = cmek_ofile_size(file);

	if (end <= size || cmek_ops_check_room(ops, end) == 0)
		return 0;
	/* with some more for map pages */
	return cmek_content_set_aside(file) > (end - size) / 64 * 65 + SMALL_BYTES ? 0 : -ENOSPC;
}

void cmek_ops_ask_again(struct cmek_ops *ops, uint64_t node, struct cmek_ofile *file)
{
	const struct cmek_later forget = { .what = "forget", .node = node, .drop_from = -1 };
	atomic_bool *asks = &cmek_ofile_host(file)->asks;

	if (atomic_load(asks) && cmek_room_level(ops->room) < CMEK_ROOM_TIGHT)
		atomic_store(asks, false);
	if (atomic_load(asks))
		cmek_ops_later(ops, &forget);
}

void cmek_ops_keep_asking(struct cmek_ops *ops, uint64_t node, struct cmek_ofile *file)
{
	if (atomic_load(&cmek_ofile_host(file)->asks) && cmek_room_level(ops->room) >= CMEK_ROOM_TIGHT)
		(void)fuse_lowlevel_notify_inval_inode(ops->session, node, -1, 0);
}

bool cmek_ops_grows(const struct cmek_ops *ops, struct cmek_ofile *file)
{
	if (!ops->asks_before_writes || cmek_room_level(ops->room) < CMEK_ROOM_TIGHT)
		return false;
	atomic_store(&cmek_ofile_host(file)->asks, true);
	return true;
}

bool cmek_ops_grew(const struct cmek_ops *ops, struct cmek_ofile *file)
{
	if (!cmek_ops_grows(ops, file))
		return false;
	if (cmek_room_level(ops->room) >= CMEK_ROOM_FULL)
		atomic_store(&cmek_ofile_host(file)->grew, true);
	return true;
}

bool cmek_ops_asks(const struct cmek_ops *ops, uint64_t node, uint64_t *ret_off)
{
	struct cmek_ofile *file = cmek_ofile_find(ops->content, node);
	bool asks;

	if (!file)
		return false;
	asks = atomic_load(&cmek_ofile_host(file)->asks) && cmek_room_level(ops->room) >= CMEK_ROOM_TIGHT;
	*ret_off = cmek_ofile_size(file);
	cmek_ofile_close(file);
	return asks;
}

int cmek_ops_check_write(struct cmek_ops *ops, uint64_t node)
{
	struct cmek_ofile *file = cmek_ofile_find(ops->content, node);
	enum cmek_room_level level;
	bool may, grew;

	if (!file)
		return 0;
	level = level_of(ops);
	grew = atomic_exchange(&cmek_ofile_host(file)->grew, false);
	may = level < CMEK_ROOM_FULL;
	if (!may && level == CMEK_ROOM_FULL)
		may = !grew || cmek_ofile_size(file) < SMALL_BYTES;
	if (!may)
		may = cmek_content_set_aside(file) > SMALL_BYTES;
	cmek_ofile_close(file);
	return may ? 0 : -ENOSPC;
}
