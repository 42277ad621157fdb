/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The journal's ring: where the next record goes, who writes it, when its space is free again. One thread at a time
 * leads: it takes what waits, writes it as one record, flushes once, and answers all; then the next one leads.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "fs/content/journal_file.h"

#define BATCH_BYTES_MAX (UINT64_C(4) << 20)
/* Records older than this are checkpointed even when there is room, so that a replay is short. */
#define CHECKPOINT_MS 30000
/* Kept free of other records, so that touches can always be repeated. */
#define TOUCH_ROOM (UINT64_C(1) << 20)

/* A record in the ring that is still needed. */
struct live {
	uint64_t off, bytes, seq;
	uint64_t added_ms;  /* monotonic */
	unsigned unapplied; /* sections that are not yet written in place */
	bool failed;        /* and the attempt has failed */
};

/* What has to stay in the journal while a file is written in place. */
struct cmek_journal_touch {
	struct cmek_journal_touch *prev, *next;
	struct cmek_section section;
	uint64_t seq;       /* of its newest record */
	bool ended;         /* a newer record of the file is there: not to be repeated any more */
	bool repeating;     /* its section is being read, without the lock */
};

struct cmek_journal {
	/* constant */
	struct cmek_journal_host host;
	struct cmek_journal_file file; /* its superblocks: by who checkpoints, opens or closes */
	pthread_t checkpointer;
	/* lock: the rest */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* requests done, leadership, room */
	pthread_cond_t wake;    /* the checkpointer */
	struct cmek_journal_request *head, *tail;
	bool leading, writing, checkpointing, stopping;
	bool suspended; /* no key: nothing is read or written */
	bool room_wanted; /* the leader waits for a checkpoint */
	struct cmek_journal_touch *touches;
	size_t touch_bytes; /* of meta data, when they are repeated */
	int error; /* first failure; nothing is appended after it */
	uint64_t next_seq, write_off, used_bytes;
	struct live *live; /* a queue in a growing array: live[first..first+n-1] */
	size_t live_first, live_n, live_capacity;
	struct cmek_journal_status counters;
};

static void lock(struct cmek_journal *j)
{
	(void)pthread_mutex_lock(&j->lock);
}

static void unlock(struct cmek_journal *j)
{
	(void)pthread_mutex_unlock(&j->lock);
}

/* ---- room ---- */

static bool checkpoint_wanted_locked(const struct cmek_journal *j)
{
	return j->room_wanted || j->used_bytes > j->file.params.length_bytes / 2;
}

static struct live *oldest_locked(struct cmek_journal *j)
{
	return j->live_n > 0 ? j->live + j->live_first : NULL;
}

/*
 * Where a record of this length can go now, with `spare` bytes left behind it before the oldest one; false: not before
 * a checkpoint.
 */
static bool place_locked(struct cmek_journal *j, uint64_t bytes, uint64_t spare, uint64_t *ret_off)
{
	const struct live *oldest = oldest_locked(j);
	uint64_t length = j->file.params.length_bytes, before_oldest;

	if (oldest != NULL && j->write_off <= oldest->off) {
		*ret_off = j->write_off;
		return bytes + spare <= oldest->off - j->write_off;
	}
	before_oldest = oldest == NULL ? length - CMEK_JOURNAL_RECORDS_AT : oldest->off - CMEK_JOURNAL_RECORDS_AT;
	*ret_off = bytes <= length - j->write_off ? j->write_off : CMEK_JOURNAL_RECORDS_AT;
	if (*ret_off == j->write_off)
		return length - j->write_off - bytes >= spare || before_oldest >= spare;
	return bytes + spare <= before_oldest;
}

