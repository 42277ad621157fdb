/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Every short sequence of operations on two tiny files, cut at every point, by the code itself: content layer, journal,
 * replay and overlay run over files whose writes and flushes are recorded, and each disk that a power cut can leave is
 * mounted. A file must then be, byte for byte, one of the states it went through since its last sync was answered;
 * read-only mounts must show what replay makes of it; and a replay that is cut as well must come to the same. The same
 * for a commit and a writer that are interleaved in every order.
 *
 * CMEK_CRASH_DEPTH: operations in a sequence (2, with sanitizers 1).
 * CMEK_CRASH_STATES: disks tried for each cut, when there are more (12; 3 with a writer beside a commit).
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>

#include "fs/content/commit.h"
#include "fs/content/ofile.h"
#include "tests/unit/crash_disk.h"
#include "tests/unit/journal_fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DEPTH_DEFAULT 1
#else
#define DEPTH_DEFAULT 2
#endif

enum { BLOCK = 4096, JOURNAL_BYTES = 8 << 20, FILE_MAX = 4 << 20, FILES = 2, DEPTH_MAX = 6, ACKS_MAX = 64 };

ssize_t __real_pwrite(int fd, const void *buf, size_t n, off_t off);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t off);
ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t off);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t off);
int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __real_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

static struct jf_store store;
static struct crash_disk disk;
static struct crash_content base[CRASH_FILES], durable[CRASH_FILES], image[CRASH_FILES],
	second[CRASH_FILES];

/* What a file held at some time. */
struct version {
	uint64_t size;
	uint8_t *bytes;
};

/* One run of a sequence. */
static struct {
	struct cmek_content *content;
	struct cmek_ofile *files[FILES];
	struct version versions[FILES][DEPTH_MAX + 4];
	unsigned n_versions; /* of each file */
	void (*warm_up)(void); /* before the sequence, or NULL */
	struct {
		size_t at; /* how many changes of the disk were recorded when it was answered */
		unsigned file, version;
	} acks[ACKS_MAX];
	unsigned n_acks;
	char what[256]; /* for messages */
	unsigned states; /* disks tried for each cut */
} run;

/* A large write during which other things happen: each time that it is about to write a group after the first in place. */
static struct {
	bool armed;
	unsigned slot;		/* how often that was */
	unsigned group;		/* the next one that the newest version does not have */
	const uint8_t *data;	/* of the file, from its beginning */
	unsigned step, step_at[3]; /* the commit's next step, and in which slot each comes */
	void (*other)(void);	/* something else, or NULL, in this slot, before or behind the steps there */
	unsigned other_at;
	bool other_first;
	struct cmek_commit commit;
	unsigned version; /* what the commit has */
} beside;
static void beside_pwrite(int fd, uint64_t off, size_t n);

static uint64_t n_sequences, n_cuts, n_images, n_second;
static uint64_t seed = 1;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static unsigned env_number(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text != NULL ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

/* ---- the recorder ---- */

ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t off)
{
	if (beside.armed)
		beside_pwrite(fd, (uint64_t)off, n);
	crash_record(&disk, fd, CRASH_WRITE, (uint64_t)off, n, buf);
	return __real_pwrite(fd, buf, n, off);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	uint64_t at = (uint64_t)off, len = 0;
	uint8_t *all;
	int i;

	for (i = 0; i < n; i++)
		len += iov[i].iov_len;
	all = malloc(len + 1);
	ck_assert_ptr_nonnull(all);
	for (i = 0, len = 0; i < n; len += iov[i++].iov_len)
		if (iov[i].iov_len > 0)
			memcpy(all + len, iov[i].iov_base, iov[i].iov_len);
	crash_record(&disk, fd, CRASH_WRITE, at, len, all);
	free(all);
	return __real_pwritev(fd, iov, n, off);
}

int __wrap_ftruncate(int fd, off_t size)
{
	crash_record(&disk, fd, CRASH_TRUNCATE, (uint64_t)size, 0, NULL);
	return __real_ftruncate(fd, size);
}

int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
	if (mode & FALLOC_FL_PUNCH_HOLE)
		crash_record(&disk, fd, CRASH_PUNCH, (uint64_t)off, (uint64_t)len, NULL);
	return __real_fallocate(fd, mode, off, len);
}

int __wrap_fsync(int fd)
{
	crash_record(&disk, fd, CRASH_FLUSH, 0, 0, NULL);
	return __real_fsync(fd);
}

