/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The life of a file's shared state: opened, found, queued for commit, closed; its size and modification time; what
 * its first map page says. Knows nothing of single blocks. (Longer than others, so that nobody else changes the table of files.)
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/io.h"
#include "fs/content/ofile.h"

enum { FILE_BUCKETS = 1 << 14, TICK_MAX_NS = 10000000 };

static struct cmek_ofile **bucket_of(struct cmek_content *content, uint64_t node)
{
	return content->files + (node * UINT64_C(0x9e3779b97f4a7c15) >> 32) % FILE_BUCKETS;
}

int cmek_ofile_table_new(struct cmek_content *content)
{
	content->files = calloc(FILE_BUCKETS, sizeof(struct cmek_ofile *));
	return content->files != NULL ? 0 : -ENOMEM;
}

static void ofile_destroy(struct cmek_ofile *file)
{
	const struct cmek_content_host *host = &file->content->host;

	cmek_commit_drop_records(file);
	cmek_group_drop_range(file, 0, UINT64_MAX);
	cmek_absent_done(&file->absent);
	free(file->path);
	if (file->fd >= 0)
		(void)close(file->fd); /* nothing is deferred to the close of a store file that fsync would not have told */
	(void)pthread_mutex_destroy(&file->commit_lock);
	(void)pthread_rwlock_destroy(&file->lock);
	(void)pthread_mutex_destroy(&file->dirty_lock);
	(void)pthread_mutex_destroy(&file->absent_lock);
	if (host->let_go != NULL)
		host->let_go(host->arg, file->node);
	free(file);
}

void cmek_ofile_table_drop(struct cmek_content *content)
{
	struct cmek_ofile *file;
	size_t i;

	for (i = 0; i < FILE_BUCKETS; i++) {
		while ((file = content->files[i]) != NULL) {
			content->files[i] = file->hash_next;
			ofile_destroy(file);
		}
	}
}

static int ofile_new(struct cmek_content *content, uint64_t node, struct cmek_ofile **ret_file)
{
	struct cmek_ofile *file = calloc(1, sizeof(*file));
	pthread_rwlockattr_t attr;
	int r;

	if (file == NULL)
		return -ENOMEM;
	r = content->host.keep != NULL ? content->host.keep(content->host.arg, node) : 0;
	if (r < 0) {
		free(file);
		return r;
	}
	file->content = content;
	file->node = node;
	file->fd = -1;
	file->refs = 1;
	file->has_data = -1;
	file->metadata_changes = 1; /* not known: it may be new */
	(void)pthread_mutex_init(&file->commit_lock, NULL);
	(void)pthread_rwlockattr_init(&attr);
	/* Extending writers must not starve behind a stream of readers; nobody takes the lock twice. */
	(void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	(void)pthread_rwlock_init(&file->lock, &attr);
	(void)pthread_rwlockattr_destroy(&attr);
	(void)pthread_mutex_init(&file->dirty_lock, NULL);
	(void)pthread_mutex_init(&file->absent_lock, NULL);
	*ret_file = file;
	return 0;
}

static struct cmek_ofile *find_locked(struct cmek_content *content, uint64_t node)
{
	struct cmek_ofile *file = *bucket_of(content, node);

	while (file != NULL && file->node != node)
		file = file->hash_next;
	if (file != NULL)
		file->refs++;
	return file;
}

struct cmek_ofile *cmek_ofile_find(struct cmek_content *content, uint64_t node)
{
	struct cmek_ofile *file;

	(void)pthread_mutex_lock(&content->files_lock);
	file = find_locked(content, node);
	if (file != NULL && !atomic_load(&file->live)) {
		file->refs--; /* who opens it has another one */
		file = NULL;
	}
	(void)pthread_mutex_unlock(&content->files_lock);
	return file;
}

/* The node's state with a reference, made if there is none. */
static int find_or_insert(struct cmek_content *content, uint64_t node, struct cmek_ofile **ret_file)
{
	struct cmek_ofile *file, *made = NULL;
	int r;

	(void)pthread_mutex_lock(&content->files_lock);
	file = *ret_file = find_locked(content, node);
	(void)pthread_mutex_unlock(&content->files_lock);
	if (file != NULL)
		return 0;
	r = ofile_new(content, node, &made);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&content->files_lock);
	file = find_locked(content, node);
	if (file == NULL) {
		struct cmek_ofile **p = bucket_of(content, node);

		made->hash_next = *p;
		*p = file = made;
		made = NULL;
		content->n_files++;
	}
	(void)pthread_mutex_unlock(&content->files_lock);
	if (made != NULL)
		ofile_destroy(made);
	*ret_file = file;
	return 0;
}