static int add_live_locked(struct cmek_journal *j, uint64_t off, uint64_t bytes, unsigned sections)
{
	struct live *grown;
	size_t capacity;

	if (j->live_first > 0 && j->live_first + j->live_n == j->live_capacity) {
		memmove(j->live, j->live + j->live_first, j->live_n * sizeof(*j->live));
		j->live_first = 0;
	}
	if (j->live_n == j->live_capacity) {
		capacity = j->live_capacity == 0 ? 256 : j->live_capacity * 2;
		grown = reallocarray(j->live, capacity, sizeof(*grown));
		if (grown == NULL)
			return -ENOMEM;
		j->live = grown;
		j->live_capacity = capacity;
	}
	j->live[j->live_first + j->live_n++] = (struct live){ off, bytes, j->next_seq, cmek_now_ms(), sections, false };
	j->used_bytes += bytes;
	return 0;
}

/* ---- appending ---- */

/* Takes what waits, as far as one record should go, off the queue. */
static struct cmek_journal_request *take_batch_locked(struct cmek_journal *j, struct cmek_section **sections, struct iovec *images,
					 unsigned *ret_n)
{
	struct cmek_journal_request *batch = j->head, *last = NULL;
	uint64_t bytes = 0, max = cmek_journal_batch_max(j);
	unsigned n = 0;

	while (j->head != NULL && n < CMEK_RECORD_PIECES && (n == 0 || bytes + j->head->images_bytes <= max)) {
		last = j->head;
		last->section->image_base = bytes / CMEK_JOURNAL_UNIT;
		sections[n] = last->section;
		images[n] = (struct iovec){ (void *)(uintptr_t)last->images, last->images_bytes };
		bytes += last->images_bytes;
		n++;
		j->head = last->next;
	}
	if (j->head == NULL)
		j->tail = NULL;
	if (last != NULL)
		last->next = NULL;
	*ret_n = n;
	return batch;
}

/* The newest record could not be written (no space, no memory): its place and number are for the next one. */
static void take_back_locked(struct cmek_journal *j, uint64_t off)
{
	j->used_bytes -= j->live[j->live_first + --j->live_n].bytes;
	j->next_seq--;
	j->write_off = off;
}

/* Writes and flushes one record; lock not held, leading is. *ret_written: it is the flush that failed, if any. */
static int write_record(struct cmek_journal *j, struct cmek_section **sections, const struct iovec *images, size_t n,
			int n_images, uint64_t off, uint64_t seq, size_t meta_bytes, bool *ret_written)
{
	struct iovec iov[CMEK_RECORD_PIECES + 1];
	struct cmek_record_id id = { .seq = seq };
	uint8_t *meta = malloc(meta_bytes);
	int r;

	*ret_written = false;
	if (meta == NULL)
		return -ENOMEM;
	memcpy(id.volume, j->file.params.volume, sizeof(id.volume));
	memcpy(id.mount_id, j->file.params.mount_id, sizeof(id.mount_id));
	r = cmek_record_encode(j->file.ring, &id, (const struct cmek_section *const *)sections, n, images, n_images, meta);
	iov[0] = (struct iovec){ meta, meta_bytes };
	if (n_images > 0)
		memcpy(iov + 1, images, (size_t)n_images * sizeof(*images));
	if (r == 0)
		r = cmek_pwritev_full(j->file.fd, iov, n_images + 1, off);
	/* A write that failed for want of space can be tried again; after any other failure the disk is not to be trusted. */
	*ret_written = r == 0 || (r != -ENOSPC && r != -EDQUOT && r != -ENOMEM);
	if (r == 0 && fdatasync(j->file.fd) < 0)
		r = -errno;
	free(meta);
	return r;
}

/*
 * Writes one record at off, where room for it was found, as the newest one in the ring, with as many unapplied sections.
 * The lock is held on entry and exit, and not in between. *ret_seq: its number, in any case.
 */
