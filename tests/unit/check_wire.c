/* SPDX-License-Identifier: GPL-3.0-or-later */
/* FUSE messages as the kernel sends them: what is agreed at INIT, which flags are seen, what libfuse gets to read. */
#include "config.h"

#include <check.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

#include "fs/mount/wire.h"

static struct cmek_wire wire;
static uint8_t message[4096];

/* A request of this kind with this body; its length. */
static size_t request(uint32_t opcode, uint64_t unique, const void *body, size_t len)
{
	struct fuse_in_header head = { .len = (uint32_t)(sizeof head + len), .opcode = opcode, .unique = unique };

	memcpy(message, &head, sizeof head);
	memcpy(message + sizeof head, body, len);
	return sizeof head + len;
}

static void init_with(uint32_t flags)
{
	struct fuse_init_in in = { .major = 7, .minor = 38, .flags = flags };

	memset(&wire, 0, sizeof wire);
	ck_assert_uint_eq(cmek_wire_received(&wire, message, request(FUSE_INIT, 2, &in, sizeof in)), sizeof(in) + 40);
}

/* The flags of an answer to this request. */
static uint32_t answer_flags(uint64_t unique, int error)
{
	struct fuse_out_header head = { .len = sizeof head + sizeof(struct fuse_init_out), .unique = unique, .error = error };
	struct fuse_init_out out = { .major = 7, .flags = FUSE_ASYNC_READ };
	struct iovec iov[2] = { { &head, sizeof head }, { &out, sizeof out } };

	cmek_wire_answering(&wire, iov, 2);
	cmek_wire_answering(&wire, iov, 1);
	return out.flags;
}

START_TEST(init)
{
	init_with(FUSE_ASYNC_READ | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT);
	ck_assert(cmek_wire_kills_privs(&wire));
	ck_assert_uint_eq(answer_flags(2, 0), FUSE_ASYNC_READ | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT);
	ck_assert_uint_eq(answer_flags(3, 0), FUSE_ASYNC_READ);
	ck_assert_uint_eq(answer_flags(2, -5), FUSE_ASYNC_READ);
	/* an old kernel */
	init_with(FUSE_ASYNC_READ);
	ck_assert(!cmek_wire_kills_privs(&wire));
	ck_assert_uint_eq(answer_flags(2, 0), FUSE_ASYNC_READ);
}
END_TEST

static const struct fuse_write_in write_kill = { .write_flags = FUSE_WRITE_KILL_SUIDGID },
				  write_keep = { .write_flags = FUSE_WRITE_CACHE | FUSE_WRITE_LOCKOWNER };
static const struct fuse_setattr_in setattr_kill = { .valid = FATTR_SIZE | FATTR_KILL_SUIDGID },
				    setattr_keep = { .valid = FATTR_SIZE | FATTR_MODE };
static const struct fuse_open_in open_kill = { .open_flags = FUSE_OPEN_KILL_SUIDGID }, open_keep = { .flags = 0x201 };
static const struct fuse_create_in create_kill = { .open_flags = FUSE_OPEN_KILL_SUIDGID }, create_keep = { .mode = 06777 };

static const struct {
	uint32_t opcode;
	const void *body;
	size_t len;
	bool kill;
} requests[] = {
	{ FUSE_WRITE, &write_kill, sizeof write_kill, true },
	{ FUSE_WRITE, &write_keep, sizeof write_keep, false },
	{ FUSE_WRITE, &write_kill, sizeof write_kill - 1, false }, /* libfuse refuses it */
	{ FUSE_SETATTR, &setattr_kill, sizeof setattr_kill, true },
	{ FUSE_SETATTR, &setattr_keep, sizeof setattr_keep, false },
	{ FUSE_OPEN, &open_kill, sizeof open_kill, true },
	{ FUSE_OPEN, &open_keep, sizeof open_keep, false },
	{ FUSE_OPEN, &open_kill, 0, false },
	{ FUSE_CREATE, &create_kill, sizeof create_kill, true },
	{ FUSE_CREATE, &create_keep, sizeof create_keep, false },
	{ FUSE_READ, &write_kill, sizeof write_kill, false },
};

START_TEST(flags)
{
	size_t n;

	init_with(FUSE_HANDLE_KILLPRIV_V2);
	/* what the request before said is forgotten */
	(void)cmek_wire_received(&wire, message, request(FUSE_WRITE, 4, &write_kill, sizeof write_kill));
	n = request(requests[_i].opcode, 5, requests[_i].body, requests[_i].len);
	ck_assert_uint_eq(cmek_wire_received(&wire, message, n), n);
	ck_assert_int_eq(cmek_wire_flags().kill_suidgid, requests[_i].kill);
	ck_assert(!cmek_wire_flags().kill_sgid);
}
END_TEST

START_TEST(too_short)
{
	uint8_t bytes[sizeof(struct fuse_in_header)] = { 0 };

	ck_assert_uint_eq(cmek_wire_received(&wire, bytes, 0), 0);
	ck_assert_uint_eq(cmek_wire_received(&wire, bytes, sizeof bytes - 1), sizeof bytes - 1);
}
END_TEST

/* With and without the longer form of setxattr. */
START_TEST(setxattr)
{
	struct {
		struct fuse_setxattr_in in;
		char text[12];
	} body = { { .size = 3, .flags = 1, .setxattr_flags = FUSE_SETXATTR_ACL_KILL_SGID }, "user.a\0val" };
	struct fuse_in_header head;
	size_t n;

	init_with(FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT);
	n = request(FUSE_SETXATTR, 9, &body, sizeof body.in + 10);
	ck_assert_uint_eq(cmek_wire_received(&wire, message, n), n - 8);
	memcpy(&head, message, sizeof head);
	ck_assert_uint_eq(head.len, n - 8);
	ck_assert_mem_eq(message + sizeof head, &body, 8);
	ck_assert_mem_eq(message + sizeof head + 8, "user.a\0val", 10);
	ck_assert(cmek_wire_flags().kill_sgid);

	init_with(FUSE_HANDLE_KILLPRIV_V2);
	ck_assert_uint_eq(cmek_wire_received(&wire, message, request(FUSE_SETXATTR, 9, &body, sizeof body.in + 10)), n);
	ck_assert(!cmek_wire_flags().kill_sgid);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wire");
	TCase *tc = tcase_create("wire");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, init);
	tcase_add_loop_test(tc, flags, 0, sizeof(requests) / sizeof(*requests));
	tcase_add_test(tc, too_short);
	tcase_add_test(tc, setxattr);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
