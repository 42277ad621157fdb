/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The two header copies of a store on the disk: load, pick, replace, and the lock that keeps a second writer out.
 * Knows what makes a copy good (volhdr.c says) but not what stands in it, and has no keys of its own.
 */
#include "config.h"

#include "fs/volume/volhdr_store.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"

#define N_COPIES 2
#define LOCK_TICK_MS 50

/* What the bytes of the lock file stand for (doc/format.md section 1). */
enum lock_byte { LOCK_STORE = 0, LOCK_HEADER = 1 };

static const char *const copy_names[N_COPIES] = { "header.0", "header.1" };

/* hdr NULL = not usable, err says why; bytes NULL = could not even be read. */
struct copy {
	uint8_t *bytes;
	size_t len;
	struct cmek_volhdr *hdr;
	struct cmek_error err;
};

struct cmek_volhdr_store {
	int meta_fd;
	int lock_fd; /* -1 for CMEK_STORE_PEEK */
	enum cmek_store_access access;
	struct copy copies[N_COPIES];
	int picked;
	bool none;    /* no copy is usable, or they belong to two volumes: none is picked */
	bool yielded; /* the copy that is not picked was given up by the caller */
};

void cmek_report(const struct cmek_report *report, const char *fmt, ...)
{
	char line[2 * CMEK_ERROR_TEXT_MAX];
	va_list ap;

	if (!report || !report->line)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	report->line(report->arg, line);
}

static void copy_done(struct copy *copy)
{
	free(copy->bytes);
	cmek_volhdr_free(copy->hdr);
	memset(copy, 0, sizeof(*copy));
}

void cmek_volhdr_store_close(struct cmek_volhdr_store *store)
{
	int i;

	if (!store)
		return;
	for (i = 0; i < N_COPIES; i++)
		copy_done(&store->copies[i]);
	if (store->lock_fd >= 0)
		close(store->lock_fd);
	if (store->meta_fd >= 0)
		close(store->meta_fd);
	free(store);
}

static int open_meta(int store_fd, int *ret_fd, struct cmek_error *err)
{
	int fd = openat(store_fd, CMEK_META_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	switch (errno) {
	case ENOENT:
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT,
				      "no cmekfs volume here: there is no " CMEK_META_DIR);
	case ENOTDIR:
	case ELOOP:
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, ENOTDIR, CMEK_META_DIR " is not a directory");
	default:
		return cmek_error_sys(err, errno, "can't open " CMEK_META_DIR);
	}
}

static int open_lock(int meta_fd, enum cmek_store_access access, int *ret_fd, struct cmek_error *err)
{
	bool read = access == CMEK_STORE_READ;
	struct stat st;
	int fd;

	fd = openat(meta_fd, "lock",
		    (read ? O_RDONLY : O_RDWR) | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
	if (fd < 0)
		return cmek_error_sys(err, errno, "can't open " CMEK_META_DIR "/lock");
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, CMEK_META_DIR "/lock is not a regular file");
	}
	*ret_fd = fd;
	return 0;
}

/*
 * An open-file-description lock: it lasts as long as any process has the descriptor, and ends with the last one.
 * type: as in struct flock. -EBUSY, without a word to err, when somebody else has it.
 */
static int set_lock(int fd, enum lock_byte byte, short type, struct cmek_error *err)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return -EBUSY;
	return cmek_error_sys(err, errno, "can't lock " CMEK_META_DIR "/lock");
}

static int lock_store(struct cmek_volhdr_store *store, struct cmek_error *err)
{
	bool write = store->access != CMEK_STORE_READ;
	int ret = set_lock(store->lock_fd, LOCK_STORE, write ? F_WRLCK : F_RDLCK, err);

	if (ret == -EBUSY)
		return cmek_error_set(err, CMEK_E_BUSY, EBUSY, "the volume is in use by %s",
				      write ? "another mount or program" : "a mount or program that writes to it");
	return ret;
}

/* The right to change the copies: for good with CMEK_STORE_CHANGE, else until unlock_header(). */
static int lock_header(struct cmek_volhdr_store *store, unsigned wait_ms, struct cmek_error *err)
{
	const struct timespec tick = { 0, LOCK_TICK_MS * 1000000L };
	unsigned waited_ms = 0;
	int ret;

	while ((ret = set_lock(store->lock_fd, LOCK_HEADER, F_WRLCK, err)) == -EBUSY && waited_ms < wait_ms) {
		(void)nanosleep(&tick, NULL); /* sooner is fine */
		waited_ms += LOCK_TICK_MS;
	}
	if (ret == -EBUSY)
		return cmek_error_set(err, CMEK_E_BUSY, EBUSY, "another program is changing the volume's header");
	return ret;
}