int __wrap_fdatasync(int fd)
{
	crash_record(&disk, fd, CRASH_FLUSH, 0, 0, NULL);
	return __real_fdatasync(fd);
}

static int host_flush(void *arg)
{
	(void)arg;
	crash_record_sync(&disk);
	return 0;
}

/* ---- a mount ---- */

static int host_open(void *arg, uint64_t node, bool write)
{
	char name[2] = { (char)('0' + node), 0 };
	int fd = openat(store.store_fd, name, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);

	(void)arg;
	return fd < 0 ? -errno : fd;
}

static void host_report(void *arg, uint64_t node, int error, const char *what)
{
	(void)arg;
	(void)node;
	(void)error;
	(void)what;
}

static struct cmek_content *content_start(bool read_only, const struct cmek_overlay *overlay)
{
	struct cmek_content_host host = { NULL, host_open, NULL, NULL, host_report, NULL, NULL, host_flush, NULL };
	struct cmek_content_params params = { .block_size = BLOCK,
					      .read_only = read_only,
					      .overlay = overlay,
					      .commit_ms = 3600000,
					      .map_cache_bytes = 1 << 20,
					      .meta_fd = store.meta_fd,
					      .journal_bytes = JOURNAL_BYTES };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_content *content = NULL;

	memcpy(params.volume, jf_volume, sizeof(params.volume));
	ck_assert_msg(cmek_content_new(store.ring, &host, &params, &content, &err) == 0, "%s: %s", run.what, err.text);
	return content;
}

static struct version read_file(struct cmek_content *content, unsigned which)
{
	struct version v = { 0, malloc(FILE_MAX) };
	struct cmek_ofile *file = NULL;
	ssize_t n;

	ck_assert_int_eq(cmek_ofile_open(content, which + 1, -1, false, &file), 0);
	n = cmek_content_read(file, v.bytes, FILE_MAX, 0);
	ck_assert_msg(n >= 0, "%s: file %u can't be read: %s", run.what, which, strerror((int)-n));
	v.size = (uint64_t)n;
	ck_assert_msg(cmek_ofile_size(file) == v.size, "%s: file %u has %llu bytes, not %llu", run.what, which,
		      (unsigned long long)v.size, (unsigned long long)cmek_ofile_size(file));
	cmek_ofile_close(file);
	return v;
}

static bool same(const struct version *a, const struct version *b)
{
	return a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
}

/* What a read-only mount shows. */
static void show(const struct cmek_overlay *overlay, struct version *ret_files)
{
	struct cmek_content *content = content_start(true, overlay);
	unsigned i;

	for (i = 0; i < FILES; i++)
		ret_files[i] = read_file(content, i);
	ck_assert_int_eq(cmek_content_free(content), 0);
}

static void show_unreplayed(struct version *ret_files)
{
	struct cmek_replay_params params = { .store_fd = store.store_fd, .meta_fd = store.meta_fd, .block_size = BLOCK };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_overlay *overlay = NULL;
	struct cmek_replay_result result;

	memcpy(params.volume, jf_volume, sizeof(params.volume));
	ck_assert_msg(cmek_replay_overlay(store.ring, &params, &overlay, &result, &err) == 0, "%s: %s", run.what, err.text);
	ck_assert_msg(result.lost == 0 && result.gone == 0, "%s: a file is not found", run.what);
	show(overlay, ret_files);
	cmek_overlay_free(overlay);
}

static void replay(void)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;

	ck_assert_msg(jf_replay(&store, BLOCK, false, &result, &err) == 0, "%s: %s", run.what, err.text);
	ck_assert_msg(result.lost == 0 && result.gone == 0, "%s: a file is not found", run.what);
}

static void forget(struct version *files)
{
	unsigned i;

	for (i = 0; i < FILES; i++)
		free(files[i].bytes);
}

/* ---- operations ---- */

static void push_version(void)
{
	unsigned i, n = run.n_versions++;

	for (i = 0; i < FILES; i++) {
		struct version *now = run.versions[i] + n;

		now->bytes = calloc(1, FILE_MAX);
		ck_assert_ptr_nonnull(now->bytes);
		if (n > 0) {
			now->size = now[-1].size;
			memcpy(now->bytes, now[-1].bytes, now->size);
		}
	}
}

/* This version of this file is durable, whatever happens. */
static void ack_version(unsigned file, unsigned version)
{
	ck_assert_uint_lt(run.n_acks, ACKS_MAX);
	run.acks[run.n_acks].at = disk.n_ops;
	run.acks[run.n_acks].file = file;
	run.acks[run.n_acks++].version = version;
}