static void queue_unlink_locked(struct cmek_content *content, struct cmek_ofile *file)
{
	if (!file->queued)
		return;
	*(file->queue_prev ? &file->queue_prev->queue_next : &content->queue_head) = file->queue_next;
	*(file->queue_next ? &file->queue_next->queue_prev : &content->queue_tail) = file->queue_prev;
	file->queue_prev = file->queue_next = NULL;
	file->queued = false;
	content->n_queued--;
}

void cmek_ofile_queue(struct cmek_ofile *file)
{
	struct cmek_content *content = file->content;

	if (atomic_load(&file->queued))
		return;
	(void)pthread_mutex_lock(&content->files_lock);
	if (!file->queued) {
		file->queued_ms = cmek_now_ms();
		file->queue_prev = content->queue_tail;
		*(content->queue_tail ? &content->queue_tail->queue_next : &content->queue_head) = file;
		content->queue_tail = file;
		file->queued = true;
		content->n_queued++;
	}
	(void)pthread_mutex_unlock(&content->files_lock);
}

struct cmek_ofile *cmek_ofile_dequeue(struct cmek_content *content, uint64_t min_age_ms, uint64_t *ret_wait_ms)
{
	struct cmek_ofile *file;
	uint64_t age;

	(void)pthread_mutex_lock(&content->files_lock);
	file = content->queue_head;
	*ret_wait_ms = min_age_ms;
	if (file != NULL) {
		age = cmek_now_ms() - file->queued_ms;
		if (age >= min_age_ms) {
			queue_unlink_locked(content, file);
			file->refs++;
		} else {
			*ret_wait_ms = min_age_ms - age;
			file = NULL;
		}
	}
	(void)pthread_mutex_unlock(&content->files_lock);
	return file;
}

bool cmek_ofile_any_closed(struct cmek_content *content)
{
	struct cmek_ofile *file;

	(void)pthread_mutex_lock(&content->files_lock);
	for (file = content->queue_head; file != NULL && file->refs > 0; file = file->queue_next)
		;
	(void)pthread_mutex_unlock(&content->files_lock);
	return file != NULL;
}

uint64_t cmek_ofile_oldest_ms(struct cmek_content *content)
{
	uint64_t ms = 0;

	(void)pthread_mutex_lock(&content->files_lock);
	if (content->queue_head != NULL)
		ms = cmek_now_ms() - content->queue_head->queued_ms;
	(void)pthread_mutex_unlock(&content->files_lock);
	return ms;
}

bool cmek_ofile_abandon(struct cmek_ofile *file)
{
	struct stat st;
	bool only;

	if (fstat(file->fd, &st) < 0 || st.st_nlink > 0)
		return false;
	(void)pthread_mutex_lock(&file->commit_lock);
	(void)pthread_rwlock_wrlock(&file->lock);
	(void)pthread_mutex_lock(&file->content->files_lock);
	only = file->refs == 1 && file->stuck == NULL;
	(void)pthread_mutex_unlock(&file->content->files_lock);
	if (only) {
		cmek_group_drop_range(file, 0, UINT64_MAX);
		(void)pthread_mutex_lock(&file->dirty_lock);
		file->size_dirty = file->mtime_dirty = file->free_holes = false;
		(void)pthread_mutex_unlock(&file->dirty_lock);
	}
	(void)pthread_rwlock_unlock(&file->lock);
	(void)pthread_mutex_unlock(&file->commit_lock);
	return only;
}

/* The last reference takes the file out of the table, unless it has changes that are not in the store. Its error ends with it. */
void cmek_ofile_unref(struct cmek_ofile *file)
{
	struct cmek_content *content = file->content;
	struct cmek_ofile **p;
	bool last = false;

	(void)pthread_mutex_lock(&content->files_lock);
	assert(file->refs > 0);
	/* Changes that wait have lost nothing yet: whoever opens the file next is told what becomes of them then. */
	if (--file->refs == 0 && file->stuck == NULL)
		atomic_store(&file->error, 0);
	if (file->refs == 0 && !cmek_commit_needed(file) && file->stuck == NULL) {
		for (p = bucket_of(content, file->node); *p != file; p = &(*p)->hash_next)
			;
		*p = file->hash_next;
		queue_unlink_locked(content, file);
		content->n_files--;
		last = true;
	}
	(void)pthread_mutex_unlock(&content->files_lock);
	if (last)
		ofile_destroy(file);
}

