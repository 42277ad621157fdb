// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Makes one crash image from a recording: what a disk may hold after the power failed behind the first CUT records.
 * All up to the last flush before the cut is there; each later write is kept, dropped or torn as mode and seed say.
 * The state at the last flush is kept beside, in the prefix image, from which the next cut is quick. It must not know
 * what is on the image.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/powercut/record.h"

#define COPY_BYTES (1024 * 1024)

struct log {
	const uint8_t *data;
	uint64_t bytes;
};

/* A place in the log: the record with this index starts at this offset. */
struct position {
	uint64_t index;
	uint64_t offset;
};

enum mode {
	MODE_NONE,  /* drop all that was not flushed */
	MODE_ALL,   /* keep all of it */
	MODE_FEW,   /* keep each unit with 1 in 10 */
	MODE_HALF,  /* 1 in 2 */
	MODE_MOST,  /* 9 in 10 */
	MODE_MIXED, /* each request kept, dropped or torn */
	MODE_ONE,   /* tear one request, keep the others */
	MODE_EARLY, /* keep the first ones, tear one, drop the rest: a disk that keeps order */
	MODE_LATE,  /* drop the first ones, tear one, keep the rest */
};

static const char *const mode_names[] = { "none", "all", "few", "half", "most", "mixed", "one", "early", "late" };

struct args {
	const char *log;
	const char *prefix; /* PREFIX.pos says how far it is */
	const char *out;
	uint64_t cut;
	uint64_t unit_bytes; /* 0: requests are atomic */
	enum mode mode;
	uint64_t random; /* state of random_next() */
};

struct counts {
	uint64_t pending; /* requests behind the last flush */
	uint64_t kept_units;
	uint64_t units;
};

/* splitmix64: the same sequence everywhere, so that a seed repeats an image. */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static bool chance(uint64_t *state, uint64_t of_ten)
{
	return random_next(state) % 10 < of_ten;
}

static int fail(const char *what)
{
	int err = errno ? errno : EIO;

	fprintf(stderr, "mkimage: %s: %s\n", what, strerror(err));
	return -err;
}

/* The head at pos; false at the end of the log, or where its last record was cut off. */
static bool head_at(const struct log *log, const struct position *pos, struct pc_record_head *ret_head)
{
	uint64_t left = log->bytes - pos->offset;
	uint64_t data_bytes;

	if (left < sizeof(*ret_head))
		return false;
	memcpy(ret_head, log->data + pos->offset, sizeof(*ret_head));
	data_bytes = ret_head->type == PC_WRITE || ret_head->type == PC_MARK ? ret_head->length : 0;
	return ret_head->magic == PC_RECORD_MAGIC && data_bytes <= left - sizeof(*ret_head);
}

static void step(struct position *pos, const struct pc_record_head *head)
{
	pos->index++;
	pos->offset += sizeof(*head);
	if (head->type == PC_WRITE || head->type == PC_MARK)
		pos->offset += head->length;
}

static int write_at(int fd, const uint8_t *data, uint64_t length, uint64_t offset)
{
	while (length > 0) {
		ssize_t n = pwrite(fd, data, length, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail("writing an image");
		data += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
	return 0;
}

/* Part [from, from + length) of a request, relative to its start. */
static int apply_part(int fd, const struct pc_record_head *head, const uint8_t *data, uint64_t from, uint64_t length)
{
	if (head->type == PC_WRITE)
		return write_at(fd, data + from, length, head->offset + from);
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(head->offset + from), (off_t)length) < 0)
		return fail("punching an image");
	return 0;
}

/*
 * Units kept of a request that is torn: the first ones, the last ones, or any. Units lie where a disk has its sectors,
 * so a request may start or end in the middle of one.
 */
static int apply_torn(int fd, const struct args *args, uint64_t *random, uint64_t of_ten,
		      const struct pc_record_head *head, const uint8_t *data, struct counts *counts)
{
	bool by_mode = args->mode == MODE_FEW || args->mode == MODE_HALF || args->mode == MODE_MOST;
	uint64_t unit = args->unit_bytes;
	uint64_t lead = unit ? head->offset % unit : 0;
	uint64_t units = unit ? (lead + head->length + unit - 1) / unit : 1;
	uint64_t shape = by_mode ? 2 : random_next(random) % 4;
	uint64_t border = random_next(random) % (units + 1);
	uint64_t i;
	int ret = 0;

	for (i = 0; i < units && !ret; i++) {
		uint64_t from = i == 0 ? 0 : i * unit - lead;
		uint64_t to = i == units - 1 ? head->length : (i + 1) * unit - lead;
		bool keep = shape == 0 ? i < border : shape == 1 ? i >= border : chance(random, of_ten);

		if (keep) {
			ret = apply_part(fd, head, data, from, to - from);
			counts->kept_units++;
		}
	}
	counts->units += units;
	return ret;
}