static void unlock_header(struct cmek_volhdr_store *store)
{
	if (store->access != CMEK_STORE_CHANGE)
		(void)set_lock(store->lock_fd, LOCK_HEADER, F_UNLCK, NULL); /* giving up one's own lock can't fail */
}

bool cmek_volhdr_is_temporary(const char *name)
{
	size_t len = strlen(name), before = strlen(CMEK_TEMP_PREFIX), behind = strlen(CMEK_TEMP_SUFFIX);

	return len > before + behind && !strncmp(name, CMEK_TEMP_PREFIX, before) &&
	       !strcmp(name + len - behind, CMEK_TEMP_SUFFIX);
}

/* Half-written copies of a crash. What can't be removed does no harm. */
static void remove_temporaries(int meta_fd)
{
	int fd = openat(meta_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(dir)))
		if (cmek_volhdr_is_temporary(entry->d_name))
			(void)unlinkat(meta_fd, entry->d_name, 0);
	closedir(dir);
}

static void load_copy(int meta_fd, int i, struct copy *copy)
{
	if (!cmek_read_file(meta_fd, copy_names[i], CMEK_VOLHDR_LEN_MAX, &copy->bytes, &copy->len, &copy->err))
		(void)cmek_volhdr_decode(copy->bytes, copy->len, &copy->hdr, &copy->err); /* err and hdr tell */
	if (copy->err.kind == CMEK_E_USAGE)
		copy->err.kind = CMEK_E_BAD_FORMAT; /* no regular file: nobody has chosen this one */
	if (copy->err.err != EIDRM)
		cmek_error_prefix(&copy->err, "%s", copy_names[i]);
}

/* A whole copy of a later time that this program must not pass over for an older one. */
static bool is_newer(const struct copy *copy, uint64_t sequence)
{
	uint64_t its;

	return !copy->hdr && copy->bytes && copy->err.kind == CMEK_E_UNSUPPORTED &&
	       cmek_volhdr_intact(copy->bytes, copy->len, &its) && its > sequence;
}

static bool copy_tombstone(const struct copy *copy, struct cmek_tombstone *ret_tombstone)
{
	return copy->bytes && cmek_tombstone_decode(copy->bytes, copy->len, ret_tombstone);
}

static int pick(struct cmek_volhdr_store *store, const struct cmek_report *report, struct cmek_error *err)
{
	struct copy *a = &store->copies[0], *b = &store->copies[1];
	char uuids[N_COPIES][CMEK_UUID_TEXT];
	struct cmek_tombstone tombstone;
	const struct cmek_volhdr *other;
	const struct copy *bad;
	int i;

	/* One is enough: a shredding that was cut off has begun. A header that was brought back later is newer. */
	for (i = 0; i < N_COPIES; i++) {
		other = store->copies[!i].hdr;
		if (copy_tombstone(&store->copies[i], &tombstone) && (!other || other->sequence <= tombstone.sequence))
			return cmek_error_set(err, CMEK_E_KEY_DESTROYED, EIDRM, "%s", store->copies[i].err.text);
	}
	if (!a->hdr && !b->hdr)
		return cmek_error_set(err, a->err.kind == b->err.kind ? a->err.kind : CMEK_E_BAD_FORMAT, a->err.err,
				      "neither copy of the volume header is usable: %s; %s", a->err.text, b->err.text);
	if (a->hdr && b->hdr) {
		if (memcmp(a->hdr->uuid, b->hdr->uuid, 16)) {
			cmek_uuid_encode(a->hdr->uuid, uuids[0]);
			cmek_uuid_encode(b->hdr->uuid, uuids[1]);
			return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL,
					      "the header copies belong to two volumes, %s and %s", uuids[0], uuids[1]);
		}
		store->picked = b->hdr->sequence > a->hdr->sequence;
		return 0;
	}
	store->picked = b->hdr != NULL;
	bad = a->hdr ? b : a;
	if (is_newer(bad, store->copies[store->picked].hdr->sequence))
		return cmek_error_set(err, bad->err.kind, bad->err.err, "%s", bad->err.text);
	cmek_report(report, "%s; the other copy is used", bad->err.text);
	return 0;
}