void cmek_content_forgotten(struct cmek_content *content, uint64_t node)
{
	struct cmek_ofile *file = cmek_ofile_find(content, node);

	if (file == NULL)
		return;
	(void)cmek_ofile_abandon(file);
	cmek_ofile_unref(file);
}

/* Its descriptor is one of those that are kept for what does not take long. */
static bool is_reserve(const struct cmek_ofile *file)
{
	return file->fd >= file->content->fds.user_end;
}

void cmek_ofile_close(struct cmek_ofile *file)
{
	struct cmek_content *content;
	bool last;

	if (file == NULL)
		return;
	content = file->content;
	(void)pthread_mutex_lock(&content->files_lock);
	/*
	 * With a journal nothing is gained by going to the store at once: the committer takes many files together. But it
	 * must not fall so far behind that their descriptors run out; and who empties a file to write it anew, and trusts
	 * the close, shall not find it empty seconds later (ext4's auto_da_alloc).
	 */
	last = file->refs == 1 && (content->journal == NULL || file->rewritten || is_reserve(file) ||
				   content->n_queued > 2 * content->max_queued);
	(void)pthread_mutex_unlock(&content->files_lock);
	if (last && cmek_commit_needed(file) && cmek_content_commit(file) < 0)
		cmek_ofile_queue(file); /* recorded and reported; the committer tries again */
	if (cmek_content_is_pressed(content))
		(void)pthread_cond_signal(&content->files_cond);
	cmek_ofile_unref(file);
}

/*
 * An empty store file has nothing in it that could fail to authenticate. But the kernel may know of a length, which it would
 * fill with zeros, and so it must be empty by our own doing.
 */
static bool was_emptied(const struct cmek_ofile *file)
{
	const struct cmek_content_host *host = &file->content->host;

	return file->over == NULL && host->has_data != NULL && host->has_data(host->arg, file->node);
}

/* Opens the store file if that was not done yet; file.lock held exclusively. */
static int open_fd_locked(struct cmek_ofile *file, int fd)
{
	struct cmek_content *content = file->content;
	struct stat st;
	bool empty, created = fd >= 0;
	int r;

	if (file->fd >= 0)
		return 0;
	file->writable = fd >= 0;
	if (fd < 0 && !content->params.read_only) {
		fd = content->host.open_store(content->host.arg, file->node, true);
		file->writable = fd >= 0;
	}
	/* A file that its owner may only read is opened so; a write to it is then refused as on the store. */
	if (fd < 0 && (content->params.read_only || fd == -EACCES || fd == -EPERM || fd == -EROFS))
		fd = content->host.open_store(content->host.arg, file->node, false);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	file->fd = fd;
	file->over = cmek_overlay_find(content->params.overlay, st.st_dev, st.st_ino);
	empty = file->over != NULL ? file->over->plain_size == 0 : st.st_size == 0;
	st.st_size = (off_t)cmek_content_plain_size(content->params.block_size, (uint64_t)st.st_size);
	cmek_content_stat(content, &st);
	file->size = (uint64_t)st.st_size;
	/* From here on writes move the store's, and this one is the truth. */
	(void)pthread_mutex_lock(&file->dirty_lock);
	file->mtime = st.st_mtim;
	file->mtime_valid = true;
	(void)pthread_mutex_unlock(&file->dirty_lock);
	atomic_store(&file->loaded, empty && (created || !was_emptied(file))); /* it has nothing to load */
	atomic_store(&file->live, true);
	return 0;
}

