/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reads a journal. A record is written when the one before it is durable, so a crash tears the newest one and no other:
 * one that is bad while a later one is whole was damaged afterwards, and it held what an fsync has answered for.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/io.h"
#include "fs/content/journal.h"
#include "fs/content/replay_log.h"

/* A whole record that was found by looking everywhere. */
struct found {
	uint64_t seq, off, bytes;
};

/*
 * Something in the ring that is, or was, a record: this was a journal once, and blank superblocks are damage. Holes are
 * passed over, for nobody has said how long this file is to be.
 */
static bool has_records(const struct cmek_replay_log *log)
{
	uint8_t head[8];
	off_t off = CMEK_JOURNAL_RECORDS_AT, data;

	for (;; off += CMEK_JOURNAL_UNIT) {
		data = lseek(log->fd, off, SEEK_DATA);
		if (data > off)
			off = data - data % CMEK_JOURNAL_UNIT;
		if (data < 0 || cmek_pread_full(log->fd, head, sizeof(head), (uint64_t)off) != (ssize_t)sizeof(head))
			return false;
		if (!cmek_is_zero(head, sizeof(head)))
			return true;
	}
}

/* Cut off behind its superblock: no crash does that, for the length is durable before a superblock names it. */
static bool is_cut(const struct cmek_replay_log *log)
{
	struct stat st;

	return fstat(log->fd, &st) == 0 && (uint64_t)st.st_size < log->super.length_bytes;
}

int cmek_replay_log_open(struct cmek_replay_log *log)
{
	struct cmek_journal_super super;
	struct cmek_file_handle own;
	uint8_t buf[CMEK_JOURNAL_UNIT];
	int i, r, worst = -EBADMSG, n_good = 0;
	bool blank = true;

	for (i = 0; i < 2; i++) {
		ssize_t n = cmek_pread_full(log->fd, buf, sizeof(buf), (uint64_t)i * CMEK_JOURNAL_UNIT);

		blank = blank && n >= 0 && cmek_is_zero(buf, (size_t)n);
		r = n == (ssize_t)sizeof(buf) ? cmek_journal_super_decode(log->ring, log->volume, buf, &super) :
		    n < 0		      ? (int)n :
						-EBADMSG;
		if (r < 0 && r != -EBADMSG)
			worst = r;
		if (r == 0 && (n_good++ == 0 || super.sequence > log->super.sequence))
			log->super = super;
	}
	if (n_good == 0)
		return blank && !has_records(log) ? -ENODATA : worst;
	log->one_super = n_good == 1;
	log->handles = cmek_handle_of(log->fd, &own) == 0 && own.len > 0 && own.len == log->super.handle.len &&
		       own.type == log->super.handle.type &&
		       memcmp(own.bytes, log->super.handle.bytes, own.len) == 0;
	return 0;
}

/* ---- one record ---- */

static struct cmek_record_id id_of(const struct cmek_replay_log *log, uint64_t seq)
{
	struct cmek_record_id id = { .seq = seq };

	memcpy(id.volume, log->volume, sizeof(id.volume));
	memcpy(id.mount_id, log->super.mount_id, sizeof(id.mount_id));
	return id;
}

/*
 * The record with this number at off, reduced to states unless that is NULL. -EBADMSG: there is none; -EIO and the like:
 * that can't be said.
 */
static int read_record(struct cmek_replay_log *log, uint64_t off, uint64_t seq, struct cmek_last_states *states,
		       uint64_t *ret_bytes)
{
	struct cmek_record_id id = id_of(log, seq);
	struct cmek_section *sections = NULL;
	uint8_t head[CMEK_RECORD_HEAD_BYTES], *buf;
	const uint8_t *images = NULL;
	uint64_t bytes;
	size_t n = 0, i;
	ssize_t got;
	int r;

	if (off >= log->super.length_bytes)
		return -EBADMSG;
	got = cmek_pread_full(log->fd, head, sizeof(head), off);
	r = got < 0 ? (int)got : got < (ssize_t)sizeof(head) ? -EBADMSG : cmek_record_peek(head, &id, &bytes);
	if (r < 0)
		return r;
	if (bytes > log->super.length_bytes - off)
		return -EBADMSG;
	buf = malloc(bytes);
	if (buf == NULL)
		return -ENOMEM;
	got = cmek_pread_full(log->fd, buf, bytes, off);
	r = got < 0 ? (int)got : got < (ssize_t)bytes ? -EBADMSG :
			cmek_record_decode(log->ring, &id, buf, bytes, &sections, &n, &images);
	for (i = 0; r == 0 && states != NULL && i < n; i++)
		r = cmek_last_states_add(states, sections + i, off + (uint64_t)(images - buf));
	for (i = 0; i < n; i++)
		cmek_section_done(sections + i);
	free(sections);
	free(buf);
	*ret_bytes = bytes;
	return r;
}

