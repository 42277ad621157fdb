/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the storage daemon tells its supervisor of itself: that it deals with requests, when it is asked, and the state it is
 * in, when that changes. It must not know who hears it from the supervisor.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/mount/daemon_impl.h"
#include "fs/mount/message.h"

/* As much as the supervisor keeps. */
#define STATE_MAX 256
/* One of several clauses: a lock's reason is cut here. */
#define CLAUSE_MAX 224

/* Adds a clause behind those that are there. */
static void add(char state[STATE_MAX], const char *clause)
{
	size_t len = strlen(state);

	if (*clause)
		(void)snprintf(state + len, STATE_MAX - len, "%s%s", len > 0 ? "; " : "", clause);
}

static void add_lock(struct daemon *d, char state[STATE_MAX])
{
	char clause[CLAUSE_MAX];

	(void)pthread_mutex_lock(&d->state_lock);
	if (d->lock_state != CMEK_UNLOCKED)
		(void)snprintf(clause, sizeof(clause), "%s: %.200s", d->lock_state == CMEK_DRAINING ? "locking" : "locked",
			       d->lock_reason);
	else if (*d->refuses_writes)
		(void)snprintf(clause, sizeof(clause), "read-only: %.200s", d->refuses_writes);
	else
		(void)snprintf(clause, sizeof(clause), "%s", d->read_only ? "read-only" : "");
	(void)pthread_mutex_unlock(&d->state_lock);
	add(state, clause);
}

static void add_reencrypt(struct daemon *d, char state[STATE_MAX])
{
	char clause[64];
	int percent = cmek_reencrypt_percent(d->reencrypt);

	if (percent < 0)
		return;
	(void)snprintf(clause, sizeof(clause), "re-encrypting, %d %%", percent);
	add(state, clause);
}

void cmek_daemon_tell_state(struct daemon *d)
{
	struct cmek_message msg = { .type = CMEK_MSG_STATE, .pid = getpid() };
	char state[STATE_MAX] = "", clause[CLAUSE_MAX];
	struct cmek_room_status room;

	(void)pthread_mutex_lock(&d->pulse_lock);
	add_lock(d, state);
	if (d->content && cmek_content_failed(d->content) < 0)
		add(state, "read-only: the store or the journal has failed");
	cmek_room_status(d->room, &room);
	if (room.level >= CMEK_ROOM_FULL)
		add(state, "the store is full");
	cmek_watcher_problem(d->watcher, clause, sizeof(clause));
	add(state, clause);
	add_reencrypt(d, state);
	if (strcmp(state, d->told_state) != 0) {
		memcpy(d->told_state, state, sizeof(state));
		memcpy(msg.error.text, state, sizeof(state));
		(void)cmek_message_send(d->supervisor, &msg, -1); /* if it is gone, the listener ends the mount */
	}
	(void)pthread_mutex_unlock(&d->pulse_lock);
}

void cmek_daemon_tell_room(void *arg, enum cmek_room_level level)
{
	bool near_full = level != CMEK_ROOM_PLENTY;
	struct cmek_message msg = { .type = CMEK_MSG_ROOM, .pid = getpid(), .near_full = near_full };
	static struct cmek_log_limit limit;
	struct daemon *d = arg;

	if (level >= CMEK_ROOM_FULL && !d->was_full)
		cmek_log_limited(&limit, CMEK_LOG_WARNING, "the store is full: what is left is kept for data that was written already; "
							   "files that grow, and then new ones, too, are refused (ENOSPC)");
	if (level < CMEK_ROOM_FULL && d->was_full)
		cmek_log_limited(&limit, CMEK_LOG_NOTICE, "the store has room again");
	d->was_full = level >= CMEK_ROOM_FULL;
	if (near_full != d->was_near)
		(void)cmek_message_send(d->supervisor, &msg, -1); /* if it is gone, the listener ends the mount */
	d->was_near = near_full;
}

void cmek_daemon_tell_reserve(void *arg, bool used)
{
	static struct cmek_log_limit limit;

	(void)arg;
	if (used)
		cmek_log_limited(&limit, CMEK_LOG_WARNING, "the store has no room for data that was written already: the reserve is "
							   "being used, make room soon");
	else
		cmek_log_limited(&limit, CMEK_LOG_NOTICE, "the reserve has been set aside again");
}

void cmek_daemon_answer_ping(struct daemon *d)
{
	struct cmek_message msg = { .type = CMEK_MSG_PONG, .pid = getpid(), .alive = cmek_session_alive(d->session) };

	cmek_daemon_tell_state(d);
	(void)cmek_message_send(d->supervisor, &msg, -1); /* the same */
}