static void ack(unsigned file)
{
	ack_version(file, run.n_versions - 1);
}

static struct version *newest(unsigned file)
{
	return run.versions[file] + run.n_versions - 1;
}

static void write_at(unsigned file, uint64_t off, size_t len)
{
	struct version *v = newest(file);
	uint8_t *buf = malloc(len);

	jf_fill(buf, len, rnd());
	memcpy(v->bytes + off, buf, len);
	if (off + len > v->size)
		v->size = off + len;
	ck_assert_int_eq(cmek_content_write(run.files[file], buf, len, off), 0);
	free(buf);
}

static void truncate_to(unsigned file, uint64_t size)
{
	struct version *v = newest(file);

	if (size < v->size)
		memset(v->bytes + size, 0, v->size - size);
	v->size = size;
	ck_assert_int_eq(cmek_content_truncate(run.files[file], size), 0);
}

static void punch(unsigned file, uint64_t off, uint64_t len)
{
	struct version *v = newest(file);

	if (off < v->size)
		memset(v->bytes + off, 0, len < v->size - off ? len : v->size - off);
	ck_assert_int_eq(cmek_content_fallocate(run.files[file], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len), 0);
}

static void open_files(void)
{
	unsigned i;

	run.content = content_start(false, NULL);
	for (i = 0; i < FILES; i++)
		ck_assert_int_eq(cmek_ofile_open(run.content, i + 1, -1, false, run.files + i), 0);
}

static void op_part_of_block(void) { write_at(0, 10, 100); }
static void op_append(void) { write_at(0, newest(0)->size, 3000); }
static void op_behind_hole(void) { write_at(0, newest(0)->size + 9000, 500); }
static void op_whole_block(void) { write_at(0, BLOCK, BLOCK); }
static void op_shrink(void) { truncate_to(0, newest(0)->size / 2); }
static void op_grow(void) { truncate_to(0, newest(0)->size + 5000); }
static void op_empty(void) { truncate_to(0, 0); }
static void op_punch(void) { punch(0, 100, 2 * BLOCK); }
static void op_other_file(void) { write_at(1, 0, 5000); }

/* Large enough to go in place behind a touch, over the end of a group. */
static void op_bulk(void)
{
	write_at(0, newest(0)->size, 1200 << 10);
}

static void op_sync(void)
{
	ck_assert_int_eq(cmek_content_sync(run.files[0], true), 0);
	ack(0);
}

static void op_sync_both(void)
{
	ck_assert_int_eq(cmek_content_commit_all(run.content), 0);
	ack(0);
	ack(1);
}

static void op_checkpoint(void)
{
	ck_assert_int_eq(cmek_journal_checkpoint(run.content->journal), 0);
}

static void op_remount(void)
{
	unsigned i;

	for (i = 0; i < FILES; i++)
		cmek_ofile_close(run.files[i]);
	ck_assert_int_eq(cmek_content_free(run.content), 0);
	crash_record_sync(&disk); /* as the mount does behind it */
	ack(0);
	ack(1);
	open_files();
}

static const struct {
	const char *name;
	void (*run)(void);
} ops[] = {
	{ "part", op_part_of_block }, { "append", op_append },	   { "hole", op_behind_hole },
	{ "block", op_whole_block },  { "shrink", op_shrink },	   { "grow", op_grow },
	{ "empty", op_empty },	      { "punch", op_punch },	   { "other", op_other_file },
	{ "bulk", op_bulk },	      { "sync", op_sync },	   { "syncboth", op_sync_both },
	{ "checkpoint", op_checkpoint }, { "remount", op_remount },
};
enum { N_OPS = sizeof(ops) / sizeof(ops[0]) };

/* ---- cuts ---- */

/* Each file is in a state it had, not older than what was answered when `at` changes had reached the disk. */
static void check_files(const struct version *got, size_t at)
{
	unsigned i, k, oldest;

	for (i = 0; i < FILES; i++) {
		for (k = 0, oldest = 0; k < run.n_acks; k++)
			if (run.acks[k].file == i && run.acks[k].at <= at)
				oldest = run.acks[k].version;
		for (k = oldest; k < run.n_versions; k++)
			if (same(got + i, run.versions[i] + k))
				break;
		ck_assert_msg(k < run.n_versions, "%s: file %u (%llu bytes) is in none of its states %u to %u", run.what, i,
			      (unsigned long long)got[i].size, oldest, run.n_versions - 1);
	}
}