static int apply_whole(int fd, const struct pc_record_head *head, const uint8_t *data, struct counts *counts)
{
	counts->units++;
	counts->kept_units++;
	return apply_part(fd, head, data, 0, head->length);
}

/* Request number i of the pending ones; chosen is the one that modes one, early and late single out. */
static int apply_pending(int fd, struct args *args, uint64_t i, uint64_t chosen, const struct pc_record_head *head,
			 const uint8_t *data, struct counts *counts)
{
	bool keep = false;
	uint64_t third;

	switch (args->mode) {
	case MODE_NONE:
		break;
	case MODE_ALL:
		keep = true;
		break;
	case MODE_FEW:
		return apply_torn(fd, args, &args->random, 1, head, data, counts);
	case MODE_HALF:
		return apply_torn(fd, args, &args->random, 5, head, data, counts);
	case MODE_MOST:
		return apply_torn(fd, args, &args->random, 9, head, data, counts);
	case MODE_MIXED:
		third = random_next(&args->random) % 3;
		if (third == 0)
			return apply_torn(fd, args, &args->random, 5, head, data, counts);
		keep = third == 1;
		break;
	case MODE_ONE:
	case MODE_EARLY:
	case MODE_LATE:
		if (i == chosen)
			return apply_torn(fd, args, &args->random, 5, head, data, counts);
		keep = args->mode == MODE_ONE || (args->mode == MODE_EARLY) == (i < chosen);
		break;
	}
	if (keep)
		return apply_whole(fd, head, data, counts);
	counts->units++;
	return 0;
}

/* Applies what lies in [pos, end) to the prefix image, all of it. */
static int advance(int fd, const struct log *log, struct position *pos, uint64_t end)
{
	struct pc_record_head head;
	int ret;

	while (pos->index < end && head_at(log, pos, &head)) {
		if (head.type == PC_WRITE || head.type == PC_DISCARD) {
			ret = apply_part(fd, &head, log->data + pos->offset + sizeof(head), 0, head.length);
			if (ret)
				return ret;
		}
		step(pos, &head);
	}
	return 0;
}

/* The index behind the last flush before the cut, and how many requests lie between it and the cut. */
static int find_flush(const struct log *log, struct position pos, uint64_t cut, uint64_t *ret_end,
		      uint64_t *ret_pending)
{
	struct pc_record_head head;

	*ret_end = pos.index;
	*ret_pending = 0;
	while (pos.index < cut) {
		if (!head_at(log, &pos, &head)) {
			errno = ERANGE;
			return fail("the cut lies behind the end of the log");
		}
		step(&pos, &head);
		if (head.type == PC_FLUSH) {
			*ret_end = pos.index;
			*ret_pending = 0;
		} else if (head.type != PC_MARK) {
			++*ret_pending;
		}
	}
	return 0;
}

/* Copies what is not a hole. out is new, so its holes are zeros. */
static int copy_sparse(int in, int out)
{
	struct stat st;
	off_t data = 0, hole;
	uint8_t *buf = NULL;
	int ret = 0;

	buf = malloc(COPY_BYTES);
	if (!buf || fstat(in, &st) < 0 || ftruncate(out, st.st_size) < 0) {
		ret = fail("copying the prefix");
		goto out;
	}
	while ((data = lseek(in, data, SEEK_DATA)) >= 0) {
		hole = lseek(in, data, SEEK_HOLE);
		while (data < hole) {
			size_t want = hole - data < COPY_BYTES ? (size_t)(hole - data) : COPY_BYTES;
			ssize_t n = pread(in, buf, want, data);

			if (n <= 0) {
				ret = fail("reading the prefix");
				goto out;
			}
			ret = write_at(out, buf, (uint64_t)n, (uint64_t)data);
			if (ret)
				goto out;
			data += n;
		}
	}
	if (errno != ENXIO)
		ret = fail("looking for data");
out:
	free(buf);
	return ret;
}

