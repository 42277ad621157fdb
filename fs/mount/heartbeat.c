/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Signs of life and words of state for a service manager. It must not know how the daemon finds out that it lives, nor
 * what becomes of a service that gives no sign.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"
#include "fs/mount/heartbeat.h"
#include "fs/mount/message.h"

/* How often the daemon is asked; a watchdog may want it more often. */
#define EVERY_MS 10000
#define SIGNS_PER_WATCHDOG 3

void cmek_heartbeat_init(struct cmek_heartbeat *heartbeat, const char *mountpoint)
{
	memset(heartbeat, 0, sizeof(*heartbeat));
	heartbeat->mountpoint = mountpoint;
	heartbeat->wanted = cmek_notify_wanted();
	heartbeat->watchdog_ms = cmek_notify_watchdog_ms();
	heartbeat->every_ms = EVERY_MS;
	if (heartbeat->watchdog_ms > 0 && heartbeat->watchdog_ms / SIGNS_PER_WATCHDOG < EVERY_MS)
		heartbeat->every_ms = heartbeat->watchdog_ms / SIGNS_PER_WATCHDOG + 1;
}

static void say_state(const struct cmek_heartbeat *heartbeat, const char *before)
{
	char text[480], *c;

	(void)snprintf(text, sizeof(text), "mounted on %.200s%s%s", heartbeat->mountpoint, heartbeat->state[0] ? ": " : "",
		       heartbeat->state);
	/* A mount point may have any name, and each line is an order to who reads it. */
	for (c = text; *c; c++) {
		if ((unsigned char)*c < ' ')
			*c = '?';
	}
	cmek_notify("%sSTATUS=%s", before, text);
}

void cmek_heartbeat_start(struct cmek_heartbeat *heartbeat, bool may_speak)
{
	heartbeat->beating = heartbeat->wanted;
	heartbeat->due_ms = cmek_now_ms() + heartbeat->every_ms;
	if (heartbeat->beating && may_speak)
		say_state(heartbeat, "READY=1\n");
}

int cmek_heartbeat_wait_ms(const struct cmek_heartbeat *heartbeat)
{
	uint64_t now = cmek_now_ms();

	if (!heartbeat->beating)
		return -1;
	return heartbeat->due_ms > now ? (int)(heartbeat->due_ms - now) : 0;
}

void cmek_heartbeat_ping(struct cmek_heartbeat *heartbeat, int sock)
{
	if (sock < 0 || cmek_heartbeat_wait_ms(heartbeat) != 0)
		return;
	heartbeat->due_ms = cmek_now_ms() + heartbeat->every_ms;
	/* One that hangs takes no questions: more than one would fill the socket, and then we would hang, too. */
	if (!heartbeat->open && cmek_message_tell(sock, CMEK_MSG_PING, NULL) == 0)
		heartbeat->open = true;
}

void cmek_heartbeat_pong(struct cmek_heartbeat *heartbeat, bool alive)
{
	heartbeat->open = false;
	if (!heartbeat->beating)
		return;
	if (!alive && !heartbeat->stuck)
		cmek_log(CMEK_LOG_WARNING, "%s: all threads are busy with requests that don't come to an end: does the store "
			 "answer?", heartbeat->mountpoint);
	else if (alive && heartbeat->stuck)
		cmek_log(CMEK_LOG_NOTICE, "%s: requests come to an end again", heartbeat->mountpoint);
	heartbeat->stuck = !alive;
	if (alive && heartbeat->watchdog_ms > 0)
		cmek_notify("WATCHDOG=1");
}

void cmek_heartbeat_state(struct cmek_heartbeat *heartbeat, const char *state)
{
	(void)snprintf(heartbeat->state, sizeof(heartbeat->state), "%s", state);
	if (heartbeat->beating)
		say_state(heartbeat, "");
}

void cmek_heartbeat_ending(struct cmek_heartbeat *heartbeat)
{
	if (heartbeat->beating)
		cmek_notify("STOPPING=1\nSTATUS=writing everything back");
	heartbeat->beating = false;
}