/* A second cut, while what the first one left is replayed: the same comes out. */
static void cut_replay(const struct version *want)
{
	struct version got[FILES];
	size_t first = disk.n_ops, end, i, until, states;
	unsigned k;

	crash_write_out(&disk, image);
	disk.recording = true;
	replay();
	disk.recording = false;
	end = disk.n_ops;
	for (states = 0; end > first && states < 3; states++) {
		until = first + rnd() % (end - first) + 1;
		for (k = 0; k < CRASH_FILES; k++)
			crash_content_copy(second + k, image + k);
		/* up to the last flush before it all of that file is there, behind it some */
		for (i = first; i < until; i++) {
			const struct crash_op *op = disk.ops + i;
			bool flushed = false;
			size_t later;

			for (later = i; later < until; later++)
				flushed = flushed || (disk.ops[later].type == CRASH_FLUSH && disk.ops[later].file == op->file);
			if (flushed || rnd() % 2)
				crash_apply(second, op, flushed || rnd() % 2 ? UINT64_MAX : rnd());
		}
		crash_write_out(&disk, second);
		replay();
		show(NULL, got);
		for (k = 0; k < FILES; k++)
			ck_assert_msg(same(got + k, want + k), "%s: file %u differs after a replay that was cut", run.what, k);
		forget(got);
		n_second++;
	}
	while (disk.n_ops > first)
		free(disk.ops[--disk.n_ops].data);
}

/* What stat says without a look into the file. */
static void check_sizes(const struct version *files)
{
	struct stat st;
	unsigned i;

	for (i = 0; i < FILES; i++) {
		ck_assert_int_eq(fstat(disk.fds[i], &st), 0);
		ck_assert_msg((uint64_t)st.st_size == cmek_stored_size(BLOCK, files[i].size), "%s: file %u is %llu bytes in the store",
			      run.what, i, (unsigned long long)st.st_size);
	}
}

/* The disk in `image`, after a cut when `at` changes had been asked for. */
static void check_image(size_t at)
{
	struct version shown[FILES], replayed[FILES];
	unsigned i;

	crash_write_out(&disk, image);
	show_unreplayed(shown);
	check_files(shown, at);
	replay();
	check_sizes(shown);
	show(NULL, replayed);
	for (i = 0; i < FILES; i++)
		ck_assert_msg(same(shown + i, replayed + i), "%s: file %u is not what a read-only mount showed", run.what, i);
	if (n_images++ % 16 == 0)
		cut_replay(shown);
	forget(shown);
	forget(replayed);
}

struct pending {
	struct crash_op *ops[CRASH_PENDING_MAX];
	unsigned n;
};

/* One disk: the durable state with the pending changes in mask, the last of them with these sectors. */
static void try_disk(const struct pending *p, uint64_t mask, uint64_t last_keep, size_t at)
{
	unsigned i;

	for (i = 0; i < CRASH_FILES; i++)
		crash_content_copy(image + i, durable + i);
	for (i = 0; i < p->n; i++)
		if (mask >> i & 1)
			crash_apply(image, p->ops[i], i + 1 == p->n ? last_keep : UINT64_MAX);
	check_image(at);
}

/* Disks that a cut can leave here. Those without the newest change were tried before it came, unless something was answered. */
static void cut(const struct pending *p, bool with_newest, size_t at)
{
	static const uint64_t torn[] = { 1, ~UINT64_C(1), 0xff, 0 };
	unsigned states = env_number("CMEK_CRASH_STATES", run.states), others = with_newest ? p->n - 1 : p->n, i;
	uint64_t newest_bit = with_newest ? UINT64_C(1) << (p->n - 1) : 0, all = (UINT64_C(1) << others) - 1, mask;

	n_cuts++;
	if (others < 6 && 1u << others <= states) {
		for (mask = 0; mask <= all; mask++)
			try_disk(p, mask | newest_bit, UINT64_MAX, at);
	} else {
		try_disk(p, newest_bit, UINT64_MAX, at);
		try_disk(p, all | newest_bit, UINT64_MAX, at);
		for (i = 2; i < states; i++)
			try_disk(p, (rnd() & all) | newest_bit, UINT64_MAX, at);
	}
	for (i = 0; with_newest && p->ops[p->n - 1]->len > CRASH_SECTOR && i < UNIT_ROWS(torn); i++)
		try_disk(p, (i % 2 ? all : rnd() & all) | newest_bit, torn[i] != 0 ? torn[i] : rnd(), at);
}

