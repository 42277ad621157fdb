/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Replay: for each journal of the store its records are read (replay_log.c), reduced to the last state of each file
 * (replay_state.c), and that is written (replay_apply.c) or laid over the store. What becomes of a journal is decided here.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "fs/content/replay.h"
#include "fs/content/replay_apply.h"
#include "fs/content/replay_log.h"

#define JOURNALS_MAX 64

struct replay {
	const struct cmek_replay_params *params;
	struct cmek_replay_result *result;
	struct cmek_keyring *ring;
	struct cmek_overlay **overlay; /* to be made instead of writing; NULL = write */
	struct cmek_error *err;
};

/* One journal of them. */
struct one {
	struct replay *replay;
	const char *name;
	int fd;
	struct cmek_replay_log log;
	struct cmek_last_states states;
};

static void say(const struct replay *rp, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct replay *rp, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (rp->params->report == NULL)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	rp->params->report(rp->params->arg, text);
}

static bool writes(const struct replay *rp)
{
	return !rp->params->dry_run && rp->overlay == NULL;
}

/* ---- what becomes of the journal ---- */

/* Out of the way of the next mount, which makes a new one, and kept for a person to look at. */
static int keep_journal(const struct one *one, const char *why)
{
	const struct replay *rp = one->replay;
	int meta = rp->params->meta_fd, lost, r = -EEXIST;
	char target[128];
	unsigned i;

	if (mkdirat(meta, "lost", 0700) < 0 && errno != EEXIST)
		return -errno;
	lost = openat(meta, "lost", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (lost < 0)
		return -errno;
	for (i = 0; r == -EEXIST && i < 10000; i++) {
		(void)snprintf(target, sizeof(target), "%s.%u", one->name, i);
		r = linkat(meta, one->name, lost, target, 0) == 0 ? 0 : -errno;
	}
	/* The copy is durable before the name goes, or there would be a time with neither. */
	if (r == 0 && (fsync(lost) < 0 || unlinkat(meta, one->name, 0) < 0 || fsync(meta) < 0))
		r = -errno;
	(void)close(lost);
	if (r == 0)
		say(rp, "%s: the journal is kept as .cmekfs/lost/%s", why, target);
	return r;
}

static int mark_empty(const struct one *one)
{
	struct cmek_journal_super super = one->log.super;
	uint8_t buf[CMEK_JOURNAL_UNIT];
	int r;

	super.sequence++;
	super.empty = true;
	r = cmek_journal_super_encode(one->replay->ring, one->replay->params->volume, &super, buf);
	if (r == 0)
		r = cmek_pwrite_full(one->fd, buf, sizeof(buf), super.sequence % 2 * CMEK_JOURNAL_UNIT);
	return r == 0 && fsync(one->fd) < 0 ? -errno : r;
}

static int retire(const struct one *one, uint64_t lost)
{
	char why[80];

	if (one->log.damaged)
		return keep_journal(one, "a damaged journal was salvaged");
	if (lost == 0)
		return mark_empty(one);
	(void)snprintf(why, sizeof(why), "%" PRIu64 " files of the journal were not found", lost);
	return keep_journal(one, why);
}

/* ---- one journal ---- */

static int fail(const struct one *one, int r)
{
	struct cmek_error *err = one->replay->err;

	if (r == -EUCLEAN)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EUCLEAN, ".cmekfs/%s: a record of it makes no sense", one->name);
	if (r == -ENOKEY || r == -EKEYREVOKED)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, -r,
				      ".cmekfs/%s is under a data key that the header does not have", one->name);
	return cmek_error_sys(err, -r, "replay of .cmekfs/%s", one->name);
}

/* No superblock: which records there should be is not known, so none can be used. */
static int no_superblock(const struct one *one, int r)
{
	struct replay *rp = one->replay;

	if (r != -EBADMSG && r != -EIO)
		return fail(one, r);
	if (!rp->params->salvage && r == -EIO)
		return cmek_error_set(rp->err, CMEK_E_TAMPERED, EUCLEAN, ".cmekfs/%s: no superblock of it can be read",
				      one->name);
	if (!rp->params->salvage)
		return cmek_error_set(rp->err, CMEK_E_TAMPERED, EUCLEAN, ".cmekfs/%s: no superblock of it authenticates",
				      one->name);
	rp->result->journals++;
	rp->result->damaged++;
	say(rp, ".cmekfs/%s: no superblock of it is good, so none of its records can be used: changes that were synced may "
	    "be missing, and what was being written reads as an error", one->name);
	return writes(rp) ? keep_journal(one, "a journal without a good superblock") : 0;
}

static int damaged(const struct one *one)
{
	struct replay *rp = one->replay;

	if (!rp->params->salvage)
		return cmek_error_set(rp->err, CMEK_E_TAMPERED, EUCLEAN,
				      ".cmekfs/%s: record %" PRIu64 " is damaged (%" PRIu64 " whole ones before it, %" PRIu64
				      " behind it): changes that were synced are lost with it",
				      one->name, one->log.missing_seq, one->log.n_records - one->log.n_behind,
				      one->log.n_behind);
	rp->result->damaged++;
	say(rp, ".cmekfs/%s: record %" PRIu64 " is damaged, the other %" PRIu64 " are used: changes that were synced may be "
	    "missing, and blocks read as errors where they do not fit", one->name, one->log.missing_seq,
	    one->log.n_records);
	return 0;
}

