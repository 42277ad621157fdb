/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Last states into the store: by handle, by path, or by looking at every file there is. Blocks and pages are written as
 * the sealed bytes they are; nothing is decrypted, and what a record is is not known here.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/io.h"
#include "fs/content/block_map.h"
#include "fs/content/content.h"
#include "fs/content/journal.h"
#include "fs/content/map_page.h"
#include "fs/content/replay_apply.h"

#define CAPABILITY "security.capability"
#define CAPABILITY_MAX 64 /* Linux has up to 24 bytes */

static bool by_handle(const struct cmek_replay_apply *apply, const struct cmek_last_state *state)
{
	return apply->log->handles && state->handle.len > 0;
}

static int open_flags(const struct cmek_replay_apply *apply)
{
	return (apply->write ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
}

static int open_by_handle(const struct cmek_replay_apply *apply, const struct cmek_last_state *state)
{
	union {
		struct file_handle h;
		uint8_t room[sizeof(struct file_handle) + CMEK_HANDLE_MAX];
	} u;
	int fd;

	u.h.handle_bytes = state->handle.len;
	u.h.handle_type = (int)state->handle.type;
	memcpy(u.h.f_handle, state->handle.bytes, state->handle.len);
	fd = open_by_handle_at(apply->params->store_fd, &u.h, open_flags(apply));
	return fd < 0 ? -errno : fd;
}

/*
 * A regular file that its owner may not open like that, and the owner are we: the mode is another one for the moment that
 * it takes. What was to be written was acknowledged when it was still allowed.
 */
static int open_forbidden(int dir, const char *name, int flags)
{
	char path[sizeof("/proc/self/fd/") + 11];
	int fd = -1, r = 0, at = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (at < 0)
		return -errno;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", at);
	if (fstat(at, &st) < 0)
		r = -errno;
	else if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
		r = -EACCES;
	if (r == 0 && fchmodat(AT_FDCWD, path, (st.st_mode & 07777) | S_IRUSR | S_IWUSR, 0) < 0)
		r = -errno;
	if (r == 0) {
		/* The link in /proc leads to the inode itself. */
		fd = open(path, flags & ~O_NOFOLLOW);
		if (fd < 0)
			r = -errno;
		if (fchmodat(AT_FDCWD, path, st.st_mode & 07777, 0) < 0 && r == 0)
			r = -errno;
	}
	(void)close(at);
	if (r < 0 && fd >= 0)
		(void)close(fd);
	return r < 0 ? r : fd;
}

static int open_named(const struct cmek_replay_apply *apply, int dir, const char *name)
{
	int flags = open_flags(apply), fd = openat(dir, name, flags);

	if (fd < 0 && errno == EACCES && apply->write)
		return open_forbidden(dir, name, flags);
	return fd < 0 ? -errno : fd;
}

static int open_passage(int dir, const char *name)
{
	int fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Component by component, so that no symlink in the store leads out of it. */
static int open_by_path(const struct cmek_replay_apply *apply, const char *path)
{
	int store = apply->params->store_fd, dir = store, fd = -ENOENT;
	char name[NAME_MAX + 1];

	while (*path != 0) {
		size_t len = strcspn(path, "/");
		bool last = path[len] == 0;

		if (len == 0 || len > NAME_MAX || (path[0] == '.' && (len == 1 || (len == 2 && path[1] == '.'))))
			fd = -EINVAL;
		else {
			memcpy(name, path, len);
			name[len] = 0;
			fd = last ? open_named(apply, dir, name) : open_passage(dir, name);
		}
		if (dir != store)
			(void)close(dir);
		if (fd < 0 || last)
			return fd;
		dir = fd;
		path += len + 1;
	}
	if (dir != store)
		(void)close(dir);
	return -ENOENT;
}

/* ---- one file ---- */

/* The id in the first page of a stored file. -ENODATA: it has none, or not a whole one. */
static int read_id(int fd, uint64_t stored_size, uint8_t id[CMEK_FILE_ID_LEN])
{
	uint8_t page[CMEK_MAP_BYTES];
	struct cmek_map_head head;

	if (stored_size <= CMEK_MAP_BYTES)
		return -ENODATA;
	if (cmek_pread_full(fd, page, sizeof(page), 0) != (ssize_t)sizeof(page))
		return -EIO;
	if (cmek_map_head_decode(page, &head) < 0)
		return -ENODATA;
	memcpy(id, head.file_id, CMEK_FILE_ID_LEN);
	return 0;
}

/*
 * It is the file that the records mean: a regular file with one of their ids. A torn first page is what replay is there
 * to mend; a whole one of another file is not ours to overwrite. Of new content the handle alone may tell.
 */
static int check_identity(const struct cmek_replay_apply *apply, const struct cmek_last_state *state, int fd,
			  struct stat *ret_st)
{
	uint8_t id[CMEK_FILE_ID_LEN];
	int r;

	if (fstat(fd, ret_st) < 0)
		return -errno;
	if (!S_ISREG(ret_st->st_mode))
		return -ENOENT;
	if (state->new_id && by_handle(apply, state))
		return 0;
	r = read_id(fd, (uint64_t)ret_st->st_size, id);
	if (r == 0 && !cmek_last_state_has_id(state, id))
		r = -ENOENT;
	return r == -ENODATA ? 0 : r;
}

static int compare_images(const void *a, const void *b)
{
	const struct cmek_last_image *x = *(const struct cmek_last_image *const *)a;
	const struct cmek_last_image *y = *(const struct cmek_last_image *const *)b;

	return x->journal_off < y->journal_off ? -1 : x->journal_off > y->journal_off;
}

static int copy_image(const struct cmek_replay_apply *apply, const struct cmek_last_image *image, int fd)
{
	uint32_t block_size = apply->params->block_size;
	uint64_t index = image->place >> 1;
	uint8_t buf[CMEK_BLOCK_MAX];
	ssize_t n;

	n = cmek_pread_full(apply->log->fd, buf, image->len, image->journal_off);
	if (n != (ssize_t)image->len)
		return n < 0 ? (int)n : -EIO;
	*(image->place & 1 ? &apply->result->pages : &apply->result->blocks) += 1;
	return cmek_pwrite_full(fd, buf, image->len, image->place & 1 ? cmek_map_stored_off(block_size, index) :
									cmek_block_stored_off(block_size, index));
}

/* In the order of the journal, which is mostly that of the file, too. */
static int copy_images(const struct cmek_replay_apply *apply, const struct cmek_last_state *state, int fd)
{
	const struct cmek_last_image **order = calloc(state->n_used + 1, sizeof(const struct cmek_last_image *));
	size_t i, n = 0;
	int r = 0;

	if (order == NULL)
		return -ENOMEM;
	for (i = 0; i < state->n_slots; i++)
		if (state->images[i].len > 0)
			order[n++] = state->images + i;
	qsort(order, n, sizeof(*order), compare_images);
	for (i = 0; r == 0 && i < n; i++)
		r = copy_image(apply, order[i], fd);
	free(order);
	return r;
}

/*
 * Our writes make the kernel take the file's capability. It was set behind the last record: who changed the file before
 * that had taken it, durably, before the record was. Len 0: there is none.
 */
struct capability {
	uint8_t value[CAPABILITY_MAX];
	size_t len;
};

static int read_capability(int fd, struct capability *ret)
{
	ssize_t n = fgetxattr(fd, CAPABILITY, ret->value, sizeof(ret->value));

	if (n < 0 && errno != ENODATA && errno != EOPNOTSUPP)
		return -errno;
	ret->len = n > 0 ? (size_t)n : 0;
	return 0;
}

/* EPERM: who may not set it, in a mount of their own, has files without it after any write. */
static int restore_capability(int fd, const struct capability *capability)
{
	if (capability->len > 0 && fsetxattr(fd, CAPABILITY, capability->value, capability->len, 0) < 0 && errno != EPERM)
		return -errno;
	return 0;
}

static int write_state(const struct cmek_replay_apply *apply, const struct cmek_last_state *state, int fd)
{
	off_t want = (off_t)cmek_stored_size(apply->params->block_size, state->plain_size);
	struct timespec ts[2] = { { 0, UTIME_OMIT }, state->mtime };
	struct capability capability;
	int r = read_capability(fd, &capability);

	if (r == 0)
		r = copy_images(apply, state, fd);
	if (r == 0 && ftruncate(fd, want) < 0)
		r = -errno;
	if (r == 0)
		r = restore_capability(fd, &capability);
	if (r == 0 && state->has_mtime && futimens(fd, ts) < 0)
		r = -errno;
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

/* Applies to an open file, which is closed; counts what came of it. -ENOENT: it is another file. */
static int apply_to(struct cmek_replay_apply *apply, struct cmek_last_state *state, int fd)
{
	struct stat st;
	int r = check_identity(apply, state, fd, &st);

	if (r == 0 && apply->write)
		r = write_state(apply, state, fd);
	(void)close(fd); /* it was flushed */
	if (r < 0)
		return r;
	state->dev = st.st_dev;
	state->ino = st.st_ino;
	state->sought = false;
	apply->result->files++;
	apply->result->rolled_back += state->unfinished;
	return 0;
}

/* What was opened is not there, or is something else. */
static bool is_elsewhere(int r)
{
	return r == -ENOENT || r == -ENOTDIR || r == -ELOOP || r == -EINVAL || r == -EISDIR;
}

static bool has_handle(const struct cmek_last_state *state, const struct cmek_file_handle *h)
{
	return h->type == state->handle.type && h->len == state->handle.len &&
	       memcmp(h->bytes, state->handle.bytes, h->len) == 0;
}

/* Not everybody may open handles, but they tell whether a file is still where it was. -ENOENT: it is not. */
static int open_unmoved(const struct cmek_replay_apply *apply, const struct cmek_last_state *state)
{
	struct cmek_file_handle handle = { .len = 0 };
	int fd = open_by_path(apply, state->path);

	if (fd >= 0 && (cmek_handle_of(fd, &handle) < 0 || !has_handle(state, &handle))) {
		(void)close(fd);
		return -ENOENT;
	}
	return fd;
}

static int apply_state(struct cmek_replay_apply *apply, struct cmek_last_state *state)
{
	bool handle = by_handle(apply, state), unmoved = false;
	int fd = handle ? open_by_handle(apply, state) : open_by_path(apply, state->path);
	int r;

	if (handle && fd == -EPERM) {
		fd = open_unmoved(apply, state);
		unmoved = true;
	}
	r = fd < 0 ? fd : apply_to(apply, state, fd);
	if (handle && fd == -ESTALE)
		apply->result->gone++;
	else if (unmoved ? fd < 0 : !handle && is_elsewhere(r))
		state->sought = true; /* a path leads elsewhere when the file was renamed later */
	else if (handle && is_elsewhere(r))
		apply->lost++;
	else
		return r;
	return 0;
}

/* ---- files that have to be looked for ---- */

static struct cmek_last_state *find_sought(const struct cmek_replay_apply *apply, struct cmek_last_states *states,
					   const struct cmek_file_handle *handle, const uint8_t *id)
{
	struct cmek_last_state *state;

	for (state = states->first; state != NULL; state = state->next) {
		if (!state->sought)
			continue;
		if (by_handle(apply, state) ? has_handle(state, handle) : id != NULL && cmek_last_state_has_id(state, id))
			return state;
	}
	return NULL;
}

/* One name of a directory, a regular file's: if that is sought it is brought to its state. */
static int visit_file(struct cmek_replay_apply *apply, struct cmek_last_states *states, int dir, const char *name,
		      uint64_t stored_size)
{
	struct cmek_file_handle handle = { .len = 0 };
	uint8_t id[CMEK_FILE_ID_LEN];
	struct cmek_last_state *state;
	bool has_id = false;
	int r = 0, fd;

	if (apply->log->handles) {
		fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return errno == ENOENT ? 0 : -errno;
		r = cmek_handle_of(fd, &handle);
	} else {
		fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0 && errno == EACCES && apply->write)
			fd = open_forbidden(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		else if (fd < 0)
			fd = -errno;
		if (fd < 0)
			return fd == -ENOENT ? 0 : fd;
		has_id = read_id(fd, stored_size, id) == 0;
	}
	(void)close(fd);
	state = r == 0 ? find_sought(apply, states, &handle, has_id ? id : NULL) : NULL;
	if (state == NULL)
		return r;
	fd = open_named(apply, dir, name);
	return fd < 0 ? fd : apply_to(apply, state, fd);
}

/*
 * A walk over the store. One directory is open at a time, and those above it are opened again from below: trees may be
 * deeper than there are descriptors, or stack.
 */
struct level {
	dev_t dev;
	ino_t ino;
	off_t next; /* where its listing goes on */
};

struct search {
	struct cmek_replay_apply *apply;
	struct cmek_last_states *states;
	DIR *dir;
	struct level *above;
	size_t depth, space;
	char name[NAME_MAX + 1]; /* the entry at hand, for a message */
};

/* Goes on in the directory fd, which is taken, with the entries from `next` on. */
static int enter_at(struct search *search, int fd, off_t next)
{
	DIR *dir = lseek(fd, next, SEEK_SET) < 0 ? NULL : fdopendir(fd);
	int r;

	if (dir == NULL) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	(void)closedir(search->dir); /* only read */
	search->dir = dir;
	return 0;
}

static int descend(struct search *search, const struct dirent64 *entry)
{
	struct level *above = search->above;
	struct stat st;
	int fd;

	if (search->depth == search->space) {
		above = realloc(above, (search->space * 2 + 16) * sizeof(*above));
		if (above == NULL)
			return -ENOMEM;
		search->above = above;
		search->space = search->space * 2 + 16;
	}
	if (fstat(dirfd(search->dir), &st) < 0)
		return -errno;
	above[search->depth].dev = st.st_dev;
	above[search->depth].ino = st.st_ino;
	above[search->depth].next = entry->d_off;
	fd = openat(dirfd(search->dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	search->depth++;
	return enter_at(search, fd, 0);
}

static int ascend(struct search *search)
{
	const struct level *level = &search->above[--search->depth];
	int fd = openat(dirfd(search->dir), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || st.st_dev != level->dev || st.st_ino != level->ino) {
		(void)close(fd);
		return -ESTALE; /* somebody moves directories about */
	}
	return enter_at(search, fd, level->next);
}

static int visit(struct search *search, const struct dirent64 *entry)
{
	int fd = dirfd(search->dir);
	struct stat st;

	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || strcmp(entry->d_name, ".cmekfs") == 0)
		return 0;
	(void)snprintf(search->name, sizeof(search->name), "%s", entry->d_name);
	if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode))
		return descend(search, entry);
	return S_ISREG(st.st_mode) ? visit_file(search->apply, search->states, fd, entry->d_name, (uint64_t)st.st_size) : 0;
}

/* Its owner can open it, once they know which one it is. */
static void tell_closed(const struct search *search)
{
	const struct cmek_replay_params *params = search->apply->params;
	char link[sizeof("/proc/self/fd/") + 11], path[PATH_MAX], text[PATH_MAX + NAME_MAX + 100];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd(search->dir));
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0 || params->report == NULL)
		return;
	path[n] = 0;
	(void)snprintf(text, sizeof(text), "looking for files in the store: %s/%s: %s", path, search->name, strerror(EACCES));
	params->report(params->arg, text);
}

