/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The journal's file: who shares a flush, what the ring keeps and for how long, and what a failure leaves behind. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/journal_fixture.h"

/* What the journal under test asks of the store. */
struct host {
	atomic_int flush_result, flushes, reports;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool closed; /* flushes wait */
};

/* The least there is at the block size of these tests. */
#define LENGTH (UINT64_C(8) << 20)

static struct jf_store store;
static struct host host;

static int flush_store(void *arg)
{
	struct host *h = arg;

	(void)pthread_mutex_lock(&h->lock);
	while (h->closed)
		(void)pthread_cond_wait(&h->cond, &h->lock);
	(void)pthread_mutex_unlock(&h->lock);
	h->flushes++;
	return h->flush_result;
}

static void report(void *arg, int error, const char *what)
{
	struct host *h = arg;

	ck_assert_int_lt(error, 0);
	ck_assert_ptr_nonnull(what);
	h->reports++;
}

static void gate(bool closed)
{
	(void)pthread_mutex_lock(&host.lock);
	host.closed = closed;
	(void)pthread_cond_broadcast(&host.cond);
	(void)pthread_mutex_unlock(&host.lock);
}

static void setup(void)
{
	memset(&host, 0, sizeof(host));
	(void)pthread_mutex_init(&host.lock, NULL);
	(void)pthread_cond_init(&host.cond, NULL);
	jf_store_init(&store);
}

static void teardown(void)
{
	jf_store_done(&store);
}

static int try_open(uint64_t length_bytes, struct cmek_journal **ret_journal, struct cmek_error *err)
{
	struct cmek_journal_host h = { &host, flush_store, report };
	struct cmek_journal_params params = { .length_bytes = length_bytes, .block_size = 4096, .dek_next = 2 };

	memcpy(params.volume, jf_volume, sizeof(params.volume));
	cmek_random(params.mount_id, sizeof(params.mount_id)); /* another one for each mount */
	return cmek_journal_open(store.ring, store.meta_fd, &h, &params, ret_journal, err);
}

static struct cmek_journal *journal_open(void)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_journal *journal = NULL;

	ck_assert_msg(try_open(LENGTH, &journal, &err) == 0, "%s", err.text);
	return journal;
}

/* One section of no images but these, of a file that is not there: replay counts it and can do nothing. */
struct append {
	struct cmek_section section;
	uint8_t *images;
	struct cmek_journal_request request;
};

static void append_init(struct append *a, unsigned file, size_t images_bytes)
{
	size_t i;

	memset(a, 0, sizeof(*a));
	ck_assert_int_gt(asprintf(&a->section.path, "f%u", file), 0);
	a->section.plain_size = images_bytes;
	a->section.flags = CMEK_FILE_NEW_ID;
	a->images = calloc(1, images_bytes ? images_bytes : 1);
	for (i = 0; i < images_bytes / 4096; i++)
		ck_assert_int_eq(cmek_section_add(&a->section, CMEK_ITEM_BLOCK, i, 4096, i), 0);
	a->request = (struct cmek_journal_request){ .section = &a->section, .images = a->images,
						    .images_bytes = images_bytes };
}

static void append_done(struct append *a)
{
	cmek_section_done(&a->section);
	free(a->images);
}

/* Appends one, which must succeed; applied at once if so wanted. */
static uint64_t append_one(struct cmek_journal *journal, unsigned file, size_t images_bytes, bool applied)
{
	struct append a;
	uint64_t seq;

	append_init(&a, file, images_bytes);
	cmek_journal_append(journal, &a.request, 1);
	ck_assert_int_eq(a.request.result, 0);
	seq = a.request.seq;
	if (applied)
		cmek_journal_applied(journal, seq);
	append_done(&a);
	return seq;
}

static struct cmek_journal_status status_of(struct cmek_journal *journal)
{
	struct cmek_journal_status status;

	cmek_journal_status(journal, &status);
	return status;
}

/* What a crash now would leave: a copy of the journal's file in the place of a store of its own, with the same keys. */
static struct cmek_replay_result crash_now(void)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;

	ck_assert_msg(jf_replay(&store, 4096, true, &result, &err) == 0, "%s", err.text);
	return result;
}