static int add_record_locked(struct cmek_journal *j, struct cmek_section **sections, size_t n,
			     const struct iovec *images, int n_images, uint64_t off, unsigned unapplied,
			     uint64_t *ret_seq)
{
	size_t meta_bytes = cmek_record_meta_bytes((const struct cmek_section *const *)sections, n);
	uint64_t bytes = meta_bytes, seq = j->next_seq;
	bool written;
	int i, r;

	*ret_seq = seq;
	for (i = 0; i < n_images; i++)
		bytes += images[i].iov_len;
	r = add_live_locked(j, off, bytes, unapplied);
	if (r < 0)
		return r;
	j->next_seq++;
	j->write_off = off + bytes;
	j->writing = true;
	unlock(j);
	r = write_record(j, sections, images, n, n_images, off, seq, meta_bytes, &written);
	lock(j);
	j->writing = false;
	if (r < 0 && written)
		j->error = r;
	else if (r < 0)
		take_back_locked(j, off);
	return r;
}

static int wait_for_room_locked(struct cmek_journal *j, uint64_t bytes, uint64_t *ret_off)
{
	const struct live *oldest;

	if (j->suspended)
		return -EKEYREVOKED;
	/* writing: the checkpoint repeats touches */
	while (j->error == 0 && (j->writing || !place_locked(j, bytes, TOUCH_ROOM, ret_off))) {
		oldest = oldest_locked(j);
		if (!j->writing && oldest != NULL && oldest->failed) {
			j->room_wanted = false;
			return -EIO;
		}
		j->room_wanted = true;
		(void)pthread_cond_signal(&j->wake);
		(void)pthread_cond_wait(&j->changed, &j->lock);
	}
	j->room_wanted = false;
	return j->error;
}

/* The leader's work; lock held on entry and exit. */
static void lead_locked(struct cmek_journal *j)
{
	struct cmek_section *sections[CMEK_RECORD_PIECES] = { NULL };
	struct iovec images[CMEK_RECORD_PIECES];
	struct cmek_journal_request *batch, *request;
	uint64_t bytes, off = 0, seq = 0;
	unsigned n, i;
	int r;

	j->leading = true;
	batch = take_batch_locked(j, sections, images, &n);
	bytes = cmek_record_meta_bytes((const struct cmek_section *const *)sections, n);
	for (i = 0; i < n; i++)
		bytes += images[i].iov_len;
	r = wait_for_room_locked(j, bytes, &off);
	if (r == 0) {
		r = add_record_locked(j, sections, n, images, (int)n, off, n, &seq);
		j->counters.flushes++;
		j->counters.appends += n;
		j->counters.appended_bytes += bytes;
	}
	for (request = batch; request != NULL; request = request->next) {
		if (r == 0 && request->ends != NULL)
			request->ends->ended = true; /* before anybody else can write */
		request->seq = seq;
		request->result = r;
		request->done = true;
	}
	j->leading = false;
	if (checkpoint_wanted_locked(j))
		(void)pthread_cond_signal(&j->wake);
	(void)pthread_cond_broadcast(&j->changed);
}

void cmek_journal_append(struct cmek_journal *journal, struct cmek_journal_request *requests, size_t n)
{
	size_t i;

	lock(journal);
	for (i = 0; i < n; i++) {
		requests[i].done = requests[i].images_bytes > cmek_journal_append_max(journal);
		requests[i].result = requests[i].done ? -E2BIG : 0;
		requests[i].next = NULL;
		if (requests[i].done)
			continue;
		*(journal->tail != NULL ? &journal->tail->next : &journal->head) = requests + i;
		journal->tail = requests + i;
	}
	for (i = 0; i < n; i++) {
		while (!requests[i].done) {
			if (!journal->leading)
				lead_locked(journal);
			else
				(void)pthread_cond_wait(&journal->changed, &journal->lock);
		}
	}
	unlock(journal);
}

/* The record with this number, which is one that still has something unapplied; sequence numbers are dense. */
static struct live *live_of_locked(struct cmek_journal *j, uint64_t seq)
{
	struct live *live = j->live + j->live_first + (seq - oldest_locked(j)->seq);

	assert(live->seq == seq && live->unapplied > 0);
	return live;
}