/* The access's lock; what a crash has left goes, unless somebody is changing the header now, whose it may be. */
static int take_locks(struct cmek_volhdr_store *store, unsigned wait_ms, struct cmek_error *err)
{
	int ret = open_lock(store->meta_fd, store->access, &store->lock_fd, err);

	if (!ret && store->access == CMEK_STORE_CHANGE)
		ret = lock_header(store, wait_ms, err);
	else if (!ret)
		ret = lock_store(store, err);
	if (ret || store->access == CMEK_STORE_READ)
		return ret;
	if (store->access == CMEK_STORE_CHANGE || !lock_header(store, 0, NULL)) {
		remove_temporaries(store->meta_fd);
		unlock_header(store);
	}
	return 0;
}

/* The metadata directory, the locks, and both copies as they are. */
static int open_copies(int store_fd, enum cmek_store_access access, struct cmek_volhdr_store **ret_store,
		       struct cmek_error *err)
{
	struct cmek_volhdr_store *store = calloc(1, sizeof(*store));
	unsigned wait_ms = access == CMEK_STORE_CHANGE_NOW ? 0 : CMEK_HEADER_WAIT_MS;
	int i, ret;

	if (!store)
		return cmek_error_sys(err, ENOMEM, "volume header");
	store->access = access == CMEK_STORE_CHANGE_NOW ? CMEK_STORE_CHANGE : access;
	store->meta_fd = store->lock_fd = -1;
	ret = open_meta(store_fd, &store->meta_fd, err);
	if (!ret && access != CMEK_STORE_PEEK)
		ret = take_locks(store, wait_ms, err);
	if (ret) {
		cmek_volhdr_store_close(store);
		return ret;
	}
	for (i = 0; i < N_COPIES; i++)
		load_copy(store->meta_fd, i, &store->copies[i]);
	*ret_store = store;
	return 0;
}

int cmek_volhdr_store_open(int store_fd, enum cmek_store_access access, const struct cmek_report *report,
			   struct cmek_volhdr_store **ret_store, struct cmek_error *err)
{
	struct cmek_volhdr_store *store = NULL;
	int ret = open_copies(store_fd, access, &store, err);

	if (!ret)
		ret = pick(store, report, err);
	if (ret) {
		cmek_volhdr_store_close(store);
		return ret;
	}
	*ret_store = store;
	return 0;
}

int cmek_volhdr_store_open_any(int store_fd, enum cmek_store_access access, struct cmek_volhdr_store **ret_store,
			       struct cmek_error *err)
{
	struct cmek_volhdr_store *store = NULL;
	int ret = open_copies(store_fd, access, &store, err);

	if (ret)
		return ret;
	store->none = pick(store, NULL, NULL) != 0;
	*ret_store = store;
	return 0;
}

int cmek_volhdr_store_claim(struct cmek_volhdr_store *store, struct cmek_error *err)
{
	assert(store->access == CMEK_STORE_CHANGE);
	return lock_store(store, err);
}

int cmek_volhdr_store_reload(struct cmek_volhdr_store *store, struct cmek_error *err)
{
	struct cmek_volhdr_store fresh = { .meta_fd = store->meta_fd };
	int i, ret;

	for (i = 0; i < N_COPIES; i++)
		load_copy(store->meta_fd, i, &fresh.copies[i]);
	ret = pick(&fresh, NULL, err);
	if (!ret && memcmp(fresh.copies[fresh.picked].hdr->uuid, store->copies[store->picked].hdr->uuid, 16))
		ret = cmek_error_set(err, CMEK_E_MISMATCH, EXDEV, "the header is another volume's now");
	for (i = 0; i < N_COPIES; i++)
		copy_done(ret ? &fresh.copies[i] : &store->copies[i]);
	if (ret)
		return ret;
	memcpy(store->copies, fresh.copies, sizeof(store->copies));
	store->picked = fresh.picked;
	store->yielded = false;
	return 0;
}

bool cmek_volhdr_store_shredded(const struct cmek_volhdr_store *store, struct cmek_tombstone *ret_tombstone)
{
	return copy_tombstone(&store->copies[0], ret_tombstone) || copy_tombstone(&store->copies[1], ret_tombstone);
}

