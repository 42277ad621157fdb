/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The storage daemon's events for the audit log. Failed authentications come in any number from threads that have users
 * waiting, so these only leave a note here; a thread finds out what stored file it was, and tells so many a minute. It must
 * not know how the log is written.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/mount/daemon_impl.h"

#define PER_MINUTE 10
#define MINUTE_S 60
#define DAY_S 86400

static int64_t now_s(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts); /* can't fail */
	return ts.tv_sec;
}

void cmek_event_init(const struct daemon *d, enum cmek_mount_event_type type, struct cmek_mount_event *ret_event)
{
	memset(ret_event, 0, sizeof(*ret_event));
	ret_event->type = type;
	ret_event->slot = -1;
	ret_event->offset = UINT64_MAX;
	memcpy(ret_event->volume, d->volume, sizeof(ret_event->volume));
	memcpy(ret_event->label, d->label, sizeof(ret_event->label));
}

void cmek_event_tell(const struct daemon *d, enum cmek_mount_event_type type, const char *reason,
		     const struct cmek_error *failure)
{
	struct cmek_mount_event event;

	cmek_event_init(d, type, &event);
	(void)snprintf(event.reason, sizeof(event.reason), "%s", reason);
	if (cmek_error_is_set(failure))
		event.failure = failure->kind;
	cmek_auditor_tell(d->audit, &event);
}

/* ---- questions to key services ---- */

static void tell_call(const struct daemon *d, const struct cmek_agent_call *call, uint64_t left_out)
{
	struct cmek_mount_event event;

	cmek_event_init(d, CMEK_EVENT_KMS_CALL, &event);
	event.slot = (int32_t)call->slot->id;
	event.call = *call->note;
	event.failure = call->note->failure;
	event.left_out = left_out;
	(void)snprintf(event.key, sizeof(event.key), "%s", call->slot->resolved);
	(void)snprintf(event.version, sizeof(event.version), "%s",
		       *call->note->version ? call->note->version : call->slot->version);
	cmek_auditor_tell(d->audit, &event);
}

void cmek_event_kms_call(void *arg, const struct cmek_agent_call *call)
{
	tell_call(arg, call, 0);
}

void cmek_event_watch_call(void *arg, const struct cmek_agent_call *call)
{
	enum cmek_kind outcome = (enum cmek_kind)call->note->failure;
	struct daemon *d = arg;
	struct watch_call *last;
	int64_t now = now_s();

	if (call->slot->id >= CMEK_SLOTS_MAX)
		return; /* a header has none such */
	last = &d->watch_calls[call->slot->id][call->call];
	if (last->told_s != 0 && last->outcome == outcome && now - last->told_s < DAY_S) {
		last->left_out++;
		return;
	}
	tell_call(d, call, last->left_out);
	last->outcome = outcome;
	last->told_s = now > 0 ? now : 1;
	last->left_out = 0;
}

/* ---- what fails authentication ---- */

void cmek_event_unauthentic(struct daemon *d, uint64_t node, uint64_t offset, const char *what)
{
	struct event_notes *notes = &d->notes;
	struct event_note *note;

	(void)pthread_mutex_lock(&notes->lock);
	if (now_s() - notes->minute_s >= MINUTE_S) {
		notes->minute_s = now_s();
		notes->n_minute = 0;
	}
	if (notes->n < EVENT_NOTES_MAX && notes->n_minute < PER_MINUTE) {
		note = notes->notes + notes->n++;
		note->node = node;
		note->offset = offset;
		note->what = what;
		notes->n_minute++;
		(void)pthread_cond_signal(&notes->cond);
	} else {
		notes->left_out++;
	}
	(void)pthread_mutex_unlock(&notes->lock);
}

/* The part of a path behind the store's; one that is too long is told by its end. */
static void put_stored(const struct daemon *d, const char *path, char *to, size_t size)
{
	size_t len = strlen(d->store_path);

	if (len == 0 || strncmp(path, d->store_path, len) != 0 || path[len] != '/')
		return; /* the kernel has forgotten its name, or calls it something else */
	path += len + 1;
	if (strlen(path) >= size)
		path = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	if (strlen(path) < size)
		memcpy(to, path, strlen(path) + 1);
}

/* Which file of the store it is; left out where that can't be found out (it is gone). */
static void find_stored(const struct daemon *d, uint64_t node, struct cmek_mount_event *event)
{
	char link[64], path[PATH_MAX];
	struct stat st;
	ssize_t n;
	int fd;

	fd = cmek_tree_open_store(d->tree, node, O_RDONLY);
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0)
		event->inode = st.st_ino;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n > 0) {
		path[n] = '\0';
		put_stored(d, path, event->stored, sizeof(event->stored));
	}
	(void)close(fd); /* nothing was written to it */
}

static void tell_note(const struct daemon *d, const struct event_note *note, uint64_t left_out)
{
	struct cmek_mount_event event;

	cmek_event_init(d, CMEK_EVENT_UNAUTHENTIC, &event);
	event.failure = CMEK_E_TAMPERED;
	event.left_out = left_out;
	if (note) {
		event.offset = note->offset;
		(void)snprintf(event.reason, sizeof(event.reason), "%s", note->what);
		find_stored(d, note->node, &event);
	}
	cmek_auditor_tell(d->audit, &event);
}

/* Tells what there is, until it shall end; then also how many were left out at last. */
static void *notes_main(void *arg)
{
	struct daemon *d = arg;
	struct event_notes *notes = &d->notes;
	struct event_note some[EVENT_NOTES_MAX];
	uint64_t left_out;
	bool stopping;
	unsigned i, n;

	do {
		(void)pthread_mutex_lock(&notes->lock);
		while (notes->n == 0 && !notes->stopping)
			(void)pthread_cond_wait(&notes->cond, &notes->lock);
		stopping = notes->stopping;
		n = notes->n;
		memcpy(some, notes->notes, n * sizeof(some[0]));
		left_out = notes->left_out;
		notes->n = 0;
		notes->left_out = 0;
		(void)pthread_mutex_unlock(&notes->lock);
		for (i = 0; i < n; i++) {
			tell_note(d, some + i, left_out);
			left_out = 0;
		}
	} while (!stopping);
	if (left_out > 0)
		tell_note(d, NULL, left_out);
	return NULL;
}

int cmek_events_start(struct daemon *d, struct cmek_error *err)
{
	int rc;

	d->notes.minute_s = now_s();
	rc = pthread_create(&d->notes.thread, NULL, notes_main, d);
	if (rc != 0)
		return cmek_error_sys(err, rc, "starting a thread");
	d->notes.started = true;
	return 0;
}

void cmek_events_stop(struct daemon *d)
{
	if (!d->notes.started)
		return;
	(void)pthread_mutex_lock(&d->notes.lock);
	d->notes.stopping = true;
	(void)pthread_cond_signal(&d->notes.cond);
	(void)pthread_mutex_unlock(&d->notes.lock);
	(void)pthread_join(d->notes.thread, NULL);
	d->notes.started = false;
}