void cmek_journal_applied(struct cmek_journal *journal, uint64_t seq)
{
	struct live *live;

	lock(journal);
	live = live_of_locked(journal, seq);
	live->unapplied--;
	live->failed = live->failed && live->unapplied > 0;
	if (live->unapplied == 0 && checkpoint_wanted_locked(journal))
		(void)pthread_cond_signal(&journal->wake);
	unlock(journal);
}

void cmek_journal_not_applied(struct cmek_journal *journal, uint64_t seq)
{
	lock(journal);
	live_of_locked(journal, seq)->failed = true;
	(void)pthread_cond_broadcast(&journal->changed);
	unlock(journal);
}

/* ---- touches ---- */

/* Room for one more when all are repeated in one record. */
static bool reserve_touch(struct cmek_journal *j, size_t bytes, bool needed)
{
	size_t max = (needed ? TOUCH_ROOM : TOUCH_ROOM / 2) - CMEK_JOURNAL_UNIT;
	bool fits;

	lock(j);
	fits = j->touch_bytes + bytes <= max;
	if (fits)
		j->touch_bytes += bytes;
	unlock(j);
	return fits;
}

/* What was reserved for the touch is its from here on. */
static void list_touch_locked(struct cmek_journal *j, struct cmek_journal_touch *touch, struct cmek_section *section,
			      uint64_t seq)
{
	touch->section = *section;
	touch->seq = seq;
	touch->next = j->touches;
	if (touch->next != NULL)
		touch->next->prev = touch;
	j->touches = touch;
	memset(section, 0, sizeof(*section));
}

int cmek_journal_touch(struct cmek_journal *journal, struct cmek_section *section, bool needed,
		       struct cmek_journal_touch **ret_touch)
{
	struct cmek_journal_request request = { .section = section };
	size_t bytes = cmek_section_bytes(section);
	struct cmek_journal_touch *touch;

	if (!reserve_touch(journal, bytes, needed))
		return -EAGAIN;
	touch = calloc(1, sizeof(*touch));
	request.result = -ENOMEM;
	if (touch != NULL)
		cmek_journal_append(journal, &request, 1);
	lock(journal);
	if (request.result < 0)
		journal->touch_bytes -= bytes;
	else
		list_touch_locked(journal, touch, section, request.seq);
	unlock(journal);
	if (request.result < 0) {
		free(touch);
		return request.result;
	}
	cmek_journal_applied(journal, request.seq); /* from here on the list keeps it */
	*ret_touch = touch;
	return 0;
}

int cmek_journal_touch_with(struct cmek_journal *journal, struct cmek_section *section, uint64_t seq,
			    struct cmek_journal_touch **ret_touch)
{
	struct cmek_journal_touch *touch = calloc(1, sizeof(*touch));

	if (touch == NULL)
		return -ENOMEM;
	if (!reserve_touch(journal, cmek_section_bytes(section), true)) {
		free(touch);
		return -EAGAIN;
	}
	lock(journal);
	list_touch_locked(journal, touch, section, seq);
	unlock(journal);
	*ret_touch = touch;
	return 0;
}

void cmek_journal_untouch(struct cmek_journal *journal, struct cmek_journal_touch *touch)
{
	if (touch == NULL)
		return;
	lock(journal);
	while (touch->repeating)
		(void)pthread_cond_wait(&journal->changed, &journal->lock);
	*(touch->prev != NULL ? &touch->prev->next : &journal->touches) = touch->next;
	if (touch->next != NULL)
		touch->next->prev = touch->prev;
	journal->touch_bytes -= cmek_section_bytes(&touch->section);
	unlock(journal);
	cmek_section_done(&touch->section);
	free(touch);
}

/*
 * Repeats the touches whose newest record is below `seq`, in one record without images; lock held on entry and exit.
 * The room for it is kept free.
 */