uint64_t cmek_volhdr_store_newest(const struct cmek_volhdr_store *store)
{
	struct cmek_tombstone tombstone;
	uint64_t newest = 0, its;
	int i;

	for (i = 0; i < N_COPIES; i++) {
		its = store->copies[i].hdr ? store->copies[i].hdr->sequence : 0;
		if (copy_tombstone(&store->copies[i], &tombstone))
			its = tombstone.sequence;
		if (its > newest)
			newest = its;
	}
	return newest;
}

enum cmek_store_access cmek_volhdr_store_access(const struct cmek_volhdr_store *store)
{
	return store->access;
}

const struct cmek_volhdr *cmek_volhdr_store_header(const struct cmek_volhdr_store *store)
{
	return store->none ? NULL : store->copies[store->picked].hdr;
}

int cmek_volhdr_store_yield(struct cmek_volhdr_store *store)
{
	if (store->yielded || !store->copies[!store->picked].hdr)
		return -ENOENT;
	store->yielded = true;
	store->picked = !store->picked;
	return 0;
}

int cmek_volhdr_store_copy(const struct cmek_volhdr_store *store, struct cmek_volhdr **ret_hdr, struct cmek_error *err)
{
	const struct copy *copy = &store->copies[store->picked];

	return cmek_volhdr_decode(copy->bytes, copy->len, ret_hdr, err);
}

const uint8_t *cmek_volhdr_store_bytes(const struct cmek_volhdr_store *store, size_t *ret_len, const char **ret_name)
{
	*ret_name = copy_names[store->picked];
	*ret_len = store->copies[store->picked].len;
	return store->copies[store->picked].bytes;
}

static bool same_bytes(const struct copy *copy, const uint8_t *bytes, size_t len)
{
	return copy->bytes && bytes && copy->len == len && !memcmp(copy->bytes, bytes, len);
}

bool cmek_volhdr_store_unequal(const struct cmek_volhdr_store *store)
{
	return !same_bytes(&store->copies[0], store->copies[1].bytes, store->copies[1].len);
}

static int write_copy(int meta_fd, int i, const uint8_t *bytes, size_t len, struct cmek_error *err)
{
	return cmek_replace_file(meta_fd, copy_names[i], bytes, len, 0600, err);
}

/* What is on the disk now is what was loaded. The lock sees to that; a file restored by hand does not ask for it. */
static int check_not_stale(const struct cmek_volhdr_store *store, struct cmek_error *err)
{
	uint8_t *bytes;
	size_t len = 0;
	bool same;
	int i, ret;

	for (i = 0; i < N_COPIES; i++) {
		bytes = NULL;
		ret = cmek_read_file(store->meta_fd, copy_names[i], CMEK_VOLHDR_LEN_MAX, &bytes, &len, NULL);
		same = ret ? !store->copies[i].bytes : same_bytes(&store->copies[i], bytes, len);
		free(bytes);
		if (!same)
			return cmek_error_set(err, CMEK_E_BUSY, ESTALE,
					      "%s was changed by somebody else in the meantime", copy_names[i]);
	}
	return 0;
}

/* Puts bytes (copied) and *hdr (taken over) in the place of what was loaded for a copy. */
static int keep_copy(struct copy *copy, const uint8_t *bytes, size_t len, struct cmek_volhdr **hdr,
		     struct cmek_error *err)
{
	uint8_t *kept = malloc(len);

	if (!kept)
		return cmek_error_sys(err, ENOMEM, "volume header");
	memcpy(kept, bytes, len);
	copy_done(copy);
	copy->bytes = kept;
	copy->len = len;
	copy->hdr = *hdr;
	*hdr = NULL;
	return 0;
}

/*
 * Writes a copy; *hdr, which says the same as bytes, is taken over (nulled) once they are what stands on the disk. That
 * can be so after a failure, too: the new file was in its place and the directory could not be flushed.
 */
static int put_copy(struct cmek_volhdr_store *store, int i, const uint8_t *bytes, size_t len, struct cmek_volhdr **hdr,
		    struct cmek_error *err)
{
	int ret = write_copy(store->meta_fd, i, bytes, len, err), kept = 0;
	uint8_t *now = NULL;
	size_t now_len = 0;
	bool there = !ret;