static int make(struct args *args, const struct log *log, int prefix, int out, struct position *pos)
{
	struct counts counts = { 0, 0, 0 };
	struct pc_record_head head;
	struct position at;
	uint64_t end, chosen, i = 0;
	int ret;

	ret = find_flush(log, *pos, args->cut, &end, &counts.pending);
	if (!ret)
		ret = advance(prefix, log, pos, end);
	if (!ret)
		ret = copy_sparse(prefix, out);
	chosen = counts.pending ? random_next(&args->random) % counts.pending : 0;
	at = *pos;
	while (!ret && at.index < args->cut && head_at(log, &at, &head)) {
		if (head.type == PC_WRITE || head.type == PC_DISCARD)
			ret = apply_pending(out, args, i++, chosen, &head, log->data + at.offset + sizeof(head),
					    &counts);
		step(&at, &head);
	}
	if (!ret)
		printf("flushed %" PRIu64 ", pending %" PRIu64 ", kept %" PRIu64 " of %" PRIu64 " units\n",
		       pos->index, counts.pending, counts.kept_units, counts.units);
	return ret;
}

/* Without the file the prefix is the base image: nothing of the log is in it. */
static int position_load(const char *path, struct position *ret_pos)
{
	FILE *f = fopen(path, "re");
	int fields;

	ret_pos->index = 0;
	ret_pos->offset = 0;
	if (!f)
		return errno == ENOENT ? 0 : fail(path);
	fields = fscanf(f, "%" SCNu64 " %" SCNu64, &ret_pos->index, &ret_pos->offset);
	fclose(f);
	errno = EINVAL;
	return fields == 2 ? 0 : fail(path);
}

static int position_save(const char *path, const struct position *pos)
{
	FILE *f = fopen(path, "we");
	bool bad;

	if (!f)
		return fail(path);
	bad = fprintf(f, "%" PRIu64 " %" PRIu64 "\n", pos->index, pos->offset) < 0;
	bad = fclose(f) != 0 || bad;
	return bad ? fail(path) : 0;
}

static int map_log(const char *path, struct log *ret_log)
{
	struct stat st;
	void *data;
	int fd, ret = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(path);
	data = mmap(NULL, st.st_size ? (size_t)st.st_size : 1, PROT_READ, MAP_SHARED, fd, 0);
	if (data == MAP_FAILED) {
		ret = fail(path);
	} else {
		ret_log->data = data;
		ret_log->bytes = (uint64_t)st.st_size;
	}
	close(fd);
	return ret;
}

static int run(struct args *args)
{
	struct position pos;
	struct log log = { NULL, 0 };
	char *pos_path = NULL;
	int prefix = -1, out = -1, ret;

	if (asprintf(&pos_path, "%s.pos", args->prefix) < 0)
		return -ENOMEM;
	ret = map_log(args->log, &log);
	if (!ret)
		ret = position_load(pos_path, &pos);
	if (ret)
		goto out;
	if (pos.index > args->cut || pos.offset > log.bytes) {
		errno = ERANGE;
		ret = fail("the prefix is past the cut already");
		goto out;
	}
	prefix = open(args->prefix, O_RDWR | O_CLOEXEC);
	out = open(args->out, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (prefix < 0 || out < 0) {
		ret = fail(prefix < 0 ? args->prefix : args->out);
		goto out;
	}
	ret = make(args, &log, prefix, out, &pos);
	if (!ret)
		ret = position_save(pos_path, &pos);
out:
	if (prefix >= 0)
		close(prefix);
	if (out >= 0)
		close(out);
	if (out >= 0 && ret)
		unlink(args->out); /* half an image must not be taken for one */
	free(pos_path);
	return ret;
}

static bool parse_number(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno;
}

int main(int argc, char **argv)
{
	struct args args;
	size_t mode = 0;

	if (argc != 8) {
		fprintf(stderr, "usage: mkimage LOG PREFIX OUT CUT 512|4096|whole MODE SEED\n");
		return 2;
	}
	args.log = argv[1];
	args.prefix = argv[2];
	args.out = argv[3];
	while (mode < sizeof(mode_names) / sizeof(mode_names[0]) && strcmp(argv[6], mode_names[mode]) != 0)
		mode++;
	if (!strcmp(argv[5], "whole"))
		args.unit_bytes = 0;
	else if (!parse_number(argv[5], &args.unit_bytes) || args.unit_bytes < 512)
		mode = sizeof(mode_names);
	if (!parse_number(argv[4], &args.cut) || !parse_number(argv[7], &args.random) || mode > MODE_LATE) {
		fprintf(stderr, "mkimage: bad argument\n");
		return 2;
	}
	args.mode = (enum mode)mode;
	return run(&args) ? 1 : 0;
}
