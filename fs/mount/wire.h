/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_WIRE_H
#define CMEK_MOUNT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * What Linux says over a FUSE connection and libfuse 3.14 does not pass on: the features agreed at INIT that it does not
 * know, and the flags of requests that come with them. Messages pass through here on their way to and from the
 * kernel. With a libfuse that knows these features itself nothing is agreed here, and the flags are still read.
 *
 * FUSE_HANDLE_KILLPRIV_V2: without it the kernel asks for security.capability at every write. With it we take suid, sgid
 * and capabilities away where the kernel would, see cmek_ops_kill_privs().
 * FUSE_SETXATTR_EXT: who sets an access ACL and may not keep sgid says so.
 */
struct cmek_wire {
	uint64_t init_unique; /* of the INIT request */
	uint32_t agreed;      /* of FUSE_HANDLE_KILLPRIV_V2 and FUSE_SETXATTR_EXT, what we add to the answer */
};

/* The kernel lets us take privileges away. From INIT on. */
bool cmek_wire_kills_privs(const struct cmek_wire *wire);

/* What the request that the calling thread has read last says. */
struct cmek_wire_flags {
	bool kill_suidgid; /* write, open with O_TRUNC, create, setattr of the size: the caller has no CAP_FSETID */
	bool kill_sgid;    /* setxattr of an access ACL: the caller is not in the file's group */
};
struct cmek_wire_flags cmek_wire_flags(void);

/*
 * A request of n bytes was read into buf: notes its flags for the calling thread and makes it what libfuse expects. The
 * length it has then. What is too short for its kind is left as it is: libfuse refuses it.
 */
size_t cmek_wire_received(struct cmek_wire *wire, void *buf, size_t n);
/* An answer is about to be written: changed in place if it is the one to INIT. */
void cmek_wire_answering(const struct cmek_wire *wire, const struct iovec *iov, int count);

#endif