static void flush_pending(struct pending *p, unsigned file)
{
	unsigned i, kept = 0;

	for (i = 0; i < p->n; i++) {
		if (p->ops[i]->file == file)
			crash_apply(durable, p->ops[i], UINT64_MAX);
		else
			p->ops[kept++] = p->ops[i];
	}
	p->n = kept;
}

/* Cuts between the changes from number `first` on; those before it were tried with shorter sequences. */
static void cut_everywhere(size_t first)
{
	size_t i, end = disk.n_ops;
	struct pending p = { .n = 0 };
	unsigned k;

	for (k = 0; k < CRASH_FILES; k++)
		crash_content_copy(durable + k, base + k);
	for (i = 0; i <= end; i++) {
		bool answered = false;

		for (k = 0; k < run.n_acks; k++)
			answered = answered || run.acks[k].at == i;
		if (answered && i >= first)
			cut(&p, false, i);
		if (i == end)
			break;
		if (disk.ops[i].type == CRASH_FLUSH) {
			flush_pending(&p, disk.ops[i].file);
			continue;
		}
		ck_assert_uint_lt(p.n, CRASH_PENDING_MAX - 1);
		p.ops[p.n++] = disk.ops + i;
		if (i >= first)
			cut(&p, true, i);
	}
}

/* From the base on. run.what is set. */
static void start_sequence(void)
{
	struct version files[FILES];
	unsigned i;

	n_sequences++;
	run.n_versions = run.n_acks = 0;
	crash_write_out(&disk, base);
	show(NULL, files);
	push_version();
	for (i = 0; i < FILES; i++) {
		newest(i)->size = files[i].size;
		memcpy(newest(i)->bytes, files[i].bytes, files[i].size);
	}
	forget(files);
	disk.recording = true;
	open_files();
}

/* Cuts it from the change with number `first` on. */
static void end_sequence(size_t first)
{
	unsigned i, k;

	disk.recording = false;
	for (i = 0; i < FILES; i++)
		cmek_ofile_close(run.files[i]);
	ck_assert_int_eq(cmek_content_free(run.content), 0);
	cut_everywhere(first);
	crash_forget(&disk);
	for (i = 0; i < FILES; i++)
		for (k = 0; k < run.n_versions; k++)
			free(run.versions[i][k].bytes);
}

/* Cuts the sequence where its last operation changes the disk. */
static void run_sequence(const unsigned *sequence, unsigned n)
{
	size_t first = 0;
	unsigned i;

	(void)snprintf(run.what, sizeof(run.what), "sequence");
	for (i = 0; i < n; i++)
		(void)snprintf(run.what + strlen(run.what), sizeof(run.what) - strlen(run.what), " %s", ops[sequence[i]].name);
	start_sequence();
	if (run.warm_up != NULL) {
		push_version();
		run.warm_up();
		first = disk.n_ops;
	}
	for (i = 0; i < n; i++) {
		first = disk.n_ops;
		push_version();
		ops[sequence[i]].run();
	}
	end_sequence(first);
}

/* All sequences up to the length of depth that begin with these n. */
static void run_all(unsigned *sequence, unsigned n, unsigned depth)
{
	run_sequence(sequence, n);
	if (n == depth)
		return;
	for (sequence[n] = 0; sequence[n] < N_OPS; sequence[n]++)
		run_all(sequence, n + 1, depth);
}

/* ---- a commit beside a writer ---- */

enum { GROUP_PLAIN = CMEK_GROUP_BLOCKS * BLOCK, GROUP_STORED = CMEK_MAP_BYTES + GROUP_PLAIN };

static void commit_prepare(void)
{
	(void)pthread_mutex_lock(&run.files[0]->commit_lock);
	ck_assert_int_eq(cmek_commit_prepare(run.files[0], &beside.commit), 0);
	beside.version = run.n_versions - 1;
}

static void commit_log(void)
{
	int r;

	cmek_commit_log(&beside.commit, 1, &r);
	ck_assert_int_eq(r, 0);
	ack_version(0, beside.version);
}

static void commit_apply(void)
{
	int r = cmek_commit_apply(&beside.commit);

	ck_assert_int_eq(r, 0);
	cmek_commit_finish(&beside.commit, r);
	(void)pthread_mutex_unlock(&run.files[0]->commit_lock);
}