static int open_file(struct cmek_content *content, uint64_t node, int fd, bool briefly, struct cmek_ofile **ret_file)
{
	struct cmek_ofile *file;
	int spare = fd, r = find_or_insert(content, node, &file);

	if (r < 0) {
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	(void)pthread_rwlock_wrlock(&file->lock);
	r = open_fd_locked(file, fd);
	if (file->fd == fd)
		spare = -1;
	(void)pthread_rwlock_unlock(&file->lock);
	if (spare >= 0)
		(void)close(spare);
	if (r == 0 && !briefly && is_reserve(file))
		r = -EMFILE;
	if (r < 0) {
		cmek_ofile_unref(file);
		return r;
	}
	*ret_file = file;
	return 0;
}

int cmek_ofile_open(struct cmek_content *content, uint64_t node, int fd, bool trunc, struct cmek_ofile **ret_file)
{
	struct cmek_ofile *file = NULL;
	int r = open_file(content, node, fd, false, &file);

	if (r == 0 && trunc)
		r = cmek_content_truncate(file, 0);
	if (r == 0)
		*ret_file = file;
	else if (file)
		cmek_ofile_unref(file);
	return r;
}

int cmek_ofile_open_briefly(struct cmek_content *content, uint64_t node, struct cmek_ofile **ret_file)
{
	return open_file(content, node, -1, true, ret_file);
}

int cmek_ofile_seal_key(struct cmek_ofile *file, uint32_t n, uint64_t bytes, struct cmek_seal_right *ret_right,
			struct cmek_secret **ret_key)
{
	int r = cmek_keyring_seal_right(file->content->ring, n, ret_right);

	if (r == 0)
		cmek_keyring_count_sealed(file->content->ring, ret_right->dek, bytes);
	return r < 0 ? r : cmek_key_cache_get(file->content->keys, ret_right->dek, ret_right->salt, file->file_id, ret_key);
}

/* Stored bytes from the overlay, if it has that place, else from the store. */
static ssize_t read_stored(struct cmek_ofile *file, uint64_t place, uint64_t stored_off, void *buf, size_t len)
{
	const struct cmek_last_image *image = file->over != NULL ? cmek_last_image_find(file->over, place) : NULL;

	return image != NULL ? cmek_overlay_read(file->content->params.overlay, image, buf, len) :
			       cmek_pread_full(file->fd, buf, len, stored_off);
}

ssize_t cmek_ofile_read_block(struct cmek_ofile *file, uint64_t block, void *buf, size_t len)
{
	uint64_t stored_off = cmek_block_stored_off(file->content->params.block_size, block);

	return read_stored(file, CMEK_PLACE_BLOCK(block), stored_off, buf, len);
}

int cmek_ofile_read_page(struct cmek_ofile *file, uint64_t group, struct cmek_map_head *ret_head,
			 uint8_t ret_entries[CMEK_MAP_ENTRIES_BYTES], struct cmek_map_trailer *ret_trailer)
{
	uint32_t block_size = file->content->params.block_size;
	struct cmek_secret *key = NULL;
	uint8_t page[CMEK_MAP_BYTES];
	ssize_t n;
	int r;

	n = read_stored(file, CMEK_PLACE_PAGE(group), cmek_map_stored_off(block_size, group), page, sizeof(page));
	if (n < 0)
		return (int)n;
	if (n < (ssize_t)sizeof(page))
		return -EBADMSG; /* the store file ends before its sealed size */
	r = cmek_map_head_decode(page, ret_head);
	if (r == 0 && file->has_id && memcmp(ret_head->file_id, file->file_id, CMEK_FILE_ID_LEN) != 0)
		r = -EBADMSG;
	if (r == 0)
		r = cmek_key_cache_get(file->content->keys, ret_head->dek, ret_head->salt, ret_head->file_id, &key);
	if (r == 0)
		r = cmek_map_open(key, ret_head, block_size, group, page, ret_entries, ret_trailer);
	cmek_secret_free(key);
	return r;
}

/* Takes what the first map page says for the truth; a store file that a crash left longer is cut to it. */
static int load_locked(struct cmek_ofile *file)
{
	uint32_t block_size = file->content->params.block_size;
	uint8_t entries[CMEK_MAP_ENTRIES_BYTES];
	struct cmek_map_trailer trailer;
	struct cmek_map_head head;
	struct stat st;
	uint32_t i;
	int r = -ENODATA;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	if (st.st_size >= (off_t)CMEK_MAP_BYTES || file->over != NULL)
		r = cmek_ofile_read_page(file, 0, &head, entries, &trailer);
	if (r == -EBADMSG && st.st_size == (off_t)CMEK_MAP_BYTES)
		r = -ENODATA; /* a page and nothing behind it, never sealed: what a crash leaves of a new file */
	if (r == -ENODATA && was_emptied(file))
		r = -EBADMSG;
	if (r < 0 && r != -ENODATA)
		return r;
	if (r == 0) {
		for (i = 0; i < trailer.n_absent && r == 0; i++)
			r = cmek_absent_add(&file->absent, trailer.absent[i].first, trailer.absent[i].count);
		if (r < 0)
			return r;
		memcpy(file->file_id, head.file_id, CMEK_FILE_ID_LEN);
		file->size = file->sealed_size = trailer.plain_size;
		file->has_id = file->id_logged = true;
	}
	if (file->over == NULL && cmek_content_plain_size(block_size, (uint64_t)st.st_size) != file->size)
		atomic_store(&file->size_check, CMEK_SIZE_WRONG);
	if ((uint64_t)st.st_size > cmek_stored_size(block_size, file->size) && file->writable) {
		if (ftruncate(file->fd, (off_t)cmek_stored_size(block_size, file->size)) < 0)
			return -errno;
		if (atomic_load(&file->size_check) == CMEK_SIZE_WRONG)
			atomic_store(&file->size_check, CMEK_SIZE_MENDED);
	}
	atomic_store_explicit(&file->loaded, true, memory_order_release);
	return 0;
}

int cmek_ofile_load(struct cmek_ofile *file)
{
	int r = 0;

	if (atomic_load_explicit(&file->loaded, memory_order_acquire))
		return 0;
	(void)pthread_rwlock_wrlock(&file->lock);
	if (!atomic_load(&file->loaded))
		r = load_locked(file);
	(void)pthread_rwlock_unlock(&file->lock);
	return r;
}

enum cmek_size_check cmek_ofile_check_size(struct cmek_ofile *file)
{
	if (cmek_ofile_load(file) < 0)
		return CMEK_SIZE_TRUE;
	return (enum cmek_size_check)atomic_load(&file->size_check);
}

void cmek_ofile_fail(struct cmek_ofile *file, int error, const char *what)
{
	int none = 0;

	(void)atomic_compare_exchange_strong(&file->error, &none, error);
	file->content->host.report(file->content->host.arg, file->node, error, what);
}

int cmek_ofile_flush(struct cmek_ofile *file)
{
	return atomic_load(&file->error);
}

struct cmek_ofile_host *cmek_ofile_host(struct cmek_ofile *file)
{
	return &file->host;
}

uint64_t cmek_ofile_size(const struct cmek_ofile *file)
{
	return atomic_load(&file->size);
}

void cmek_ofile_set_size_locked(struct cmek_ofile *file, uint64_t size)
{
	file->size = size;
	file->fitted = false;
	(void)pthread_mutex_lock(&file->dirty_lock);
	file->size_dirty = true;
	(void)pthread_mutex_unlock(&file->dirty_lock);
}

bool cmek_ofile_mtime(struct cmek_ofile *file, struct timespec *ret_mtime)
{
	bool valid;

	(void)pthread_mutex_lock(&file->dirty_lock);
	valid = file->mtime_valid;
	if (valid)
		*ret_mtime = file->mtime;
	(void)pthread_mutex_unlock(&file->dirty_lock);
	return valid;
}

static void set_mtime(struct cmek_ofile *file, struct timespec mtime)
{
	(void)pthread_mutex_lock(&file->dirty_lock);
	file->mtime = mtime;
	file->mtime_valid = true;
	file->mtime_dirty = true;
	(void)pthread_mutex_unlock(&file->dirty_lock);
}

void cmek_ofile_set_mtime(struct cmek_ofile *file, struct timespec mtime)
{
	set_mtime(file, mtime);
	cmek_ofile_queue(file);
}

/* Whether a is later than b, and by less than a tick of the coarse clock. */
static bool is_just_after(const struct timespec *a, const struct timespec *b)
{
	int64_t ns = (int64_t)(a->tv_sec - b->tv_sec);

	if (ns < 0 || ns > 1)
		return false;
	ns = ns * 1000000000 + a->tv_nsec - b->tv_nsec;
	return ns > 0 && ns <= TICK_MAX_NS;
}

void cmek_ofile_touch(struct cmek_ofile *file)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME_COARSE, &now); /* can't fail; the clock that store file systems use */
	(void)pthread_mutex_lock(&file->dirty_lock);
	/* The kernel has finer times where somebody looks, and does not send again what it has sent: no step back. */
	if (!file->mtime_valid || !is_just_after(&file->mtime, &now))
		file->mtime = now;
	file->mtime_valid = file->mtime_dirty = true;
	(void)pthread_mutex_unlock(&file->dirty_lock);
}
