/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Replay in two steps: read all records of a journal and reduce them to the last state of each file, then write that
 * state. Blocks and pages are written as the sealed bytes they are; nothing is decrypted but the records.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/io.h"
#include "fs/content/block_map.h"
#include "fs/content/content.h"
#include "fs/content/journal.h"
#include "fs/content/map_page.h"
#include "fs/content/replay.h"

/* One image that is still the last of its place. */
struct image {
	uint64_t place;         /* group index << 1 | 1 for a page, block index << 1 for a block */
	uint32_t len;
	const uint8_t *bytes;   /* in a record's buffer; NULL = outdated */
};

/* The final state of one file. */
struct file_state {
	struct cmek_file_handle handle;
	char *path;
	uint8_t file_id[CMEK_FILE_ID_LEN];
	bool new_id, touch, has_mtime;
	bool sought; /* its handle can't be opened without privileges: whoever has it is looked for in the store */
	uint64_t plain_size;
	struct timespec mtime;
	struct image *images;
	size_t n_images, capacity;
};

struct replay {
	const struct cmek_replay_params *params;
	struct cmek_replay_result *result;
	struct cmek_keyring *ring;
	int fd;
	const char *name;
	struct cmek_journal_super super;
	bool handles; /* the journal is where it was made, so its handles are good */
	uint8_t **buffers; /* of the records, kept while images point into them */
	size_t n_buffers;
	struct file_state *files;
	size_t n_files;
};

static void say(const struct replay *rp, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct replay *rp, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (rp->params->report == NULL)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	rp->params->report(rp->params->arg, text);
}

/* ---- step one: the last state of each file ---- */

static bool same_file(const struct replay *rp, const struct file_state *state, const struct cmek_section *section)
{
	if (rp->handles && section->handle.len > 0)
		return state->handle.type == section->handle.type && state->handle.len == section->handle.len &&
		       memcmp(state->handle.bytes, section->handle.bytes, section->handle.len) == 0;
	return strcmp(state->path, section->path) == 0;
}

static struct file_state *find_state(struct replay *rp, const struct cmek_section *section)
{
	struct file_state *grown;
	size_t i;

	/* from the newest: consecutive records are mostly about the same few files */
	for (i = rp->n_files; i-- > 0;)
		if (same_file(rp, rp->files + i, section))
			return rp->files + i;
	grown = reallocarray(rp->files, rp->n_files + 1, sizeof(*grown));
	if (grown == NULL)
		return NULL;
	rp->files = grown;
	grown += rp->n_files++;
	memset(grown, 0, sizeof(*grown));
	grown->handle = section->handle;
	return grown;
}

static void outdate(struct file_state *state, uint64_t first, uint64_t end, bool pages)
{
	size_t i;

	for (i = 0; i < state->n_images; i++)
		if ((state->images[i].place & 1) == pages && state->images[i].place >> 1 >= first &&
		    state->images[i].place >> 1 < end)
			state->images[i].bytes = NULL;
}

static int add_image(struct file_state *state, uint64_t place, uint32_t len, const uint8_t *bytes)
{
	size_t capacity = state->capacity == 0 ? 16 : state->capacity * 2;
	struct image *grown;

	if (state->n_images == state->capacity) {
		grown = reallocarray(state->images, capacity, sizeof(*grown));
		if (grown == NULL)
			return -ENOMEM;
		state->images = grown;
		state->capacity = capacity;
	}
	state->images[state->n_images++] = (struct image){ place, len, bytes };
	return 0;
}

/* Sizes and places are of a file that can be, and no image reaches behind its place. */
static bool makes_sense(uint32_t block_size, const struct cmek_section *section)
{
	uint64_t size = section->plain_size, groups = cmek_group_count(block_size, size);
	const struct cmek_item *item = section->items;
	size_t i;

	if (size > cmek_plain_size_max(block_size))
		return false;
	for (i = 0; i < section->n_items; i++, item++) {
		if (item->type == CMEK_ITEM_MAP && item->first >= groups)
			return false;
		if (item->type == CMEK_ITEM_BLOCK &&
		    (item->first / CMEK_GROUP_BLOCKS >= groups ||
		     item->count > cmek_block_plain_len(block_size, size, item->first)))
			return false;
	}
	return true;
}