/* What else others do meanwhile; the writer has the lock of the group where it is. */
static void beside_part(void)
{
	push_version();
	write_at(0, 10, 100);
}

static void beside_punch(void)
{
	push_version();
	punch(0, beside.group > 1 ? GROUP_PLAIN : 0, 3 * BLOCK);
}

static void beside_rewrite(void)
{
	push_version();
	write_at(0, beside.group > 1 ? GROUP_PLAIN + 2 * BLOCK : 0, 2 * BLOCK);
}

static void beside_other_file(void)
{
	push_version();
	op_other_file();
	ck_assert_int_eq(cmek_content_sync(run.files[1], true), 0);
	ack(1);
}

/* Who commits: a thread that does one thing at a time, when it is told to. */
static struct {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	void (*job)(void);
	bool stop;
} committer = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void *committer_main(void *arg)
{
	void (*job)(void);

	(void)arg;
	(void)pthread_mutex_lock(&committer.lock);
	while (!committer.stop) {
		job = committer.job;
		if (job == NULL) {
			(void)pthread_cond_wait(&committer.changed, &committer.lock);
			continue;
		}
		(void)pthread_mutex_unlock(&committer.lock);
		job();
		(void)pthread_mutex_lock(&committer.lock);
		committer.job = NULL;
		(void)pthread_cond_broadcast(&committer.changed);
	}
	(void)pthread_mutex_unlock(&committer.lock);
	return NULL;
}

static void start_committer(void)
{
	committer.stop = false;
	ck_assert_int_eq(pthread_create(&committer.thread, NULL, committer_main, NULL), 0);
}

static void stop_committer(void)
{
	(void)pthread_mutex_lock(&committer.lock);
	committer.stop = true;
	(void)pthread_cond_broadcast(&committer.changed);
	(void)pthread_mutex_unlock(&committer.lock);
	ck_assert_int_eq(pthread_join(committer.thread, NULL), 0);
}

/* Returns when that is done. */
static void let_committer(void (*job)(void))
{
	(void)pthread_mutex_lock(&committer.lock);
	committer.job = job;
	(void)pthread_cond_broadcast(&committer.changed);
	while (committer.job != NULL)
		(void)pthread_cond_wait(&committer.changed, &committer.lock);
	(void)pthread_mutex_unlock(&committer.lock);
}

static void *other_main(void *arg)
{
	(void)arg;
	beside.other();
	return NULL;
}

/* In a thread of its own, whose locks and buffers are not the writer's, and to the end. */
static void run_other(void)
{
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, other_main, NULL), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

/* The groups before this one are written. */
static void beside_written(unsigned group)
{
	struct version *v;

	for (; beside.group < group; beside.group++) {
		push_version();
		v = newest(0);
		memcpy(v->bytes + beside.group * GROUP_PLAIN, beside.data + beside.group * GROUP_PLAIN, GROUP_PLAIN);
	}
}

static void beside_slot(void)
{
	static void (*const steps[])(void) = { commit_prepare, commit_log, commit_apply };
	bool other = beside.other != NULL && beside.other_at == beside.slot;

	if (other && beside.other_first)
		run_other();
	while (beside.step < UNIT_ROWS(steps) && beside.step_at[beside.step] == beside.slot)
		let_committer(steps[beside.step++]);
	if (other && !beside.other_first)
		run_other();
	beside.slot++;
}

static void beside_pwrite(int fd, uint64_t off, size_t n)
{
	unsigned group = (unsigned)(off / GROUP_STORED);

	if (n < GROUP_PLAIN || group == 0 || crash_file_of(&disk, fd) != 0)
		return;
	beside.armed = false; /* what happens here writes, too */
	beside_written(group);
	beside_slot();
	beside.armed = true;
}

/* Writes these groups of the file, which end where it does. */
static void beside_write(unsigned first, unsigned end)
{
	const uint8_t *data = beside.data + first * GROUP_PLAIN;

	beside.armed = true;
	ck_assert_int_eq(cmek_content_write(run.files[0], data, (end - first) * GROUP_PLAIN, first * GROUP_PLAIN), 0);
	beside.armed = false;
	beside_written(end);
	beside_slot();
}

/*
 * Writes in place first what the file has from its beginning on or behind its first group, up to group `end`, and then one
 * group more. A slot is before each group but the first, and behind each write.
 */