/* ---- opening ---- */

START_TEST(open_and_close)
{
	struct cmek_journal *journal;
	struct stat st;
	int i;

	for (i = 0; i < 3; i++) {
		journal = journal_open();
		ck_assert_int_eq(crash_now().journals, 1); /* not empty, though nothing is in it yet */
		ck_assert_uint_eq(crash_now().records, 0);
		append_one(journal, 1, 4096, true);
		ck_assert_uint_eq(crash_now().records, 1); /* never one of the mount before */
		ck_assert_int_eq(cmek_journal_close(journal), 0);
		ck_assert_int_eq(crash_now().journals, 0);
		ck_assert_int_eq(fstatat(store.meta_fd, "journal.0", &st, 0), 0);
		ck_assert_int_eq(st.st_size, LENGTH);
		ck_assert_int_eq(st.st_mode & 07777, 0600);
	}
	ck_assert_int_eq(cmek_journal_close(NULL), 0);
	ck_assert_int_eq(host.reports, 0);
}
END_TEST

static void damage_super(off_t off)
{
	int fd = openat(store.meta_fd, "journal.0", O_RDWR);
	uint8_t byte;

	ck_assert_int_eq(pread(fd, &byte, 1, off + 100), 1);
	byte ^= 1;
	ck_assert_int_eq(pwrite(fd, &byte, 1, off + 100), 1);
	ck_assert_int_eq(close(fd), 0);
}

/* What is in the journal counts, whichever superblock is damaged, after the opening and after a suspension. */
START_TEST(either_superblock)
{
	struct cmek_journal *journal = journal_open();
	off_t off = _i % 2 * (off_t)CMEK_JOURNAL_UNIT;
	uint64_t seq;

	seq = append_one(journal, 1, 4096, false);
	if (_i >= 2) {
		cmek_journal_applied(journal, seq);
		ck_assert_int_eq(cmek_journal_suspend(journal), 0);
		ck_assert_uint_eq(crash_now().journals, 0);
		ck_assert_int_eq(cmek_journal_resume(journal), 0);
		seq = append_one(journal, 2, 4096, false);
	}
	damage_super(off);
	ck_assert_uint_eq(crash_now().records, 1);
	damage_super(off); /* which mends it */
	cmek_journal_applied(journal, seq);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
	damage_super(off);
	ck_assert_uint_eq(crash_now().journals, 0); /* and "empty" is told by both as well */
}
END_TEST

/* A file that a crash left while it was being written: zeros, of any length. */
START_TEST(blank_file)
{
	static const off_t sizes[] = { 0, 1, 4096, 12345, 1 << 20, LENGTH };
	struct cmek_journal *journal;
	struct stat st;
	int fd = openat(store.meta_fd, "journal.0", O_RDWR | O_CREAT, 0600);

	ck_assert_int_eq(ftruncate(fd, sizes[_i]), 0);
	close(fd);
	ck_assert_int_eq(crash_now().journals, 0);
	journal = journal_open();
	append_one(journal, 1, 0, true);
	ck_assert_uint_eq(crash_now().records, 1);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
	ck_assert_int_eq(fstatat(store.meta_fd, "journal.0", &st, 0), 0);
	ck_assert_int_eq(st.st_size, LENGTH);
}
END_TEST

