/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_MESSAGE_H
#define CMEK_MOUNT_MESSAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "fs/volume/volhdr.h"

/*
 * What the processes of a mount say to each other over their socket pairs (SOCK_SEQPACKET, so that a message arrives
 * whole), and what the one left behind in the foreground is told over a pipe. All ends are the same program on the same
 * machine, so a message is a plain struct; the receiver checks its length and type all the same.
 */
enum cmek_message_type {
	CMEK_MSG_UNLOCKED = 1, /* daemon: the store is locked, the keys are here, mount now */
	CMEK_MSG_CONTROL,      /* supervisor: the control socket, with its descriptor; before DEVICE, or never */
	CMEK_MSG_DEVICE,       /* supervisor: the connection, with its descriptor */
	CMEK_MSG_UP,           /* daemon: the kernel has been answered, the mount works */
	CMEK_MSG_FAILED,       /* daemon or supervisor: gave up; kind, err and text say why */
	CMEK_MSG_STOP,         /* supervisor: commit everything and leave */
	CMEK_MSG_UNMOUNT,      /* daemon: take the mount away; who has files open keeps it until they are closed */
	CMEK_MSG_PING,         /* supervisor: are requests being dealt with? */
	CMEK_MSG_PONG,         /* daemon: alive says it */
	CMEK_MSG_STATE,        /* daemon: error.text has what is to be known of the mount, "" = nothing out of the ordinary */
	CMEK_MSG_ROOM,         /* daemon: near_full has changed */
	CMEK_MSG_ENDING,       /* daemon: no more requests; what is left to be written is being written */
	CMEK_MSG_TYPES,
};

struct cmek_message {
	uint32_t type;
	int32_t pid;       /* the sender */
	int32_t read_only; /* UNLOCKED: the volume may only be mounted so */
	int32_t alive;     /* PONG */
	int32_t near_full; /* ROOM: the kernel shall keep few dirty pages of the mount */
	uint8_t volume[16]; /* UNLOCKED: its UUID */
	char label[CMEK_LABEL_MAX + 1]; /* UNLOCKED: its label */
	struct cmek_error error;
};

/* A connected pair, both ends close-on-exec. -errno. */
int cmek_message_pair(int ret_ends[2]);

/* Sends a message, with a descriptor when pass_fd >= 0. 0 or -errno (-EPIPE when nobody is there; no SIGPIPE). */
int cmek_message_send(int sock, const struct cmek_message *msg, int pass_fd);
/* A message of this type about err (NULL: about nothing). */
int cmek_message_tell(int sock, enum cmek_message_type type, const struct cmek_error *err);

/*
 * Waits for one message. ret_fd (may be NULL) gets a passed descriptor, close-on-exec, or -1. 0, -EPIPE at the end of
 * the connection, -EBADMSG for what is no message, or another -errno.
 */
int cmek_message_receive(int sock, struct cmek_message *ret_msg, int *ret_fd);

#endif