static int repeat_touches_locked(struct cmek_journal *j, uint64_t seq)
{
	struct cmek_section **sections = NULL;
	struct cmek_journal_touch *touch;
	uint64_t off, new_seq;
	size_t n = 0;
	int r = -ENOSPC;

	while (j->writing)
		(void)pthread_cond_wait(&j->changed, &j->lock);
	for (touch = j->touches; touch != NULL; touch = touch->next)
		n += touch->seq < seq && !touch->ended;
	if (n == 0)
		return 0;
	sections = calloc(n, sizeof(*sections));
	if (sections == NULL)
		return -ENOMEM;
	for (touch = j->touches, n = 0; touch != NULL; touch = touch->next) {
		touch->repeating = touch->seq < seq && !touch->ended;
		if (touch->repeating)
			sections[n++] = &touch->section;
	}
	if (place_locked(j, cmek_record_meta_bytes((const struct cmek_section *const *)sections, n), 0, &off))
		r = add_record_locked(j, sections, n, NULL, 0, off, 0, &new_seq);
	for (touch = j->touches; touch != NULL; touch = touch->next) {
		if (r == 0 && touch->repeating)
			touch->seq = new_seq;
		touch->repeating = false;
	}
	(void)pthread_cond_broadcast(&j->changed);
	free(sections);
	return r;
}

uint64_t cmek_journal_batch_max(const struct cmek_journal *journal)
{
	uint64_t quarter = cmek_journal_append_max(journal) / 4;

	return quarter < BATCH_BYTES_MAX ? quarter : BATCH_BYTES_MAX;
}

uint64_t cmek_journal_append_max(const struct cmek_journal *journal)
{
	/* two of them, with their meta data, fit the ring */
	return (journal->file.params.length_bytes - CMEK_JOURNAL_RECORDS_AT) / 2 - CMEK_JOURNAL_META_ROOM;
}

/* ---- checkpoint ---- */

/* Whether the superblock may say that there is nothing to replay. */
static bool is_done_with_locked(const struct cmek_journal *j)
{
	return j->live_n == 0 && j->touches == NULL && j->error == 0;
}

/* Where replay begins when the n oldest records are not to be read. */
static void tail_locked(const struct cmek_journal *j, size_t n, uint64_t *ret_off, uint64_t *ret_seq)
{
	const struct live *oldest = n < j->live_n ? j->live + j->live_first + n : NULL;

	*ret_off = oldest != NULL ? oldest->off : j->write_off;
	*ret_seq = oldest != NULL ? oldest->seq : j->next_seq;
	if (*ret_off == j->file.params.length_bytes)
		*ret_off = CMEK_JOURNAL_RECORDS_AT;
}

/* The lock is held before, and not behind it; r and what: how that went. */
static void end_checkpoint(struct cmek_journal *j, int r, const char *what)
{
	j->checkpointing = false;
	if (r < 0 && j->error == 0)
		j->error = r;
	(void)pthread_cond_broadcast(&j->changed);
	unlock(j);
	if (r < 0)
		j->host.report(j->host.arg, r, what);
}

int cmek_journal_checkpoint(struct cmek_journal *journal)
{
	uint64_t tail_off, tail_seq;
	size_t n = 0;
	bool empty;
	int r;

	lock(journal);
	while (journal->checkpointing)
		(void)pthread_cond_wait(&journal->changed, &journal->lock);
	if (journal->suspended) {
		unlock(journal);
		return 0;
	}
	journal->checkpointing = true;
	/* After a failure nothing is freed any more: a flush that succeeds then says nothing of what an earlier one lost. */
	while (journal->error == 0 && n < journal->live_n && journal->live[journal->live_first + n].unapplied == 0)
		n++;
	unlock(journal);
	r = n > 0 ? journal->host.flush_store(journal->host.arg) : 0;

	lock(journal);
	if (r == 0 && n > 0)
		r = repeat_touches_locked(journal, journal->live[journal->live_first + n - 1].seq + 1);
	if (r == 0 && n > 0) {
		/* What was appended meanwhile stays; where the tail now is must be durable before the space is used. */
		empty = n == journal->live_n && !journal->leading;
		tail_locked(journal, n, &tail_off, &tail_seq);
		unlock(journal);
		/* never "empty" while mounted: a record may be on its way behind this superblock */
		r = cmek_journal_file_write_super(&journal->file, empty && journal->stopping, tail_off, tail_seq);
		lock(journal);
		for (; r == 0 && n > 0; n--) {
			journal->used_bytes -= journal->live[journal->live_first].bytes;
			journal->live_first++;
			journal->live_n--;
		}
		journal->counters.checkpoints++;
	}
	end_checkpoint(journal, r, "the journal's checkpoint failed: its records stay, and the volume is read-only until it is "
				   "mounted anew");
	return r;
}