START_TEST(open_refused)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_journal *journal = NULL;

	ck_assert_int_eq(try_open(LENGTH - 4096, &journal, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
	ck_assert_int_eq(unlinkat(store.meta_fd, "journal.0", 0), 0);
	ck_assert_int_eq(symlinkat("elsewhere", store.meta_fd, "journal.0"), 0);
	err = (struct cmek_error)CMEK_ERROR_INIT;
	ck_assert_int_eq(try_open(0, &journal, &err), -ELOOP);
	ck_assert_int_eq(err.kind, CMEK_E_SYSTEM);
	ck_assert_ptr_null(journal);
}
END_TEST

/* ---- sharing ---- */

enum { SHARERS = 8, ROUNDS = 40 };

static void *sharer(void *arg)
{
	struct cmek_journal *journal = arg;
	int i;

	for (i = 0; i < ROUNDS; i++)
		append_one(journal, (unsigned)i, 4096, true);
	return NULL;
}

START_TEST(threads_share)
{
	struct cmek_journal *journal = journal_open();
	struct cmek_journal_status status;
	pthread_t threads[SHARERS];
	int i;

	for (i = 0; i < SHARERS; i++)
		ck_assert_int_eq(pthread_create(threads + i, NULL, sharer, journal), 0);
	for (i = 0; i < SHARERS; i++)
		pthread_join(threads[i], NULL);
	status = status_of(journal);
	ck_assert_uint_eq(status.appends, SHARERS * ROUNDS);
	ck_assert_uint_le(status.flushes, status.appends);
	ck_assert_uint_eq(crash_now().records, status.flushes);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
}
END_TEST

/* Requests of one call are one record. */
START_TEST(call_shares)
{
	struct cmek_journal *journal = journal_open();
	struct append a[CMEK_RECORD_PIECES + 1];
	struct cmek_journal_request requests[CMEK_RECORD_PIECES + 1];
	unsigned i, n = CMEK_RECORD_PIECES + 1;

	for (i = 0; i < n; i++) {
		append_init(a + i, i, i % 2 * 4096);
		requests[i] = a[i].request;
	}
	cmek_journal_append(journal, requests, CMEK_RECORD_PIECES);
	ck_assert_uint_eq(status_of(journal).flushes, 1);
	ck_assert_uint_eq(status_of(journal).records, 1);
	for (i = 0; i < CMEK_RECORD_PIECES; i++) {
		ck_assert_int_eq(requests[i].result, 0);
		ck_assert_uint_eq(requests[i].seq, 1);
		/* the record stays until all of them are applied */
		ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
		ck_assert_uint_eq(status_of(journal).records, 1);
		cmek_journal_applied(journal, 1);
	}
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_uint_eq(status_of(journal).records, 0);
	/* one more than a record takes */
	cmek_journal_append(journal, requests, n);
	ck_assert_uint_eq(status_of(journal).flushes, 3);
	ck_assert_uint_eq(requests[0].seq, 2);
	ck_assert_uint_eq(requests[n - 1].seq, 3);
	for (i = 0; i < n; i++) {
		cmek_journal_applied(journal, requests[i].seq);
		append_done(a + i);
	}
	ck_assert_int_eq(cmek_journal_close(journal), 0);
}
END_TEST

START_TEST(too_big)
{
	struct cmek_journal *journal = journal_open();
	struct append a[3];
	struct cmek_journal_request requests[3];
	size_t max = cmek_journal_append_max(journal);
	int i;

	ck_assert_uint_eq(max % 4096, 0);
	for (i = 0; i < 3; i++) {
		append_init(a + i, (unsigned)i, i == 1 ? max + 4096 : 4096);
		requests[i] = a[i].request;
	}
	cmek_journal_append(journal, requests, 3);
	ck_assert_int_eq(requests[0].result, 0);
	ck_assert_int_eq(requests[1].result, -E2BIG);
	ck_assert_int_eq(requests[2].result, 0);
	cmek_journal_applied(journal, requests[0].seq);
	cmek_journal_applied(journal, requests[2].seq);
	for (i = 0; i < 3; i++)
		append_done(a + i);
	/* nothing stays of it; and what is just not too big has room again and again */
	for (i = 0; i < 4; i++)
		append_one(journal, 1, max, true);
	ck_assert_int_eq(status_of(journal).error, 0);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
}
END_TEST

/* ---- the ring ---- */

/* Round and round: after each append a crash finds just what is not checkpointed, in order, and nothing older. */
START_TEST(wraps)
{
	struct cmek_journal *journal = journal_open();
	uint64_t appended = 0, bytes = 0;
	unsigned i;

	srandom(7);
	for (i = 0; bytes < 6 * LENGTH; i++) {
		size_t units = (size_t)random() % (random() % 4 ? 100 : 500);

		append_one(journal, 1, units * 4096, true);
		bytes += units * 4096;
		appended++;
		if (random() % 16 == 0)
			ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
		if (i % 4 == 0) {
			struct cmek_journal_status before = status_of(journal);
			uint64_t found = crash_now().records;
			struct cmek_journal_status after = status_of(journal);

			/* the checkpointer may be between its superblock and its account of it */
			ck_assert_msg(found <= before.records && found >= after.records,
				      "append %llu: found %llu, want %llu..%llu", (unsigned long long)appended,
				      (unsigned long long)found, (unsigned long long)after.records,
				      (unsigned long long)before.records);
		}
	}
	ck_assert_uint_eq(status_of(journal).appends, appended);
	ck_assert_uint_gt(status_of(journal).checkpoints, 4);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
	ck_assert_int_eq(crash_now().journals, 0);
}
END_TEST

/* Locked: the journal is empty for whoever replays it, takes nothing and needs no key; then it goes on. */
START_TEST(suspended)
{
	struct cmek_journal *journal = journal_open();
	struct cmek_keyring *ring = store.ring;
	struct append a;
	unsigned i;

	for (i = 0; i < 3; i++) {
		(void)append_one(journal, 1, 4096, true);
		ck_assert_uint_eq(crash_now().journals, 1);
		ck_assert_int_eq(cmek_journal_suspend(journal), 0);
		ck_assert_uint_eq(crash_now().journals, 0);
		append_init(&a, 2, 4096);
		cmek_journal_append(journal, &a.request, 1);
		ck_assert_int_eq(a.request.result, -EKEYREVOKED);
		append_done(&a);
		ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
		ck_assert_uint_eq(crash_now().journals, 0);
		ck_assert_int_eq(cmek_journal_resume(journal), 0);
		(void)append_one(journal, 1, 8192, true);
		ck_assert_uint_eq(crash_now().records, 1);
	}
	ck_assert_int_eq(cmek_journal_suspend(journal), 0);
	cmek_keyring_wipe(ring);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
	cmek_keyring_free(ring);
	store.ring = NULL;
}
END_TEST

/* Begins with a later record: those before it have to be in place, those behind it stay. */
START_TEST(renewed)
{
	struct cmek_journal *journal = journal_open();
	uint64_t seq, first, second;
	unsigned i;

	first = append_one(journal, 1, 4096, false);
	seq = cmek_journal_next_seq(journal);
	ck_assert_uint_eq(seq, first + 1);
	second = append_one(journal, 2, 4096, false);
	for (i = 0; i < 2; i++)
		ck_assert_int_eq(cmek_journal_renew(journal, seq), -EAGAIN);
	ck_assert_uint_eq(crash_now().records, 2);
	cmek_journal_applied(journal, first);
	ck_assert_int_eq(cmek_journal_renew(journal, seq), 0);
	ck_assert_uint_eq(crash_now().records, 1);
	cmek_journal_not_applied(journal, second);
	ck_assert_int_eq(cmek_journal_renew(journal, seq), 0);
	ck_assert_int_eq(cmek_journal_renew(journal, cmek_journal_next_seq(journal)), -EIO);
	cmek_journal_applied(journal, second);
	ck_assert_int_eq(cmek_journal_renew(journal, cmek_journal_next_seq(journal)), 0);
	(void)append_one(journal, 1, 8192, true);
	ck_assert_uint_eq(crash_now().records, 1);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
	ck_assert_int_eq(crash_now().journals, 0);
}
END_TEST

/* What is not in place yet outlasts it, in the journal and in memory. */
START_TEST(suspended_with_unapplied)
{
	struct cmek_journal *journal = journal_open();
	uint64_t seq = append_one(journal, 1, 4096, false);

	(void)append_one(journal, 2, 4096, true);
	ck_assert_int_eq(cmek_journal_suspend(journal), 0);
	ck_assert_uint_eq(crash_now().records, 2);
	ck_assert_int_eq(cmek_journal_resume(journal), 0);
	(void)append_one(journal, 3, 4096, true);
	ck_assert_uint_eq(crash_now().records, 3);
	cmek_journal_applied(journal, seq);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
	ck_assert_uint_eq(crash_now().journals, 0);

	journal = journal_open();
	(void)append_one(journal, 1, 4096, false);
	ck_assert_int_eq(cmek_journal_suspend(journal), 0);
	ck_assert_int_eq(cmek_journal_close(journal), -EKEYREVOKED);
	ck_assert_uint_eq(crash_now().records, 1);
}
END_TEST

/* Records that are not applied stay, wherever the ring's head is. */
START_TEST(unapplied_stay)
{
	struct cmek_journal *journal = journal_open();
	uint64_t held[3];
	int i;

	for (i = 0; i < 5; i++)
		append_one(journal, 1, 1 << 20, true);
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	for (i = 0; i < 3; i++)
		held[i] = append_one(journal, 1, 1 << 20, false); /* over the end of the ring */
	append_one(journal, 1, 4096, true);
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_uint_eq(status_of(journal).records, 4);
	ck_assert_uint_eq(crash_now().records, 4);
	cmek_journal_applied(journal, held[1]); /* behind one that is not */
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_uint_eq(crash_now().records, 4);
	cmek_journal_applied(journal, held[0]);
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_uint_eq(crash_now().records, 2);
	cmek_journal_applied(journal, held[2]);
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_uint_eq(crash_now().records, 0);
	ck_assert_int_eq(crash_now().journals, 1);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
}
END_TEST

struct filler {
	struct cmek_journal *journal;
	size_t images_bytes;
	uint64_t seq; /* of its record, which stays until the test says that it is applied */
	atomic_int done;
};

static void *fill_main(void *arg)
{
	struct filler *f = arg;

	f->seq = append_one(f->journal, 2, f->images_bytes, false);
	f->done = 1;
	return NULL;
}

static bool await(atomic_int *flag, unsigned ms)
{
	for (; !*flag && ms > 0; ms--)
		usleep(1000);
	return *flag;
}

/* Who finds no room waits for the checkpoint: first for those who apply, then for the flush of the store. */
START_TEST(full_ring_waits)
{
	struct filler f = { .images_bytes = 1 << 20 };
	uint64_t seqs[8];
	pthread_t thread;
	unsigned i, n = 0;

	f.journal = journal_open();
	while (status_of(f.journal).used_bytes + (2 << 20) + 8192 <= LENGTH - 8192) /* 1 MiB is for touches */
		seqs[n++] = append_one(f.journal, 1, 1 << 20, false);
	gate(true);
	ck_assert_int_eq(pthread_create(&thread, NULL, fill_main, &f), 0);
	ck_assert(!await(&f.done, 100));
	for (i = 0; i < n; i++)
		cmek_journal_applied(f.journal, seqs[i]);
	ck_assert(!await(&f.done, 100));
	ck_assert_uint_eq(crash_now().records, n); /* not one is overwritten before it is safe */
	gate(false);
	ck_assert(await(&f.done, 10000));
	pthread_join(thread, NULL);
	ck_assert_uint_eq(crash_now().records, 1);
	cmek_journal_applied(f.journal, f.seq);
	ck_assert_int_eq(cmek_journal_close(f.journal), 0);
}
END_TEST

/* No room though less than half is used: the checkpointer has to hear of it then, too, and not only at its time. */
START_TEST(no_room_below_half)
{
	struct filler f = { .images_bytes = 0 };
	uint64_t seq;
	pthread_t thread;
	int i;

	f.journal = journal_open();
	f.images_bytes = cmek_journal_append_max(f.journal);
	for (i = 0; i < 2; i++)
		append_one(f.journal, 1, 1152 << 10, true);
	ck_assert_int_eq(cmek_journal_checkpoint(f.journal), 0);
	seq = append_one(f.journal, 1, f.images_bytes - 65536, false); /* in the middle: neither side has room for the largest */
	ck_assert_uint_lt(status_of(f.journal).used_bytes, LENGTH / 2);
	ck_assert_int_eq(pthread_create(&thread, NULL, fill_main, &f), 0);
	ck_assert(!await(&f.done, 200));
	cmek_journal_applied(f.journal, seq);
	ck_assert(await(&f.done, 10000));
	pthread_join(thread, NULL);
	cmek_journal_applied(f.journal, f.seq);
	ck_assert_int_eq(cmek_journal_close(f.journal), 0);
}
END_TEST

/* ---- touches ---- */

static struct cmek_journal_touch *touch(struct cmek_journal *journal, unsigned file)
{
	struct cmek_section section = { .flags = CMEK_FILE_TOUCH | CMEK_FILE_NEW_ID };
	struct cmek_journal_touch *t = NULL;

	ck_assert_int_gt(asprintf(&section.path, "f%u", file), 0);
	ck_assert_int_eq(cmek_journal_touch(journal, &section, false, &t), 0);
	ck_assert_ptr_null(section.path); /* the journal's now */
	return t;
}

/* However much is appended, and checkpointed: the touches are there, until they are taken off. */
START_TEST(touches_stay)
{
	enum { TOUCHES = 70 };
	struct cmek_journal_touch *touches[TOUCHES];
	struct cmek_journal *journal = journal_open();
	uint64_t seq;
	int i;

	for (i = 0; i < TOUCHES; i++)
		touches[i] = touch(journal, 100 + (unsigned)i);
	ck_assert_uint_eq(crash_now().files, TOUCHES);
	for (i = 0; i < 40; i++) {
		seq = append_one(journal, 1, 1 << 20, false);
		if (i % 5 == 0)
			ck_assert_uint_eq(crash_now().files, TOUCHES + 1);
		cmek_journal_applied(journal, seq);
	}
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_uint_eq(crash_now().files, TOUCHES);
	ck_assert_uint_eq(status_of(journal).records, 1);
	for (i = 0; i < TOUCHES; i++)
		cmek_journal_untouch(journal, touches[i]);
	cmek_journal_untouch(journal, NULL);
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_uint_eq(crash_now().records, 0);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
}
END_TEST

/* As many as can be repeated at once, and not one more: a checkpoint can always go on. */
START_TEST(too_many_touches)
{
	static struct cmek_journal_touch *touches[20000], *needed;
	struct cmek_journal *journal = journal_open();
	struct cmek_section section = { .flags = CMEK_FILE_TOUCH };
	size_t n = 0;
	int i, r;

	for (;;) {
		section.path = malloc(2000);
		memset(section.path, 'x', 1999);
		section.path[1999] = 0;
		r = cmek_journal_touch(journal, &section, false, touches + n);
		if (r < 0)
			break;
		ck_assert_uint_lt(++n, UNIT_ROWS(touches));
	}
	ck_assert_int_eq(r, -EAGAIN);
	ck_assert_uint_gt(n, 200);
	ck_assert_int_eq(cmek_journal_touch(journal, &section, true, &needed), 0);
	for (i = 0; i < 40; i++)
		append_one(journal, 1, 1 << 20, true);
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_int_eq(status_of(journal).error, 0);
	cmek_journal_untouch(journal, needed);
	while (n > 0)
		cmek_journal_untouch(journal, touches[--n]);
	needed = touch(journal, 5);
	cmek_journal_untouch(journal, needed);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
}
END_TEST

/* A touch that came again behind the commit would undo it. */
START_TEST(touch_ends_with_the_commit)
{
	struct cmek_journal *journal = journal_open();
	struct cmek_journal_touch *t = touch(journal, 1), *other = touch(journal, 2);
	struct append a;

	append_init(&a, 1, 4096);
	a.request.ends = t;
	cmek_journal_append(journal, &a.request, 1);
	ck_assert_int_eq(a.request.result, 0);
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0); /* frees both touches; the commit is not applied */
	ck_assert_uint_eq(crash_now().records, 2); /* the commit, and the other touch again */
	ck_assert_uint_eq(crash_now().files, 2);
	cmek_journal_applied(journal, a.request.seq);
	ck_assert_int_eq(cmek_journal_checkpoint(journal), 0);
	ck_assert_uint_eq(crash_now().files, 1);
	cmek_journal_untouch(journal, t);
	cmek_journal_untouch(journal, other);
	append_done(&a);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
}
END_TEST

