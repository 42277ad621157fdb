/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_HEARTBEAT_H
#define CMEK_MOUNT_HEARTBEAT_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What the supervisor tells a service manager while the mount works: its state in words, and, where a watchdog wants it, a
 * sign of life, which is never its own: each answers a question to the storage daemon, and says that requests are dealt
 * with. Without a service manager nothing is asked. One thread.
 */
struct cmek_heartbeat {
	const char *mountpoint;  /* borrowed */
	bool wanted;             /* somebody is to be told */
	bool beating;            /* between start and ending */
	uint64_t watchdog_ms;    /* a sign of life is wanted so often, 0 = none is */
	uint64_t every_ms, due_ms; /* how often the daemon is asked, and when next; cmek_now_ms() */
	bool open;               /* the last question was not answered yet */
	bool stuck;              /* the last answer was no */
	char state[256];         /* the daemon's, "" = nothing out of the ordinary */
};

/* Before any fork, since it looks who the process is. */
void cmek_heartbeat_init(struct cmek_heartbeat *heartbeat, const char *mountpoint);
/* The mount works: READY, if this process may speak; else another one has to tell that this one stands for the service. */
void cmek_heartbeat_start(struct cmek_heartbeat *heartbeat, bool may_speak);
/* How long until cmek_heartbeat_ping() has something to do, -1 = it won't. */
int cmek_heartbeat_wait_ms(const struct cmek_heartbeat *heartbeat);
/* Asks the daemon behind this socket (CMEK_MSG_PING), when it is time and the last question was answered. Waits for nobody. */
void cmek_heartbeat_ping(struct cmek_heartbeat *heartbeat, int sock);
/* Its answer. */
void cmek_heartbeat_pong(struct cmek_heartbeat *heartbeat, bool alive);
/* Its state has changed. */
void cmek_heartbeat_state(struct cmek_heartbeat *heartbeat, const char *state);
/* No more requests are served: what comes takes as long as it takes. */
void cmek_heartbeat_ending(struct cmek_heartbeat *heartbeat);

#endif
