/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reads and changes FUSE messages where libfuse's interface falls short of the protocol (linux/fuse.h). It must not know
 * what a request is answered, nor does it do any I/O.
 */
#include "config.h"

#include <linux/fuse.h>
#include <string.h>

#include "fs/mount/wire.h"

/* What is read by one thread is served by it before it reads again. */
static __thread struct cmek_wire_flags current;

struct cmek_wire_flags cmek_wire_flags(void)
{
	return current;
}

bool cmek_wire_kills_privs(const struct cmek_wire *wire)
{
	return wire->agreed & FUSE_HANDLE_KILLPRIV_V2;
}

/* The body of a request, if it has at least `need` bytes. */
static uint8_t *body_of(void *buf, size_t n, size_t need)
{
	return n >= sizeof(struct fuse_in_header) + need ? (uint8_t *)buf + sizeof(struct fuse_in_header) : NULL;
}

static void received_init(struct cmek_wire *wire, const struct fuse_in_header *head, const uint8_t *body)
{
	struct fuse_init_in init;

	memcpy(&init, body, offsetof(struct fuse_init_in, flags) + sizeof(init.flags));
	wire->init_unique = head->unique;
	wire->agreed = init.flags & (FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT);
}

/* libfuse knows the short form only. */
static size_t shorten_setxattr(struct fuse_in_header *head, uint8_t *body, size_t n)
{
	const size_t extra = sizeof(struct fuse_setxattr_in) - FUSE_COMPAT_SETXATTR_IN_SIZE;
	struct fuse_setxattr_in in;
	uint8_t *end = (uint8_t *)head + n;

	memcpy(&in, body, sizeof(in));
	current.kill_sgid = in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID;
	memmove(body + FUSE_COMPAT_SETXATTR_IN_SIZE, body + sizeof(in), (size_t)(end - body) - sizeof(in));
	head->len -= (uint32_t)extra;
	return n - extra;
}

static bool flag_at(const uint8_t *body, size_t off, uint32_t flag)
{
	uint32_t flags;

	memcpy(&flags, body + off, sizeof(flags));
	return flags & flag;
}

size_t cmek_wire_received(struct cmek_wire *wire, void *buf, size_t n)
{
	struct fuse_in_header *head = buf;
	uint8_t *body;

	memset(&current, 0, sizeof(current));
	if (n < sizeof(*head))
		return n;
	switch (head->opcode) {
	case FUSE_INIT:
		body = body_of(buf, n, offsetof(struct fuse_init_in, flags) + sizeof(uint32_t));
		if (body)
			received_init(wire, head, body);
		break;
	case FUSE_WRITE:
		body = body_of(buf, n, sizeof(struct fuse_write_in));
		current.kill_suidgid =
			body && flag_at(body, offsetof(struct fuse_write_in, write_flags), FUSE_WRITE_KILL_SUIDGID);
		break;
	case FUSE_SETATTR:
		body = body_of(buf, n, sizeof(struct fuse_setattr_in));
		current.kill_suidgid = body && flag_at(body, offsetof(struct fuse_setattr_in, valid), FATTR_KILL_SUIDGID);
		break;
	case FUSE_OPEN:
		body = body_of(buf, n, sizeof(struct fuse_open_in));
		current.kill_suidgid =
			body && flag_at(body, offsetof(struct fuse_open_in, open_flags), FUSE_OPEN_KILL_SUIDGID);
		break;
	case FUSE_CREATE:
		body = body_of(buf, n, sizeof(struct fuse_create_in));
		current.kill_suidgid =
			body && flag_at(body, offsetof(struct fuse_create_in, open_flags), FUSE_OPEN_KILL_SUIDGID);
		break;
	case FUSE_SETXATTR:
		body = body_of(buf, n, sizeof(struct fuse_setxattr_in));
		if (body && (wire->agreed & FUSE_SETXATTR_EXT))
			return shorten_setxattr(head, body, n);
		break;
	default:
		break;
	}
	return n;
}

void cmek_wire_answering(const struct cmek_wire *wire, const struct iovec *iov, int count)
{
	const struct fuse_out_header *head = iov[0].iov_base;
	struct fuse_init_out *out;

	if (count < 2 || iov[0].iov_len < sizeof(*head) || head->unique != wire->init_unique || head->error != 0 ||
	    wire->agreed == 0 || iov[1].iov_len < offsetof(struct fuse_init_out, flags) + sizeof(out->flags))
		return;
	out = iov[1].iov_base;
	out->flags |= wire->agreed;
}
