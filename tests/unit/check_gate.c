/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The gate in front of the handlers, with a socket pair in the place of the connection and this test as the kernel. */
#include "config.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sys/socket.h>

#include "fs/mount/gate.h"
#include "tests/unit/unit.h"

#define SECOND_MS 1000
/* Longer than any machine takes; only a failure waits for so long. */
#define LONG_MS (60 * SECOND_MS)

static struct {
	struct cmek_gate *gate;
	int kernel, daemon;
	pthread_t server;
	/* lock: a request that the server holds until it may go */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool hold, held;
	uint8_t buf[4096] __attribute__((aligned(8))); /* as malloc aligns the session's */
} f;

/* Serves as a thread of the session does, until the end of the connection. */
static void *serve(void *arg)
{
	struct fuse_attr_out attr = { .attr_valid = 7, .attr_valid_nsec = 7 };
	const struct fuse_in_header *in = (const struct fuse_in_header *)f.buf;
	struct fuse_out_header out = { 0 };
	struct iovec iov[2] = { { &out, sizeof(out) }, { &attr, sizeof(attr) } };
	ssize_t n;

	(void)arg;
	for (;;) {
		n = cmek_gate_read(f.gate, f.daemon, f.buf, sizeof(f.buf));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return NULL;
		pthread_mutex_lock(&f.lock);
		f.held = true;
		pthread_cond_broadcast(&f.cond);
		while (f.hold)
			pthread_cond_wait(&f.cond, &f.lock);
		f.held = false;
		pthread_mutex_unlock(&f.lock);
		out.unique = in->unique;
		out.error = in->opcode == FUSE_READ ? -EIO : in->opcode == FUSE_REMOVEXATTR ? -ENODATA : 0;
		out.len = sizeof(out) + (in->opcode == FUSE_SETATTR ? sizeof(attr) : 0);
		attr.attr_valid = attr.attr_valid_nsec = 7;
		if (in->opcode != FUSE_FORGET)
			ck_assert_int_eq(cmek_gate_writev(f.gate, f.daemon, iov, in->opcode == FUSE_SETATTR ? 2 : 1),
					 (ssize_t)out.len);
		cmek_gate_finish(f.gate);
	}
}