/* What could not be written in place is in the way: appends fail then, and go on when it is applied after all. */
START_TEST(failed_is_in_the_way)
{
	struct cmek_journal *journal = journal_open();
	struct append a;
	uint64_t seq;
	int n = 0;

	seq = append_one(journal, 1, 1 << 20, false);
	cmek_journal_not_applied(journal, seq);
	do {
		append_init(&a, 2, 1 << 20);
		cmek_journal_append(journal, &a.request, 1);
		if (a.request.result == 0)
			cmek_journal_applied(journal, a.request.seq);
		append_done(&a);
	} while (a.request.result == 0 && ++n < 20);
	ck_assert_int_eq(a.request.result, -EIO);
	ck_assert_int_gt(n, 3);
	ck_assert_uint_eq(crash_now().records, (unsigned)n + 1);
	cmek_journal_applied(journal, seq);
	for (n = 0; n < 10; n++)
		append_one(journal, 2, 1 << 20, true);
	ck_assert_int_eq(cmek_journal_close(journal), 0);
}
END_TEST

/* ---- failures ---- */

START_TEST(failed_flush_sticks)
{
	struct cmek_journal *journal = journal_open();
	struct append a;
	int i;

	append_one(journal, 1, 4096, true);
	host.flush_result = -EIO;
	ck_assert_int_eq(cmek_journal_checkpoint(journal), -EIO);
	ck_assert_int_eq(host.reports, 1);
	ck_assert_int_eq(status_of(journal).error, -EIO);
	host.flush_result = 0; /* the kernel forgets, we don't */
	for (i = 0; i < 2; i++) {
		append_init(&a, 1, 4096);
		cmek_journal_append(journal, &a.request, 1);
		ck_assert_int_eq(a.request.result, -EIO);
		append_done(&a);
	}
	ck_assert_uint_eq(crash_now().records, 1);
	ck_assert_int_lt(cmek_journal_close(journal), 0);
	ck_assert_int_eq(crash_now().journals, 1); /* never said to be empty */
}
END_TEST

