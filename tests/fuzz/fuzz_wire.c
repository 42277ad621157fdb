/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Requests of the kernel on their way to libfuse, and the answer to INIT. The first byte says what was agreed before; the
 * rest is the message.
 */
#include "config.h"

#include <linux/fuse.h>
#include <string.h>

#include "fs/mount/wire.h"
#include "tests/fuzz/key.h"

/* Bytes of a long setxattr that libfuse does not know. */
enum { EXTRA = sizeof(struct fuse_setxattr_in) - FUSE_COMPAT_SETXATTR_IN_SIZE };

static void fuzz_request(struct cmek_wire *wire, const uint8_t *data, size_t size)
{
	uint8_t *buf = malloc(size + (size == 0));
	struct fuse_in_header before, after;
	uint32_t agreed = wire->agreed;
	size_t n;

	FUZZ_CHECK(buf != NULL);
	if (size > 0)
		memcpy(buf, data, size);
	n = cmek_wire_received(wire, buf, size);
	if (size < sizeof(before)) {
		FUZZ_CHECK(n == size && !cmek_wire_flags().kill_suidgid && !cmek_wire_flags().kill_sgid);
		free(buf);
		return;
	}
	memcpy(&before, data, sizeof(before));
	memcpy(&after, buf, sizeof(after));
	if (n != size) {
		FUZZ_CHECK(before.opcode == FUSE_SETXATTR && (agreed & FUSE_SETXATTR_EXT) && n + EXTRA == size);
		FUZZ_CHECK(after.len == before.len - EXTRA && after.unique == before.unique);
		/* name and value are where they were, as far as the beginning of the body goes */
		FUZZ_CHECK(memcmp(buf + sizeof(after) + FUSE_COMPAT_SETXATTR_IN_SIZE,
				  data + sizeof(before) + sizeof(struct fuse_setxattr_in),
				  size - sizeof(before) - sizeof(struct fuse_setxattr_in)) == 0);
	} else {
		FUZZ_CHECK(size == 0 || memcmp(buf, data, size) == 0);
	}
	FUZZ_CHECK(before.opcode == FUSE_INIT || wire->agreed == agreed);
	FUZZ_CHECK((wire->agreed & ~(uint32_t)(FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT)) == 0);
	free(buf);
}

static void fuzz_answer(const struct cmek_wire *wire, const uint8_t *data, size_t size)
{
	size_t head = size < sizeof(struct fuse_out_header) ? size : sizeof(struct fuse_out_header);
	char *first = fuzz_text(data, head), *second = fuzz_text(data + head, size - head);
	struct iovec iov[2] = { { first, head }, { second, size - head } };

	cmek_wire_answering(wire, iov, size > head ? 2 : 1);
	FUZZ_CHECK(memcmp(first, data, head) == 0);
	if (wire->agreed == 0)
		FUZZ_CHECK(memcmp(second, data + head, size - head) == 0);
	free(second);
	free(first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cmek_wire wire = { .init_unique = 2 };

	if (size < 1)
		return 0;
	wire.agreed = (data[0] & 1 ? FUSE_HANDLE_KILLPRIV_V2 : 0u) | (data[0] & 2 ? FUSE_SETXATTR_EXT : 0u);
	if (data[0] & 4)
		fuzz_answer(&wire, data + 1, size - 1);
	else
		fuzz_request(&wire, data + 1, size - 1);
	return 0;
}