	if (ret && !cmek_read_file(store->meta_fd, copy_names[i], CMEK_VOLHDR_LEN_MAX, &now, &now_len, NULL))
		there = now_len == len && !memcmp(now, bytes, len);
	free(now);
	if (there)
		kept = keep_copy(&store->copies[i], bytes, len, hdr, err);
	return ret ? ret : kept;
}

static bool can_write(const struct cmek_volhdr_store *store)
{
	return store->access == CMEK_STORE_WRITE || store->access == CMEK_STORE_CHANGE;
}

int cmek_volhdr_store_repair(struct cmek_volhdr_store *store, struct cmek_error *err)
{
	const struct copy *good = &store->copies[store->picked];
	struct cmek_volhdr *hdr = NULL;
	int ret;

	assert(can_write(store));
	ret = lock_header(store, 0, err);
	if (ret)
		return ret;
	ret = check_not_stale(store, err);
	if (!ret)
		ret = cmek_volhdr_decode(good->bytes, good->len, &hdr, err);
	if (!ret)
		ret = put_copy(store, !store->picked, good->bytes, good->len, &hdr, err);
	unlock_header(store);
	cmek_volhdr_free(hdr);
	return ret;
}

int cmek_volhdr_store_put(struct cmek_volhdr_store *store, struct cmek_volhdr **hdr, const struct cmek_secret *mac_key,
			  struct cmek_error *err)
{
	int other = !store->picked, ret;
	struct cmek_volhdr *proof = NULL;
	uint8_t *bytes = NULL;
	size_t len = 0;

	assert(can_write(store));
	ret = lock_header(store, CMEK_HEADER_WAIT_MS, err);
	if (ret)
		return ret;
	ret = check_not_stale(store, err);
	if (!ret)
		ret = cmek_volhdr_encode(*hdr, mac_key, &bytes, &len, err);
	/* What can't be read back must not replace what can. */
	if (!ret)
		ret = cmek_volhdr_decode(bytes, len, &proof, err);
	if (ret)
		goto out;
	ret = put_copy(store, other, bytes, len, hdr, err);
	if (!*hdr) {
		store->picked = other;
		store->none = store->yielded = false;
	}
	if (!ret)
		ret = put_copy(store, !other, bytes, len, &proof, err);
out:
	unlock_header(store);
	cmek_volhdr_free(proof);
	free(bytes);
	return ret;
}

int cmek_volhdr_store_update(struct cmek_volhdr_store *store, struct cmek_volhdr **hdr,
			     const struct cmek_secret *mac_key, struct cmek_error *err)
{
	(*hdr)->sequence = store->copies[store->picked].hdr->sequence + 1;
	return cmek_volhdr_store_put(store, hdr, mac_key, err);
}

int cmek_volhdr_store_create(int meta_fd, const struct cmek_volhdr *hdr, const struct cmek_secret *mac_key,
			     struct cmek_error *err)
{
	struct cmek_volhdr *proof = NULL;
	uint8_t *bytes = NULL;
	size_t len = 0;
	int i, ret;

	ret = cmek_volhdr_encode(hdr, mac_key, &bytes, &len, err);
	if (!ret)
		ret = cmek_volhdr_decode(bytes, len, &proof, err);
	for (i = 0; !ret && i < N_COPIES; i++)
		ret = write_copy(meta_fd, i, bytes, len, err);
	cmek_volhdr_free(proof);
	free(bytes);
	return ret;
}

const char *cmek_volhdr_store_problem(const struct cmek_volhdr_store *store, int i, uint64_t *ret_sequence)
{
	const struct copy *copy = &store->copies[i];

	if (!copy->hdr)
		return copy->err.text;
	*ret_sequence = copy->hdr->sequence;
	return NULL;
}

enum cmek_store_use cmek_volhdr_store_use(const struct cmek_volhdr_store *store)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_STORE, .l_len = 1 };
	enum cmek_store_use use = CMEK_USE_UNKNOWN;
	int fd;

	fd = openat(store->meta_fd, "lock", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return use;
	if (!fcntl(fd, F_OFD_GETLK, &lock))
		use = lock.l_type == F_UNLCK   ? CMEK_USE_NONE
		      : lock.l_type == F_RDLCK ? CMEK_USE_READERS
					       : CMEK_USE_WRITER;
	close(fd);
	return use;
}