static void setup(void)
{
	int ends[2];

	memset(&f, 0, sizeof(f));
	pthread_mutex_init(&f.lock, NULL);
	pthread_cond_init(&f.cond, NULL);
	ck_assert_int_eq(cmek_gate_new(&f.gate), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	f.kernel = ends[0];
	f.daemon = ends[1];
	ck_assert_int_eq(pthread_create(&f.server, NULL, serve, NULL), 0);
}

static void teardown(void)
{
	close(f.kernel);
	pthread_join(f.server, NULL);
	close(f.daemon);
	cmek_gate_free(f.gate);
}

struct request {
	struct fuse_in_header head;
	struct fuse_setattr_in setattr;
};

static void send_request(uint32_t opcode, uint32_t setattr_valid, uint64_t unique)
{
	struct request r = { .head = { .len = sizeof(r), .opcode = opcode, .unique = unique },
			     .setattr = { .valid = setattr_valid } };

	ck_assert_int_eq(send(f.kernel, &r, sizeof(r), 0), sizeof(r));
}

/* The error of the next answer, which must be to this request. */
static int receive_answer(uint64_t unique)
{
	struct {
		struct fuse_out_header head;
		struct fuse_attr_out attr;
	} answer;
	ssize_t n = recv(f.kernel, &answer, sizeof(answer), 0);

	ck_assert_int_ge(n, (ssize_t)sizeof(answer.head));
	ck_assert_int_eq(answer.head.unique, unique);
	ck_assert_int_eq(answer.head.len, n);
	if (n == (ssize_t)sizeof(answer) && cmek_gate_state(f.gate) == CMEK_GATE_DRAINING)
		ck_assert(answer.attr.attr_valid == 0 && answer.attr.attr_valid_nsec == 0);
	else if (n == (ssize_t)sizeof(answer))
		ck_assert(answer.attr.attr_valid == 7);
	return answer.head.error;
}

static const struct rule_row {
	const char *name;
	uint32_t opcode, valid;
	bool draining, locked;
	bool read_only; /* served then */
} rule_rows[] = {
	{ "lookup", FUSE_LOOKUP, 0, false, false, true },
	{ "getattr", FUSE_GETATTR, 0, false, false, true },
	{ "open", FUSE_OPEN, O_RDONLY, false, false, true },
	{ "open to write", FUSE_OPEN, O_RDWR, false, false, false },
	{ "open and cut", FUSE_OPEN, O_RDONLY | O_TRUNC, false, false, false },
	{ "create", FUSE_CREATE, 0, false, false, false },
	{ "readdirplus", FUSE_READDIRPLUS, 0, false, false, true },
	{ "readlink", FUSE_READLINK, 0, false, false, true },
	{ "rename2", FUSE_RENAME2, 0, false, false, false },
	{ "getxattr", FUSE_GETXATTR, 0, false, false, true },
	{ "fallocate", FUSE_FALLOCATE, 0, false, false, false },
	{ "lseek", FUSE_LSEEK, 0, false, false, true },
	{ "write", FUSE_WRITE, 0, true, false, false },
	{ "fsync", FUSE_FSYNC, 0, true, false, true },
	{ "flush", FUSE_FLUSH, 0, true, false, true },
	{ "fsyncdir", FUSE_FSYNCDIR, 0, true, false, true },
	{ "times", FUSE_SETATTR, FATTR_MTIME | FATTR_CTIME | FATTR_FH, true, false, true },
	{ "all times", FUSE_SETATTR, FATTR_ATIME | FATTR_MTIME, true, false, false },
	{ "the time now", FUSE_SETATTR, FATTR_MTIME | FATTR_MTIME_NOW, true, false, false },
	{ "size", FUSE_SETATTR, FATTR_SIZE, false, false, false },
	{ "size and times", FUSE_SETATTR, FATTR_SIZE | FATTR_MTIME, false, false, false },
	{ "mode", FUSE_SETATTR, FATTR_MODE, false, false, false },
	{ "statfs", FUSE_STATFS, 0, true, true, true },
	{ "release", FUSE_RELEASE, 0, true, true, true },
	{ "releasedir", FUSE_RELEASEDIR, 0, true, true, true },
	{ "destroy", FUSE_DESTROY, 0, true, true, true },
	{ "a later kernel's", 4000, 0, false, false, false },
};

START_TEST(test_rules)
{
	const struct rule_row *row = rule_rows + _i;
	int i;

	for (i = 0; i < 2; i++) {
		send_request(row->opcode, row->valid, 1);
		ck_assert_msg(receive_answer(1) != -EKEYREVOKED, "%s, open", row->name);
		cmek_gate_set(f.gate, CMEK_GATE_DRAINING);
		send_request(row->opcode, row->valid, 2);
		ck_assert_msg((receive_answer(2) == 0) == row->draining, "%s, draining", row->name);
		cmek_gate_set(f.gate, CMEK_GATE_LOCKED);
		send_request(row->opcode, row->valid, 3);
		ck_assert_msg((receive_answer(3) == 0) == row->locked, "%s, locked", row->name);
		cmek_gate_set(f.gate, CMEK_GATE_OPEN);
	}
	ck_assert_int_eq(cmek_gate_refused(f.gate), 2 * (!row->draining + !row->locked));
}
END_TEST

START_TEST(test_read_only_rules)
{
	const struct rule_row *row = rule_rows + _i;

	cmek_gate_set(f.gate, CMEK_GATE_READ_ONLY);
	send_request(row->opcode, row->valid, 1);
	ck_assert_msg(receive_answer(1) == (row->read_only ? 0 : -EROFS), "%s", row->name);
	ck_assert_int_eq(cmek_gate_refused(f.gate), row->read_only ? 0 : 1);
}
END_TEST

START_TEST(test_read_only_writes)
{
	struct {
		struct fuse_in_header head;
		struct fuse_write_in write;
	} r = { .head = { .len = sizeof(r), .opcode = FUSE_WRITE } };
	static const struct {
		enum cmek_gate_state state;
		uint32_t flags;
		int error;
	} rows[] = {
		{ CMEK_GATE_OPEN, 0, 0 },
		{ CMEK_GATE_READ_ONLY, 0, -EROFS },
		{ CMEK_GATE_READ_ONLY, FUSE_WRITE_CACHE, 0 },
		{ CMEK_GATE_DRAINING, 0, 0 },
		{ CMEK_GATE_LOCKED, FUSE_WRITE_CACHE, -EKEYREVOKED },
		{ CMEK_GATE_OPEN, FUSE_WRITE_CACHE, 0 },
	};
	size_t i;

	for (i = 0; i < UNIT_ROWS(rows); i++) {
		cmek_gate_set(f.gate, rows[i].state);
		r.head.unique = i + 1;
		r.write.write_flags = rows[i].flags;
		ck_assert_int_eq(send(f.kernel, &r, sizeof(r), 0), sizeof(r));
		ck_assert_int_eq(receive_answer(i + 1), rows[i].error);
	}
}
END_TEST

static void remove_xattr(const char *name, int error)
{
	struct {
		struct fuse_in_header head;
		char name[24];
	} r = { .head = { .len = sizeof(r), .opcode = FUSE_REMOVEXATTR, .unique = 9 } };

	strcpy(r.name, name);
	ck_assert_int_eq(send(f.kernel, &r, sizeof(r), 0), sizeof(r));
	ck_assert_int_eq(receive_answer(9), error);
}

/* What the kernel asks before a write is answered so that the write ends there; what users ask is not. */
START_TEST(test_read_only_capability)
{
	struct {
		struct fuse_in_header head;
		struct fuse_getxattr_in in;
		char name[24];
	} r = { .head = { .len = sizeof(r), .opcode = FUSE_GETXATTR, .unique = 1 } };
	struct {
		struct fuse_out_header head;
		struct fuse_getxattr_out out;
	} answer;

	strcpy(r.name, "security.capability");
	ck_assert_int_eq(send(f.kernel, &r, sizeof(r), 0), sizeof(r));
	ck_assert_int_eq(recv(f.kernel, &answer, sizeof(answer), 0), sizeof(answer.head));
	remove_xattr("security.capability", -ENODATA);
	cmek_gate_set(f.gate, CMEK_GATE_READ_ONLY);
	ck_assert_int_eq(send(f.kernel, &r, sizeof(r), 0), sizeof(r));
	ck_assert_int_eq(recv(f.kernel, &answer, sizeof(answer), 0), sizeof(answer));
	ck_assert(answer.head.unique == 1 && answer.head.error == 0 && answer.out.size > 0);
	r.in.size = 100;
	ck_assert_int_eq(send(f.kernel, &r, sizeof(r), 0), sizeof(r));
	ck_assert_int_eq(recv(f.kernel, &answer, sizeof(answer), 0), sizeof(answer.head));
	r.in.size = 0;
	strcpy(r.name, "security.selinux");
	ck_assert_int_eq(send(f.kernel, &r, sizeof(r), 0), sizeof(r));
	ck_assert_int_eq(recv(f.kernel, &answer, sizeof(answer), 0), sizeof(answer.head));
	ck_assert_int_eq(cmek_gate_refused(f.gate), 0);
	remove_xattr("security.capability", -EROFS);
	/* Told then, taken away now. */
	cmek_gate_set(f.gate, CMEK_GATE_OPEN);
	remove_xattr("security.capability", 0);
	remove_xattr("security.selinux", -ENODATA);
}
END_TEST

/* A request without an answer is let in, too, and one that is cut short is not looked at beyond its end. */
START_TEST(test_odd_requests)
{
	struct fuse_in_header head = { .len = sizeof(head), .opcode = FUSE_SETATTR, .unique = 5 };

	cmek_gate_set(f.gate, CMEK_GATE_LOCKED);
	send_request(FUSE_FORGET, 0, 4);
	send_request(FUSE_STATFS, 0, 6);
	ck_assert_int_eq(receive_answer(6), 0);
	cmek_gate_set(f.gate, CMEK_GATE_DRAINING);
	ck_assert_int_eq(send(f.kernel, &head, sizeof(head), 0), sizeof(head));
	ck_assert_int_eq(receive_answer(5), -EKEYREVOKED);
}
END_TEST

static void hold_one(uint32_t opcode, uint64_t unique)
{
	pthread_mutex_lock(&f.lock);
	f.hold = true;
	send_request(opcode, 0, unique);
	while (!f.held)
		pthread_cond_wait(&f.cond, &f.lock);
	pthread_mutex_unlock(&f.lock);
}

static void let_go(void)
{
	pthread_mutex_lock(&f.lock);
	f.hold = false;
	pthread_cond_broadcast(&f.cond);
	pthread_mutex_unlock(&f.lock);
}

START_TEST(test_waits)
{
	const unsigned open = CMEK_GATE_WHILE(CMEK_GATE_OPEN), draining = CMEK_GATE_WHILE(CMEK_GATE_DRAINING);

	ck_assert(cmek_gate_wait(f.gate, CMEK_GATE_WHILE_ANY, 0));
	hold_one(FUSE_GETATTR, 1);
	cmek_gate_set(f.gate, CMEK_GATE_DRAINING);
	ck_assert(!cmek_gate_wait(f.gate, open, 10));
	ck_assert(!cmek_gate_wait(f.gate, CMEK_GATE_WHILE_ANY, 10));
	ck_assert(cmek_gate_wait(f.gate, draining, 0));
	let_go();
	ck_assert_int_eq(receive_answer(1), 0);
	ck_assert(cmek_gate_wait(f.gate, open, LONG_MS));
	/* One that was let in while draining does not count as one of before. */
	hold_one(FUSE_WRITE, 2);
	ck_assert(cmek_gate_wait(f.gate, open, 0));
	ck_assert(!cmek_gate_wait(f.gate, open | draining, 10));
	let_go();
	ck_assert_int_eq(receive_answer(2), 0);
	ck_assert(cmek_gate_wait(f.gate, CMEK_GATE_WHILE_ANY, LONG_MS));
}
END_TEST

START_TEST(test_counts)
{
	struct cmek_gate_op op;
	uint64_t in_buckets = 0;
	unsigned i;

	for (i = 1; i <= 5; i++) {
		send_request(i == 5 ? FUSE_WRITE : FUSE_READ, 0, i);
		ck_assert_int_eq(receive_answer(i), i == 5 ? 0 : -EIO);
	}
	ck_assert(cmek_gate_wait(f.gate, CMEK_GATE_WHILE_ANY, LONG_MS));
	for (i = 0; cmek_gate_op(f.gate, i, &op) && strcmp(op.name, "read"); i++)
		;
	ck_assert_str_eq(op.name, "read");
	ck_assert(op.n == 4 && op.failed == 4 && op.total_ns > 0);
	for (i = 0; i < CMEK_GATE_BUCKETS; i++)
		in_buckets += op.buckets[i];
	ck_assert_int_eq(in_buckets, 4);
	ck_assert(!cmek_gate_op(f.gate, 10000, &op));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("gate");
	TCase *tc = tcase_create("gate");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, test_rules, 0, UNIT_ROWS(rule_rows));
	tcase_add_loop_test(tc, test_read_only_rules, 0, UNIT_ROWS(rule_rows));
	tcase_add_test(tc, test_read_only_writes);
	tcase_add_test(tc, test_read_only_capability);
	tcase_add_test(tc, test_odd_requests);
	tcase_add_test(tc, test_waits);
	tcase_add_test(tc, test_counts);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