static void run_beside(bool fresh, unsigned end)
{
	uint8_t *data = malloc((end + 1) * GROUP_PLAIN);
	size_t first;

	ck_assert_ptr_nonnull(data);
	jf_fill(data, (end + 1) * GROUP_PLAIN, rnd());
	start_sequence();
	first = disk.n_ops;
	push_version();
	if (fresh)
		newest(0)->size = end * GROUP_PLAIN;
	else
		write_at(0, 5000, 100);
	beside.data = data;
	beside.slot = beside.step = 0;
	beside.group = fresh ? 0 : 1;
	start_committer();
	beside_write(beside.group, end);
	push_version();
	newest(0)->size = (end + 1) * GROUP_PLAIN;
	beside_write(end, end + 1);
	/* If that write waited in memory, because the commit had ended the touch, a slot is left. */
	while (beside.step < UNIT_ROWS(beside.step_at))
		beside_slot();
	stop_committer();
	op_sync();
	end_sequence(first);
	free(data);
}

static const struct {
	const char *name;
	void (*run)(void);
} others[] = {
	{ "part", beside_part },
	{ "punch", beside_punch },
	{ "rewrite", beside_rewrite },
	{ "other file", beside_other_file },
	{ "checkpoint", op_checkpoint },
};

/* ---- where they begin ---- */

