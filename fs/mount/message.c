/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Messages between the processes of a mount. It must not know what any of them does with a message.
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/mount/message.h"

int cmek_message_pair(int ret_ends[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_ends) == 0 ? 0 : -errno;
}

int cmek_message_send(int sock, const struct cmek_message *msg, int pass_fd)
{
	struct iovec iov = { (void *)msg, sizeof(*msg) };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;
	ssize_t n;

	if (pass_fd >= 0) {
		memset(&control, 0, sizeof(control));
		hdr.msg_control = control.bytes;
		hdr.msg_controllen = sizeof(control.bytes);
		c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &pass_fd, sizeof(int));
	}
	do {
		n = sendmsg(sock, &hdr, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	return n == (ssize_t)sizeof(*msg) ? 0 : -EIO;
}

int cmek_message_tell(int sock, enum cmek_message_type type, const struct cmek_error *err)
{
	struct cmek_message msg;

	memset(&msg, 0, sizeof(msg));
	msg.type = type;
	msg.pid = getpid();
	if (err)
		msg.error = *err;
	return cmek_message_send(sock, &msg, -1);
}

int cmek_message_receive(int sock, struct cmek_message *ret_msg, int *ret_fd)
{
	struct cmek_message msg;
	struct iovec iov = { &msg, sizeof(msg) };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;
	int fd = -1;
	ssize_t n;

	hdr.msg_control = control.bytes;
	hdr.msg_controllen = sizeof(control.bytes);
	do {
		n = recvmsg(sock, &hdr, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	for (c = CMSG_FIRSTHDR(&hdr); c; c = CMSG_NXTHDR(&hdr, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
			memcpy(&fd, CMSG_DATA(c), sizeof(int));
	}
	if (n != (ssize_t)sizeof(msg) || msg.type < CMEK_MSG_UNLOCKED || msg.type >= CMEK_MSG_TYPES ||
	    msg.error.kind >= CMEK_E_KIND_MAX) {
		if (fd >= 0)
			close(fd);
		return n == 0 ? -EPIPE : -EBADMSG;
	}
	msg.error.text[sizeof(msg.error.text) - 1] = '\0';
	msg.label[sizeof(msg.label) - 1] = '\0';
	*ret_msg = msg;
	if (ret_fd)
		*ret_fd = fd;
	else if (fd >= 0)
		close(fd);
	return 0;
}