/* Both superblocks, with the tail where it is; what is appended or applied meanwhile does not matter to them. */
static int rewrite_supers(struct cmek_journal *j)
{
	uint64_t tail_off, tail_seq;
	int i, r = 0;

	lock(j);
	while (j->checkpointing)
		(void)pthread_cond_wait(&j->changed, &j->lock);
	if (j->suspended || j->error != 0) {
		r = j->suspended ? -EKEYREVOKED : j->error;
		unlock(j);
		return r;
	}
	j->checkpointing = true; /* who frees records, and who writes superblocks, is one at a time */
	tail_locked(j, 0, &tail_off, &tail_seq);
	unlock(j);
	for (i = 0; r == 0 && i < 2; i++)
		r = cmek_journal_file_write_super(&j->file, false, tail_off, tail_seq);
	lock(j);
	end_checkpoint(j, r, "the journal's superblock could not be written: the volume is read-only until it is mounted anew");
	return r;
}

uint64_t cmek_journal_next_seq(struct cmek_journal *journal)
{
	uint64_t seq;

	lock(journal);
	seq = journal->next_seq; /* a record gets its number first, and is sealed then */
	unlock(journal);
	return seq;
}

int cmek_journal_renew(struct cmek_journal *journal, uint64_t seq)
{
	int r = cmek_journal_checkpoint(journal);

	if (r < 0)
		return r;
	lock(journal);
	if (journal->suspended)
		r = -EKEYREVOKED;
	else if (journal->error != 0)
		r = journal->error;
	else if (journal->live_n > 0 && oldest_locked(journal)->seq < seq)
		r = oldest_locked(journal)->failed ? -EIO : -EAGAIN;
	unlock(journal);
	return r == 0 ? rewrite_supers(journal) : r;
}

static bool oldest_is_applied_locked(struct cmek_journal *j)
{
	const struct live *oldest = oldest_locked(j);

	return oldest != NULL && oldest->unapplied == 0;
}

static void *checkpointer_main(void *arg)
{
	struct cmek_journal *j = arg;
	struct timespec until;
	bool stop;

	for (;;) {
		(void)clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += CHECKPOINT_MS / 1000;
		lock(j);
		if (!j->stopping && (!checkpoint_wanted_locked(j) || !oldest_is_applied_locked(j)))
			(void)pthread_cond_timedwait(&j->wake, &j->lock, &until);
		stop = j->stopping || j->error != 0;
		unlock(j);
		if (stop)
			return NULL;
		(void)cmek_journal_checkpoint(j); /* reported there, and kept for the next append */
	}
}

/* ---- life ---- */

static void free_journal(struct cmek_journal *j)
{
	cmek_journal_file_close(&j->file);
	while (j->touches != NULL) {
		struct cmek_journal_touch *touch = j->touches;

		j->touches = touch->next;
		cmek_section_done(&touch->section);
		free(touch);
	}
	free(j->live);
	(void)pthread_mutex_destroy(&j->lock);
	(void)pthread_cond_destroy(&j->changed);
	(void)pthread_cond_destroy(&j->wake);
	free(j);
}

/*
 * Both superblocks say "not empty" before the first record can be there: if only the newer one did, and went bad, the
 * other one would call the journal empty, and with it what was synced would be gone without a word.
 */