static int reduce_section(struct replay *rp, struct cmek_section *section, const uint8_t *images)
{
	struct file_state *state = find_state(rp, section);
	uint32_t block_size = rp->params->block_size;
	size_t i;
	int r = 0;

	if (state == NULL)
		return -ENOMEM;
	if (!makes_sense(block_size, section))
		return -EUCLEAN;
	free(state->path);
	state->path = section->path;
	section->path = NULL;
	if (section->flags & CMEK_FILE_NEW_ID) {
		outdate(state, 0, UINT64_MAX, false);
		outdate(state, 0, UINT64_MAX, true);
		state->new_id = true;
	}
	memcpy(state->file_id, section->file_id, CMEK_FILE_ID_LEN);
	state->touch = section->flags & CMEK_FILE_TOUCH;
	state->plain_size = section->plain_size;
	if (section->flags & CMEK_FILE_MTIME) {
		state->has_mtime = true;
		state->mtime = section->mtime;
	}
	outdate(state, cmek_group_count(block_size, state->plain_size), UINT64_MAX, true);
	outdate(state, state->plain_size / block_size + (state->plain_size % block_size != 0), UINT64_MAX, false);
	for (i = 0; r == 0 && i < section->n_items; i++) {
		const struct cmek_item *item = section->items + i;

		if (item->type == CMEK_ITEM_MAP)
			r = add_image(state, item->first << 1 | 1, CMEK_MAP_BYTES, images + item->image * CMEK_JOURNAL_UNIT);
		else if (item->type == CMEK_ITEM_BLOCK)
			r = add_image(state, item->first << 1, (uint32_t)item->count,
				      images + item->image * CMEK_JOURNAL_UNIT);
		else
			outdate(state, item->first, item->first + item->count, false);
		/* Of groups that have become absent, or nothing but holes, the older page does not count either. */
		if (item->type == CMEK_ITEM_PUNCH)
			outdate(state, (item->first + CMEK_GROUP_BLOCKS - 1) / CMEK_GROUP_BLOCKS,
				(item->first + item->count) / CMEK_GROUP_BLOCKS, true);
	}
	return r;
}

/* The record with this sequence number at off; -EBADMSG: there is none, the log ends. */
static int read_record(struct replay *rp, uint64_t off, uint64_t seq, uint64_t *ret_bytes)
{
	struct cmek_record_id id = { .seq = seq };
	uint8_t head[CMEK_RECORD_HEAD_BYTES], *buf, **grown;
	struct cmek_section *sections = NULL;
	const uint8_t *images;
	size_t n = 0, i;
	uint64_t bytes;
	ssize_t got;
	int r;

	memcpy(id.volume, rp->params->volume, sizeof(id.volume));
	memcpy(id.mount_id, rp->super.mount_id, sizeof(id.mount_id));
	got = cmek_pread_full(rp->fd, head, sizeof(head), off);
	r = got < 0 ? (int)got : got < (ssize_t)sizeof(head) ? -EBADMSG : cmek_record_peek(head, &id, &bytes);
	if (r < 0)
		return r;
	if (bytes > rp->super.length_bytes - off)
		return -EBADMSG;
	buf = malloc(bytes);
	grown = reallocarray(rp->buffers, rp->n_buffers + 1, sizeof(*grown));
	if (grown != NULL)
		rp->buffers = grown;
	if (buf == NULL || grown == NULL) {
		free(buf);
		return -ENOMEM;
	}
	rp->buffers[rp->n_buffers++] = buf;
	got = cmek_pread_full(rp->fd, buf, bytes, off);
	r = got < 0 ? (int)got : got < (ssize_t)bytes ? -EBADMSG :
			cmek_record_decode(rp->ring, &id, buf, bytes, &sections, &n, &images);
	for (i = 0; r == 0 && i < n; i++)
		r = reduce_section(rp, sections + i, images);
	for (i = 0; i < n; i++)
		cmek_section_done(sections + i);
	free(sections);
	*ret_bytes = bytes;
	return r;
}

static int read_records(struct replay *rp)
{
	uint64_t off = rp->super.tail_off, seq = rp->super.tail_seq, bytes = 0;
	int r;

	for (;;) {
		r = off < rp->super.length_bytes ? read_record(rp, off, seq, &bytes) : -EBADMSG;
		if (r == -EBADMSG && off != CMEK_JOURNAL_RECORDS_AT) {
			off = CMEK_JOURNAL_RECORDS_AT;
			r = read_record(rp, off, seq, &bytes);
		}
		if (r < 0)
			return r == -EBADMSG ? 0 : r;
		rp->result->records++;
		off += bytes;
		seq++;
	}
}