/* Who waits for room while the checkpoint fails is told so. */
START_TEST(failed_flush_ends_waiting)
{
	struct cmek_journal *journal = journal_open();
	struct append a;
	unsigned n = 0;

	host.flush_result = -ENOSPC;
	do {
		append_init(&a, 1, 1 << 20);
		cmek_journal_append(journal, &a.request, 1);
		if (a.request.result == 0)
			cmek_journal_applied(journal, a.request.seq);
		append_done(&a);
	} while (a.request.result == 0 && ++n < 100);
	ck_assert_int_eq(a.request.result, -ENOSPC);
	ck_assert_uint_gt(n, 2);
	ck_assert_int_lt(cmek_journal_close(journal), 0);
	ck_assert_uint_eq(crash_now().records, n);
}
END_TEST

/* What is not in place at the end is there at the next start. */
START_TEST(close_keeps_unapplied)
{
	struct cmek_journal *journal = journal_open();

	append_one(journal, 1, 4096, true);
	append_one(journal, 2, 4096, false);
	append_one(journal, 3, 4096, true);
	(void)cmek_journal_close(journal);
	ck_assert_int_eq(crash_now().journals, 1);
	ck_assert_uint_eq(crash_now().records, 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("journal");
	TCase *tcase = tcase_create("journal");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, open_and_close);
	tcase_add_loop_test(tcase, either_superblock, 0, 4);
	tcase_add_loop_test(tcase, blank_file, 0, 6);
	tcase_add_test(tcase, open_refused);
	tcase_add_test(tcase, threads_share);
	tcase_add_test(tcase, call_shares);
	tcase_add_test(tcase, too_big);
	tcase_add_test(tcase, wraps);
	tcase_add_test(tcase, suspended);
	tcase_add_test(tcase, renewed);
	tcase_add_test(tcase, suspended_with_unapplied);
	tcase_add_test(tcase, unapplied_stay);
	tcase_add_test(tcase, full_ring_waits);
	tcase_add_test(tcase, no_room_below_half);
	tcase_add_test(tcase, touches_stay);
	tcase_add_test(tcase, too_many_touches);
	tcase_add_test(tcase, touch_ends_with_the_commit);
	tcase_add_test(tcase, failed_is_in_the_way);
	tcase_add_test(tcase, failed_flush_sticks);
	tcase_add_test(tcase, failed_flush_ends_waiting);
	tcase_add_test(tcase, close_keeps_unapplied);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