static int visit_all(struct cmek_replay_apply *apply, struct cmek_last_states *states)
{
	struct search search = { .apply = apply, .states = states };
	const struct dirent64 *entry;
	int fd, r = 0;

	fd = openat(apply->params->store_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	search.dir = fdopendir(fd);
	if (search.dir == NULL) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	while (r == 0) {
		errno = 0;
		entry = readdir64(search.dir);
		if (entry != NULL)
			r = visit(&search, entry);
		else if (errno != 0)
			r = -errno;
		else if (search.depth > 0)
			r = ascend(&search);
		else
			break;
	}
	if (r == -EACCES)
		tell_closed(&search);
	(void)closedir(search.dir);
	free(search.above);
	return r;
}

/*
 * Files that can't be opened by handle, which needs CAP_DAC_READ_SEARCH: the handles of the store's files tell. One that
 * is nowhere was deleted, like one whose handle is stale. In a copy of the store, files that are not at their path: the
 * ids in their first pages tell; one that is nowhere is lost. What can't be read ends the search: all may be there.
 */
static int apply_sought(struct cmek_replay_apply *apply, struct cmek_last_states *states)
{
	struct cmek_last_state *state;
	bool any = false;
	int r;

	for (state = states->first; state != NULL; state = state->next)
		any = any || state->sought;
	if (!any)
		return 0;
	r = visit_all(apply, states);
	for (state = states->first; r == 0 && state != NULL; state = state->next)
		if (state->sought)
			*(by_handle(apply, state) ? &apply->result->gone : &apply->lost) += 1;
	return r;
}

int cmek_replay_apply(struct cmek_replay_apply *apply, struct cmek_last_states *states)
{
	struct cmek_last_state *state;
	int r = 0;

	for (state = states->first; r == 0 && state != NULL; state = state->next)
		r = apply_state(apply, state);
	if (r == 0)
		r = apply_sought(apply, states);
	apply->result->lost += apply->lost;
	return r;
}