/* ---- step two: into the store ---- */

static int open_by_handle(const struct replay *rp, const struct file_state *state)
{
	union {
		struct file_handle h;
		uint8_t room[sizeof(struct file_handle) + CMEK_HANDLE_MAX];
	} u;
	int fd;

	u.h.handle_bytes = state->handle.len;
	u.h.handle_type = (int)state->handle.type;
	memcpy(u.h.f_handle, state->handle.bytes, state->handle.len);
	fd = open_by_handle_at(rp->params->store_fd, &u.h, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

/* Component by component, so that no symlink in the store leads out of it. */
static int open_by_path(const struct replay *rp, const char *path)
{
	int dir = rp->params->store_fd, fd = -ENOENT;
	char name[NAME_MAX + 1];

	while (*path != 0) {
		size_t len = strcspn(path, "/");
		bool last = path[len] == 0;

		if (len == 0 || len > NAME_MAX || (path[0] == '.' && (len == 1 || (len == 2 && path[1] == '.'))))
			fd = -EINVAL;
		else {
			memcpy(name, path, len);
			name[len] = 0;
			fd = openat(dir, name, (last ? O_RDWR : O_PATH | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
			if (fd < 0)
				fd = -errno;
		}
		if (dir != rp->params->store_fd)
			(void)close(dir);
		if (fd < 0 || last)
			return fd;
		dir = fd;
		path += len + 1;
	}
	if (dir != rp->params->store_fd)
		(void)close(dir);
	return -ENOENT;
}

/* It is the file that the record means: a regular file with its id, or one whose content was new. */
static int check_identity(const struct file_state *state, int fd)
{
	uint8_t page[CMEK_MAP_BYTES];
	struct cmek_map_head head;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENOENT;
	if (state->new_id || st.st_size <= (off_t)CMEK_MAP_BYTES)
		return 0;
	if (cmek_pread_full(fd, page, sizeof(page), 0) != (ssize_t)sizeof(page))
		return -EIO;
	/* A torn first page is what replay is there to mend; a whole one of another file is not ours to overwrite. */
	if (cmek_map_head_decode(page, &head) == 0 && memcmp(head.file_id, state->file_id, CMEK_FILE_ID_LEN) != 0)
		return -ENOENT;
	return 0;
}

static int write_images(const struct replay *rp, const struct file_state *state, int fd)
{
	uint32_t block_size = rp->params->block_size;
	size_t i;
	int r = 0;

	/* in the order of the records: a later image of a place comes later */
	for (i = 0; r == 0 && i < state->n_images; i++) {
		const struct image *image = state->images + i;
		uint64_t place = image->place >> 1;

		if (image->bytes == NULL)
			continue;
		r = cmek_pwrite_full(fd, image->bytes, image->len,
				     image->place & 1 ? cmek_map_stored_off(block_size, place) :
							cmek_block_stored_off(block_size, place));
		*(image->place & 1 ? &rp->result->pages : &rp->result->blocks) += 1;
	}
	return r;
}

static int apply_state(const struct replay *rp, const struct file_state *state, int fd)
{
	off_t want = (off_t)cmek_stored_size(rp->params->block_size, state->plain_size);
	struct timespec ts[2] = { { 0, UTIME_OMIT }, state->mtime };
	int r = write_images(rp, state, fd);

	if (r == 0 && ftruncate(fd, want) < 0)
		r = -errno;
	if (r == 0 && state->has_mtime && futimens(fd, ts) < 0)
		r = -errno;
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	rp->result->rolled_back += state->touch;
	return r;
}

/* Applies to an open file, which is closed; counts what came of it. */
static int apply_to(const struct replay *rp, const struct file_state *state, int fd)
{
	int r = check_identity(state, fd);

	if (r == 0)
		r = apply_state(rp, state, fd);
	(void)close(fd); /* it was flushed */
	if (r == -ENOENT) {
		rp->result->lost++;
		return 0;
	}
	rp->result->files++;
	return r;
}

static int apply_file(const struct replay *rp, struct file_state *state)
{
	bool by_handle = rp->handles && state->handle.len > 0;
	int fd = by_handle ? open_by_handle(rp, state) : open_by_path(rp, state->path);

	if (fd == -ESTALE && by_handle) {
		rp->result->gone++;
		return 0;
	}
	if (fd == -EPERM && by_handle) {
		state->sought = true;
		return 0;
	}
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -EINVAL || fd == -EISDIR) {
		rp->result->lost++;
		return 0;
	}
	return fd < 0 ? fd : apply_to(rp, state, fd);
}

/* ---- files by handle where handles can't be opened ---- */

static struct file_state *find_sought(struct replay *rp, const struct cmek_file_handle *handle)
{
	size_t i;

	for (i = 0; i < rp->n_files; i++) {
		const struct cmek_file_handle *h = &rp->files[i].handle;

		if (rp->files[i].sought && h->type == handle->type && h->len == handle->len &&
		    memcmp(h->bytes, handle->bytes, h->len) == 0)
			return rp->files + i;
	}
	return NULL;
}

/* One name of a directory: a file that is sought is brought to its state. */
static int visit_file(struct replay *rp, int dir, const char *name)
{
	struct cmek_file_handle handle;
	struct file_state *state;
	int r, fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = cmek_handle_of(fd, &handle);
	(void)close(fd);
	state = r == 0 ? find_sought(rp, &handle) : NULL;
	if (state == NULL)
		return r;
	state->sought = false;
	fd = openat(dir, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : apply_to(rp, state, fd);
}

/* The directory fd, which is closed, and all below it. */
static int visit_dir(struct replay *rp, int fd)
{
	DIR *dir = fdopendir(fd);
	struct dirent *entry;
	struct stat st;
	int sub, r = 0;

	if (dir == NULL) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISREG(st.st_mode)) {
			r = visit_file(rp, fd, entry->d_name);
		} else if (S_ISDIR(st.st_mode)) {
			sub = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			r = sub >= 0 ? visit_dir(rp, sub) : -errno;
		}
	}
	if (r == 0 && errno != 0)
		r = -errno;
	(void)closedir(dir);
	return r;
}

/*
 * Files that can't be opened by handle, which needs CAP_DAC_READ_SEARCH: the handles of the store's files tell. A file
 * that is nowhere was deleted, like one whose handle is stale. What can't be read ends the search: all may be there.
 */
static int apply_sought(struct replay *rp)
{
	size_t i, n = 0;
	int fd, r;

	for (i = 0; i < rp->n_files; i++)
		n += rp->files[i].sought;
	if (n == 0)
		return 0;
	fd = openat(rp->params->store_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = fd >= 0 ? visit_dir(rp, fd) : -errno;
	for (i = 0; r == 0 && i < rp->n_files; i++)
		rp->result->gone += rp->files[i].sought;
	return r;
}

/* What has no file is kept for a person to look at. */
static int keep_journal(const struct replay *rp)
{
	char target[128];
	unsigned i;

	if (mkdirat(rp->params->meta_fd, "lost", 0700) < 0 && errno != EEXIST)
		return -errno;
	for (i = 0; i < 10000; i++) {
		(void)snprintf(target, sizeof(target), "lost/%s.%u", rp->name, i);
		if (linkat(rp->params->meta_fd, rp->name, rp->params->meta_fd, target, 0) == 0) {
			/* the mount makes a new one in its place */
			if (unlinkat(rp->params->meta_fd, rp->name, 0) < 0)
				return -errno;
			say(rp, "%llu files of the journal were not found, it is kept as .cmekfs/%s",
			    (unsigned long long)rp->result->lost, target);
			return 0;
		}
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

static int mark_empty(const struct replay *rp)
{
	struct cmek_journal_super super = rp->super;
	uint8_t buf[CMEK_JOURNAL_UNIT];
	int r;

	super.sequence++;
	super.empty = true;
	r = cmek_journal_super_encode(rp->ring, rp->params->volume, &super, buf);
	if (r == 0)
		r = cmek_pwrite_full(rp->fd, buf, sizeof(buf), super.sequence % 2 * CMEK_JOURNAL_UNIT);
	return r == 0 && fsync(rp->fd) < 0 ? -errno : r;
}

/* ---- one journal ---- */

/* The newest good superblock; -ENODATA: the file never became a journal (it was still being written at a crash). */
static int read_super(struct replay *rp)
{
	struct cmek_journal_super super;
	uint8_t buf[CMEK_JOURNAL_UNIT];
	bool found = false, blank = true;
	int i, r, worst = -EBADMSG;

	for (i = 0; i < 2; i++) {
		ssize_t n = cmek_pread_full(rp->fd, buf, sizeof(buf), (uint64_t)i * CMEK_JOURNAL_UNIT);

		if (n < 0)
			return (int)n;
		blank = blank && cmek_is_zero(buf, (size_t)n);
		r = n == (ssize_t)sizeof(buf) ?
			    cmek_journal_super_decode(rp->ring, rp->params->volume, buf, &super) : -EBADMSG;
		if (r == -ENOKEY || r == -EKEYREVOKED)
			worst = r;
		if (r == 0 && (!found || super.sequence > rp->super.sequence)) {
			rp->super = super;
			found = true;
		}
	}
	return found ? 0 : blank ? -ENODATA : worst;
}

static void check_handle(struct replay *rp)
{
	struct cmek_file_handle own;

	rp->handles = cmek_handle_of(rp->fd, &own) == 0 && own.len > 0 && own.len == rp->super.handle.len &&
		      own.type == rp->super.handle.type && memcmp(own.bytes, rp->super.handle.bytes, own.len) == 0;
}

static int replay_open_journal(struct replay *rp)
{
	size_t i;
	int r = read_super(rp);

	if (r == -ENODATA || (r == 0 && rp->super.empty))
		return 0;
	if (r < 0)
		return r;
	check_handle(rp);
	r = read_records(rp);
	if (r < 0)
		return r;
	rp->result->journals++;
	if (rp->params->dry_run) {
		rp->result->files += rp->n_files;
		return 0;
	}
	for (i = 0; r == 0 && i < rp->n_files; i++)
		r = apply_file(rp, rp->files + i);
	if (r == 0)
		r = apply_sought(rp);
	if (r == 0)
		r = mark_empty(rp);
	if (r == 0 && rp->result->lost > 0)
		r = keep_journal(rp);
	return r;
}

static int replay_journal(struct cmek_keyring *ring, const struct cmek_replay_params *params, const char *name,
			  struct cmek_replay_result *result)
{
	struct replay rp = { .params = params, .result = result, .ring = ring, .name = name };
	struct stat st;
	size_t i;
	int r;

	/* not waiting for whoever would write to a FIFO */
	rp.fd = openat(params->meta_fd, name,
		       (params->dry_run ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (rp.fd < 0)
		return -errno;
	r = fstat(rp.fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? replay_open_journal(&rp) : -EBADMSG;
	for (i = 0; i < rp.n_files; i++) {
		free(rp.files[i].path);
		free(rp.files[i].images);
	}
	free(rp.files);
	for (i = 0; i < rp.n_buffers; i++)
		free(rp.buffers[i]);
	free(rp.buffers);
	(void)close(rp.fd);
	return r;
}

static int fail(struct cmek_error *err, const char *name, int r)
{
	if (r == -EBADMSG)
		return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, ".cmekfs/%s: no superblock of it authenticates", name);
	if (r == -EUCLEAN)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EUCLEAN, ".cmekfs/%s: a record of it makes no sense", name);
	if (r == -ENOKEY || r == -EKEYREVOKED)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, -r,
				      ".cmekfs/%s is under a data key that the header does not have", name);
	return cmek_error_sys(err, -r, "replay of .cmekfs/%s", name);
}

int cmek_replay(struct cmek_keyring *ring, const struct cmek_replay_params *params,
		struct cmek_replay_result *ret_result, struct cmek_error *err)
{
	int r = 0, fd = openat(params->meta_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	DIR *dir;

	memset(ret_result, 0, sizeof(*ret_result));
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		r = cmek_error_sys(err, errno, ".cmekfs");
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, entry = readdir(dir)) != NULL) {
		if (strncmp(entry->d_name, "journal.", 8) != 0)
			continue;
		r = replay_journal(ring, params, entry->d_name, ret_result);
		if (r < 0)
			r = fail(err, entry->d_name, r);
	}
	(void)closedir(dir);
	return r;
}