static void make_disk(void)
{
	static const char *const names[CRASH_FILES] = { "1", "2", "journal.0" };
	struct stat st;
	unsigned i;

	for (i = 0; i < CRASH_FILES; i++) {
		disk.fds[i] = openat(i < FILES ? store.store_fd : store.meta_fd, names[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		ck_assert_int_ge(disk.fds[i], 0);
		ck_assert_int_eq(fstat(disk.fds[i], &st), 0);
		disk.inos[i] = st.st_ino;
		crash_content_init(base + i, i < FILES ? FILE_MAX : JOURNAL_BYTES);
		crash_content_init(image + i, base[i].capacity);
		crash_content_init(durable + i, base[i].capacity);
		crash_content_init(second + i, base[i].capacity);
	}
}

/* The disk as it is now becomes the one that sequences begin with. */
static void take_base(void)
{
	uint8_t unit[CRASH_UNIT];
	struct stat st;
	unsigned i;
	ssize_t n;
	off_t off;

	for (i = 0; i < CRASH_FILES; i++) {
		ck_assert_int_eq(fstat(disk.fds[i], &st), 0);
		for (off = 0; off < st.st_size; off += n) {
			n = pread(disk.fds[i], unit, sizeof(unit), off);
			ck_assert_int_gt(n, 0);
			if (!cmek_is_zero(unit, (size_t)n))
				crash_content_put(base + i, unit, (uint64_t)off, (uint64_t)n);
		}
		base[i].size = (uint64_t)st.st_size;
	}
}

static void begin(void)
{
	run.n_versions = run.n_acks = 0;
	push_version();
	open_files();
}

static void end(void)
{
	unsigned i;

	for (i = 0; i < FILES; i++) {
		cmek_ofile_close(run.files[i]);
		free(run.versions[i][0].bytes);
	}
	ck_assert_int_eq(cmek_content_free(run.content), 0);
}

static void begin_empty(void)
{
}

static void begin_small(void)
{
	write_at(0, 0, 10000);
	write_at(1, 0, 300);
}

/* More than a group, with a hole. */
static void begin_sparse(void)
{
	write_at(0, 0, 20000);
	write_at(0, 500000, 5000);
}

/*
 * Records up to two units before the end of the ring, so that the next one goes to its beginning; the ring is freed
 * before it is half full, when a thread would do that by itself. What comes last is not synced.
 */
static void fill_the_ring(void)
{
	enum { BLOCKS = 71, UNITS = JOURNAL_BYTES / CRASH_UNIT - 2 - 2 };
	unsigned i;

	for (i = 0; i < UNITS / (BLOCKS + 2); i++) { /* meta data and page */
		write_at(0, 0, BLOCKS * BLOCK);
		op_sync();
		if (i % 8 == 7)
			op_checkpoint();
	}
	push_version();
	write_at(0, 5000, 100);
}

static const struct {
	const char *name;
	void (*run)(void);
	void (*warm_up)(void);
	unsigned less; /* operations than elsewhere */
} beginnings[] = {
	{ "an empty file", begin_empty, NULL, 1 },
	{ "a small file", begin_small, NULL, 0 },
	{ "a sparse file", begin_sparse, NULL, 1 },
	{ "the end of the ring", begin_empty, fill_the_ring, 1 },
};

static void setup(void)
{
	jf_store_init(&store);
	memset(&disk, 0, sizeof(disk));
	memset(&run, 0, sizeof(run));
	memset(&beside, 0, sizeof(beside));
	run.states = 12;
	n_sequences = n_cuts = n_images = n_second = 0;
	make_disk();
}

static void teardown(void)
{
	unsigned i;

	for (i = 0; i < CRASH_FILES; i++) {
		close(disk.fds[i]);
		crash_content_done(base + i);
		crash_content_done(image + i);
		crash_content_done(durable + i);
		crash_content_done(second + i);
	}
	free(disk.ops);
	jf_store_done(&store);
}

START_TEST(every_cut)
{
	unsigned depth = env_number("CMEK_CRASH_DEPTH", DEPTH_DEFAULT), sequence[DEPTH_MAX + 1];

	ck_assert_uint_le(depth, DEPTH_MAX);
	begin();
	beginnings[_i].run();
	end();
	take_base();
	run.warm_up = beginnings[_i].warm_up;
	depth -= depth < beginnings[_i].less ? depth : beginnings[_i].less;
	run_all(sequence, 0, depth);
	printf("%s: %llu sequences of up to %u operations, %llu cuts, %llu disks, %llu cuts in replay\n",
	       beginnings[_i].name, (unsigned long long)n_sequences, depth, (unsigned long long)n_cuts,
	       (unsigned long long)n_images, (unsigned long long)n_second);
}
END_TEST

/* Slots of the commit's steps: the next ones in order, none before the one before it. False: those were the last. */
static bool next_order(unsigned step_at[3], unsigned n_slots)
{
	if (++step_at[2] < n_slots)
		return true;
	if (++step_at[1] == n_slots) {
		if (++step_at[0] == n_slots)
			return false;
		step_at[1] = step_at[0];
	}
	step_at[2] = step_at[1];
	return true;
}

/*
 * The steps in every order (each of so many), with another thing in this slot; NULL: with a checkpoint behind the last
 * step, when nothing but a touch speaks of the file.
 */
static void run_orders(bool fresh, unsigned each, void (*other)(void), const char *name, unsigned at, bool before)
{
	unsigned end = fresh ? 3 : 4, n_slots = end + 2, n = 0; /* so many groups are more than a MiB, and go in place */

	memset(beside.step_at, 0, sizeof(beside.step_at));
	do {
		beside.other = other != NULL ? other : op_checkpoint;
		beside.other_at = other != NULL ? at : beside.step_at[2];
		beside.other_first = other != NULL && before;
		(void)snprintf(run.what, sizeof(run.what), "commit in %u %u %u, %s in %u%s", beside.step_at[0], beside.step_at[1],
			       beside.step_at[2], name, beside.other_at, beside.other_first ? " before" : "");
		if (n++ % each == 0)
			run_beside(fresh, end);
	} while (next_order(beside.step_at, n_slots));
}

START_TEST(every_cut_beside_a_commit)
{
	unsigned depth = env_number("CMEK_CRASH_DEPTH", DEPTH_DEFAULT), which, at;
	bool fresh = _i == 0;

	begin();
	if (!fresh) {
		write_at(0, 0, 20000);
		truncate_to(0, 4 * GROUP_PLAIN);
	}
	end();
	take_base();
	run.states = 3;
	run_orders(fresh, depth > 2 ? 1 : depth > 1 ? 4 : 11, NULL, "checkpoint", 0, false);
	for (which = 0; depth > 2 && which < UNIT_ROWS(others); which++)
		for (at = 0; at < 10; at++)
			run_orders(fresh, 1, others[which].run, others[which].name, at / 2, at % 2);
	printf("%s beside a commit: %llu sequences, %llu cuts, %llu disks, %llu cuts in replay\n", fresh ? "a new file" : "holes",
	       (unsigned long long)n_sequences, (unsigned long long)n_cuts, (unsigned long long)n_images,
	       (unsigned long long)n_second);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("crash_model");
	TCase *tcase = tcase_create("crash_model");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 0); /* as long as the depth takes */
	tcase_add_loop_test(tcase, every_cut, 0, UNIT_ROWS(beginnings));
	suite_add_tcase(suite, tcase);
	tcase = tcase_create("beside");
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 0);
	tcase_add_loop_test(tcase, every_cut_beside_a_commit, 0, 2);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