/* ---- all that is there ---- */

static int compare_found(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/*
 * Every whole record of this mount from number `seq` on, wherever it is, in order. What is left of earlier rounds of the
 * ring has numbers below that of the tail.
 */
static int find_records(struct cmek_replay_log *log, uint64_t seq, struct found **ret_found, size_t *ret_n)
{
	uint8_t head[CMEK_RECORD_HEAD_BYTES];
	struct cmek_record_id id = id_of(log, 0);
	struct found *found = NULL, *grown;
	uint64_t off, bytes;
	size_t n = 0;
	int r = 0;

	for (off = CMEK_JOURNAL_RECORDS_AT; off < log->super.length_bytes; off += CMEK_JOURNAL_UNIT) {
		if (cmek_pread_full(log->fd, head, sizeof(head), off) != (ssize_t)sizeof(head))
			continue;
		id.seq = cmek_load64(head + 40);
		if (id.seq < seq || cmek_record_peek(head, &id, &bytes) < 0)
			continue;
		r = read_record(log, off, id.seq, NULL, &bytes);
		if (r == -ENOMEM || r == -EUCLEAN)
			break;
		if (r < 0)
			continue;
		grown = reallocarray(found, n + 1, sizeof(*grown));
		r = grown != NULL ? 0 : -ENOMEM;
		if (r < 0)
			break;
		found = grown;
		found[n++] = (struct found){ id.seq, off, bytes };
	}
	if (r == -ENOMEM || r == -EUCLEAN) {
		free(found);
		return r;
	}
	if (n > 0)
		qsort(found, n, sizeof(*found), compare_found);
	*ret_found = found;
	*ret_n = n;
	return 0;
}

/* Whether they follow each other, and `seq`, without a gap. */
static bool are_dense(const struct found *found, size_t n, uint64_t seq)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (found[i].seq != seq + i)
			return false;
	return true;
}

/*
 * The records may begin later than the superblock says, if it is the older one and the newer is bad: then they follow
 * each other without a gap, and what was at the tail has been overwritten, as is done to what is freed and nothing else.
 */
static bool begins_later(const struct cmek_replay_log *log, const struct found *found, size_t n)
{
	uint64_t tail = log->super.tail_off;
	size_t i;

	for (i = 0; log->one_super && log->n_records == 0 && i < n; i++)
		if (found[i].off <= tail && tail - found[i].off < found[i].bytes)
			return are_dense(found, n, found[0].seq);
	return false;
}

/* Record number `seq` at *off, or at the beginning of the ring if it did not fit there; *off is then behind it. */
static int read_next(struct cmek_replay_log *log, uint64_t *off, uint64_t seq, struct cmek_last_states *states)
{
	uint64_t bytes = 0, at = *off;
	int r = read_record(log, at, seq, states, &bytes);

	if (r == -EBADMSG && at != CMEK_JOURNAL_RECORDS_AT) {
		at = CMEK_JOURNAL_RECORDS_AT;
		r = read_record(log, at, seq, states, &bytes);
	}
	if (r == 0) {
		log->n_records++;
		*off = at + bytes;
	}
	return r;
}

int cmek_replay_log_read(struct cmek_replay_log *log, struct cmek_last_states *states)
{
	uint64_t off = log->super.tail_off, seq = log->super.tail_seq, bytes;
	struct found *found = NULL;
	size_t i, n = 0;
	int r;

	while ((r = read_next(log, &off, seq, states)) == 0)
		seq++;
	if (r == -ENOMEM || r == -EUCLEAN || r == -ENOKEY || r == -EKEYREVOKED)
		return r;
	/* A torn end authenticates as little as damage does; one that can't be read may have been anything. */
	log->damaged = r != -EBADMSG || is_cut(log);
	r = find_records(log, seq, &found, &n);
	if (r == 0 && !are_dense(found, n, seq) && !begins_later(log, found, n))
		log->damaged = true;
	log->missing_seq = seq;
	log->n_behind = log->damaged ? n : 0;
	for (i = 0; r == 0 && i < n; i++) {
		r = read_record(log, found[i].off, found[i].seq, states, &bytes);
		log->n_records++;
	}
	free(found);
	if (r == 0)
		cmek_last_states_settle(states);
	return r;
}