static int make_overlay(struct one *one)
{
	if (*one->replay->overlay != NULL)
		return cmek_error_set(one->replay->err, CMEK_E_UNSUPPORTED, EOPNOTSUPP,
				      "several journals are not empty: only a read-write mount can replay them");
	return cmek_overlay_new(&one->fd, &one->states, one->replay->overlay);
}

static int apply(struct one *one)
{
	struct replay *rp = one->replay;
	struct cmek_replay_apply step = { .params = rp->params, .result = rp->result, .log = &one->log,
					  .write = writes(rp) };
	int r;

	if (rp->params->dry_run) {
		rp->result->files += one->states.n;
		return 0;
	}
	r = cmek_replay_apply(&step, &one->states);
	if (r == 0)
		r = step.write ? retire(one, step.lost) : make_overlay(one);
	rp->result->store_failed = r == -ENOSPC || r == -EDQUOT || r == -EIO || r == -EROFS || r == -EFBIG;
	return r < 0 ? fail(one, r) : 0;
}

static int replay_open_journal(struct one *one)
{
	struct replay *rp = one->replay;
	int r = cmek_replay_log_open(&one->log);

	if (r == -ENODATA || (r == 0 && one->log.super.empty))
		return 0;
	if (r < 0)
		return no_superblock(one, r);
	r = cmek_last_states_init(&one->states, rp->params->block_size);
	if (r == 0)
		r = cmek_replay_log_read(&one->log, &one->states);
	if (r < 0)
		return fail(one, r);
	if (one->log.damaged && (r = damaged(one)) < 0)
		return r;
	rp->result->journals++;
	rp->result->records += one->log.n_records;
	return apply(one);
}

static int replay_journal(struct replay *rp, const char *name)
{
	struct one one = { .replay = rp, .name = name, .log = { .ring = rp->ring } };
	struct stat st;
	int r;

	memcpy(one.log.volume, rp->params->volume, sizeof(one.log.volume));
	/* not waiting for whoever would write to a FIFO */
	one.fd = openat(rp->params->meta_fd, name,
			(writes(rp) ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (one.fd < 0)
		return cmek_error_sys(rp->err, errno, ".cmekfs/%s", name);
	one.log.fd = one.fd;
	if (fstat(one.fd, &st) < 0)
		r = cmek_error_sys(rp->err, errno, ".cmekfs/%s", name);
	else if (!S_ISREG(st.st_mode))
		r = cmek_error_set(rp->err, CMEK_E_TAMPERED, EBADMSG, ".cmekfs/%s: not a regular file", name);
	else
		r = replay_open_journal(&one);
	cmek_last_states_done(&one.states);
	if (one.fd >= 0)
		(void)close(one.fd); /* what was written to it was flushed */
	return r;
}

/* ---- all of them ---- */

static int compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The numbers N of all journal.N, in ascending order. */
static int list_journals(const struct replay *rp, uint64_t *numbers, size_t *ret_n)
{
	int fd = openat(rp->params->meta_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	size_t n = 0;
	int r = 0;

	if (dir == NULL) {
		r = cmek_error_sys(rp->err, errno, ".cmekfs");
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, entry = readdir(dir)) != NULL) {
		if (strncmp(entry->d_name, "journal.", 8) != 0 || (entry->d_name[8] == '0' && entry->d_name[9] != 0) ||
		    cmek_parse_u64(entry->d_name + 8, UINT32_MAX, numbers + n) < 0)
			continue; /* another file */
		if (++n == JOURNALS_MAX)
			r = cmek_error_set(rp->err, CMEK_E_LIMIT, EMFILE, ".cmekfs: more than %d journals", JOURNALS_MAX - 1);
	}
	if (r == 0 && errno != 0)
		r = cmek_error_sys(rp->err, errno, ".cmekfs");
	(void)closedir(dir);
	qsort(numbers, n, sizeof(*numbers), compare_numbers);
	*ret_n = n;
	return r;
}

static int replay_all(struct replay *rp)
{
	uint64_t numbers[JOURNALS_MAX];
	char name[32];
	size_t i, n = 0;
	int r;

	memset(rp->result, 0, sizeof(*rp->result));
	r = list_journals(rp, numbers, &n);
	for (i = 0; r == 0 && i < n; i++) {
		(void)snprintf(name, sizeof(name), "journal.%" PRIu64, numbers[i]);
		r = replay_journal(rp, name);
	}
	return r;
}

int cmek_replay(struct cmek_keyring *ring, const struct cmek_replay_params *params,
		struct cmek_replay_result *ret_result, struct cmek_error *err)
{
	struct replay rp = { params, ret_result, ring, NULL, err };

	return replay_all(&rp);
}

int cmek_replay_overlay(struct cmek_keyring *ring, const struct cmek_replay_params *params,
			struct cmek_overlay **ret_overlay, struct cmek_replay_result *ret_result, struct cmek_error *err)
{
	struct cmek_overlay *overlay = NULL;
	struct replay rp = { params, ret_result, ring, &overlay, err };
	int r = replay_all(&rp);

	if (r < 0)
		cmek_overlay_free(overlay);
	else
		*ret_overlay = overlay;
	return r;
}