static int write_not_empty(struct cmek_journal *journal)
{
	int i, r = 0;

	for (i = 0; r == 0 && i < 2; i++)
		r = cmek_journal_file_write_super(&journal->file, false, CMEK_JOURNAL_RECORDS_AT, journal->next_seq);
	return r;
}

int cmek_journal_open(struct cmek_keyring *ring, int dirfd, const struct cmek_journal_host *host,
		      const struct cmek_journal_params *params, struct cmek_journal **ret_journal,
		      struct cmek_error *err)
{
	struct cmek_journal *j = calloc(1, sizeof(*j));
	pthread_condattr_t attr;
	int r;

	if (j == NULL)
		return cmek_error_sys(err, ENOMEM, "journal");
	j->host = *host;
	j->next_seq = 1;
	j->write_off = CMEK_JOURNAL_RECORDS_AT;
	(void)pthread_mutex_init(&j->lock, NULL);
	(void)pthread_cond_init(&j->changed, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&j->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	r = cmek_journal_file_open(ring, dirfd, params, &j->file, err);
	/* From here on replay has to look. */
	if (r == 0) {
		r = write_not_empty(j);
		if (r < 0)
			r = cmek_error_sys(err, -r, ".cmekfs/journal.0");
	}
	if (r == 0) {
		r = -pthread_create(&j->checkpointer, NULL, checkpointer_main, j);
		if (r < 0)
			r = cmek_error_sys(err, -r, "checkpoint thread");
	}
	if (r < 0) {
		free_journal(j);
		return r;
	}
	*ret_journal = j;
	return 0;
}

int cmek_journal_close(struct cmek_journal *journal)
{
	int r;

	if (journal == NULL)
		return 0;
	lock(journal);
	journal->stopping = true;
	(void)pthread_cond_signal(&journal->wake);
	unlock(journal);
	(void)pthread_join(journal->checkpointer, NULL);
	r = cmek_journal_checkpoint(journal);
	if (journal->suspended)
		r = journal->live_n > 0 || journal->error != 0 ? -EKEYREVOKED : 0; /* suspending it said what there was to say */
	else if (r == 0 && journal->live_n == 0 && journal->error == 0)
		r = cmek_journal_file_write_super(&journal->file, true, CMEK_JOURNAL_RECORDS_AT, journal->next_seq);
	else if (r == 0)
		r = journal->error;
	free_journal(journal);
	return r;
}

int cmek_journal_suspend(struct cmek_journal *journal)
{
	int r = cmek_journal_checkpoint(journal);
	bool done;

	lock(journal);
	while (journal->checkpointing || journal->leading)
		(void)pthread_cond_wait(&journal->changed, &journal->lock);
	journal->suspended = true;
	done = r == 0 && is_done_with_locked(journal);
	unlock(journal);
	if (done)
		r = cmek_journal_file_write_super(&journal->file, true, CMEK_JOURNAL_RECORDS_AT, journal->next_seq);
	return r;
}

int cmek_journal_resume(struct cmek_journal *journal)
{
	int r = 0;
	bool done;

	lock(journal);
	done = is_done_with_locked(journal);
	unlock(journal);
	if (done)
		r = write_not_empty(journal); /* as when it was opened */
	lock(journal);
	if (r == 0 && done)
		journal->write_off = CMEK_JOURNAL_RECORDS_AT;
	else if (r < 0 && journal->error == 0)
		journal->error = r;
	journal->suspended = false;
	unlock(journal);
	return r;
}

void cmek_journal_status(struct cmek_journal *journal, struct cmek_journal_status *ret_status)
{
	lock(journal);
	*ret_status = journal->counters;
	ret_status->length_bytes = journal->file.params.length_bytes;
	ret_status->used_bytes = journal->used_bytes;
	ret_status->records = journal->live_n;
	ret_status->oldest_ms = journal->live_n > 0 ? cmek_now_ms() - oldest_locked(journal)->added_ms : 0;
	ret_status->error = journal->error;
	unlock(journal);
}
