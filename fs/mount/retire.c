/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The end of data keys in the header of a mounted volume: retired, then destroyed. It must not know how it is known that
 * nothing is under them, nor when that is to be done.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "fs/mount/daemon_impl.h"
#include "fs/volume/shred.h"

/* A header of the greatest length has room for fewer: each has its wrapped form, some 200 bytes. */
#define DEKS_MAX 8192

/* What is to become of the header's data keys, and which of them it was done to. */
struct change {
	const uint16_t *ids; /* retire these; NULL: destroy */
	size_t n;
	bool all;            /* destroy: those whose grace is not over, too */
	int64_t now, until;  /* until: the end of the grace */
	const char *reason;
	uint16_t *done;      /* room for all that the header has */
	size_t n_done;
};

static bool is_asked_for(const struct change *change, const struct cmek_dek_entry *dek)
{
	size_t i;

	for (i = 0; change->ids && i < change->n; i++)
		if (change->ids[i] == dek->id)
			return true;
	return !change->ids && (change->all || (dek->destroy_after > 0 && dek->destroy_after <= change->now));
}

static void change_deks(struct cmek_volhdr *hdr, struct change *change)
{
	struct cmek_dek_entry *dek;
	size_t i;

	for (i = 0; i < hdr->n_deks; i++) {
		dek = &hdr->deks[i];
		if (is_asked_for(change, dek) && (change->ids ? cmek_volhdr_retire_dek(dek, change->now, change->until) :
								cmek_volhdr_destroy_dek(dek, change->now)))
			change->done[change->n_done++] = dek->id;
	}
}

/* A header whose MAC is under other keys has been rotated: the mount is told in a moment. */
static int check_header(struct daemon *d, const struct cmek_volhdr_store *header, struct cmek_error *err)
{
	const char *name = NULL;
	size_t len = 0;
	const uint8_t *bytes = cmek_volhdr_store_bytes(header, &len, &name);
	const struct cmek_volhdr *hdr = cmek_volhdr_store_header(header);

	if (memcmp(hdr->uuid, d->volume, sizeof(d->volume)) != 0 || hdr->sequence < d->header_seen)
		return cmek_error_set(err, CMEK_E_MISMATCH, ESTALE, "another header is there than the mount's");
	if (cmek_volhdr_verify(bytes, len, cmek_keyring_header_mac(d->ring), NULL) != 0)
		return cmek_error_set(err, CMEK_E_BUSY, EBUSY, "the header has keys that the mount has not taken over yet");
	return 0;
}

/* One copy at least has the new header: it is the one that counts. */
static void take_header(struct daemon *d, const struct cmek_volhdr_store *header, const struct change *change)
{
	size_t i;

	d->header_seen = cmek_volhdr_store_header(header)->sequence;
	(void)cmek_volhdr_store_reload(d->header, NULL); /* for the status alone */
	for (i = 0; i < change->n_done; i++)
		cmek_keyring_retire_dek(d->ring, change->done[i]);
}

static int write_header(struct daemon *d, int store_fd, struct cmek_volhdr_store *header, struct change *change,
			struct cmek_error *err)
{
	struct cmek_shred_old old = { .fds = { -1, -1 } };
	struct cmek_volhdr *hdr = NULL;
	int rc, over = 0;

	rc = cmek_volhdr_store_copy(header, &hdr, err);
	if (rc != 0)
		return rc;
	change_deks(hdr, change);
	if (change->n_done > 0 && !change->ids)
		rc = cmek_shred_old_open(store_fd, &old, err); /* they hold the wrapped key, wherever the store keeps them */
	if (rc == 0 && change->n_done > 0) {
		rc = cmek_volhdr_store_update(header, &hdr, cmek_keyring_header_mac(d->ring), err);
		if (!hdr)
			take_header(d, header, change);
		over = cmek_shred_old_finish(&old, rc == 0, rc == 0 ? err : NULL);
	}
	cmek_volhdr_free(hdr);
	return rc != 0 ? rc : over;
}

static void tell(const struct daemon *d, const struct change *change, const struct cmek_error *failure)
{
	struct cmek_mount_event event;
	size_t i;

	for (i = 0; i < change->n_done; i++) {
		cmek_event_init(d, change->ids ? CMEK_EVENT_DEK_RETIRE : CMEK_EVENT_DEK_DESTROY, &event);
		event.dek = change->done[i];
		(void)snprintf(event.reason, sizeof(event.reason), "%s", change->reason);
		if (cmek_error_is_set(failure))
			event.failure = failure->kind;
		cmek_auditor_tell(d->audit, &event);
	}
}

static void log_done(const struct change *change)
{
	char until[CMEK_TIME_TEXT];
	size_t i;

	cmek_time_encode(change->until, until);
	for (i = 0; i < change->n_done; i++) {
		if (change->ids)
			cmek_log(CMEK_LOG_NOTICE, "data key %u is retired, it will be destroyed after %s: %s",
				 (unsigned)change->done[i], until, change->reason);
		else
			cmek_log(CMEK_LOG_NOTICE, "data key %u is destroyed", (unsigned)change->done[i]);
	}
}

/* header: opened, with its lock; d->header_lock is held. */
static int change_header(struct daemon *d, int store_fd, struct cmek_volhdr_store *header, struct change *change,
			 int64_t *ret_next, struct cmek_error *err)
{
	uint16_t done[DEKS_MAX];
	struct cmek_error own = CMEK_ERROR_INIT;
	int rc = check_header(d, header, err);

	if (rc != 0)
		return rc;
	if (cmek_volhdr_store_header(header)->n_deks > sizeof(done) / sizeof(done[0]))
		return cmek_error_set(err, CMEK_E_LIMIT, E2BIG, "the header has too many data keys");
	change->done = done;
	rc = write_header(d, store_fd, header, change, &own);
	tell(d, change, &own);
	if (rc == 0)
		log_done(change);
	else
		(void)cmek_error_set(err, own.kind, own.err, "%s", own.text);
	*ret_next = cmek_volhdr_destroy_after(cmek_volhdr_store_header(header));
	change->done = NULL;
	return rc;
}

static int run(struct daemon *d, struct change *change, int64_t *ret_next, struct cmek_error *err)
{
	struct cmek_volhdr_store *header = NULL;
	int fd = cmek_tree_open_store(d->tree, CMEK_NODE_ROOT, O_RDONLY | O_DIRECTORY), rc;

	if (fd < 0)
		return cmek_error_sys(err, -fd, "%s", d->opts->store);
	change->now = (int64_t)time(NULL);
	(void)pthread_mutex_lock(&d->header_lock);
	/* Users wait for this lock, too: who is changing the header may be asking a key service. */
	rc = cmek_volhdr_store_open(fd, CMEK_STORE_CHANGE_NOW, NULL, &header, err);
	if (rc == 0)
		rc = change_header(d, fd, header, change, ret_next, err);
	cmek_volhdr_store_close(header);
	(void)pthread_mutex_unlock(&d->header_lock);
	(void)close(fd); /* a directory */
	return rc;
}

int cmek_daemon_retire_deks(void *arg, const uint16_t *ids, size_t n, uint64_t grace_s, const char *proof,
			    struct cmek_error *err)
{
	struct change change = { .ids = ids, .n = n, .reason = proof, .until = (int64_t)time(NULL) + (int64_t)grace_s };
	struct daemon *d = arg;
	int64_t next = 0;
	int rc = run(d, &change, &next, err);

	/* What was derived from it before. */
	if (change.n_done > 0)
		cmek_content_forget_keys(d->content);
	return rc;
}

int cmek_daemon_destroy_deks(void *arg, bool all, int64_t *ret_next, struct cmek_error *err)
{
	struct change change = { .all = all, .reason = all ? "by hand" : "its grace is over" };
	struct daemon *d = arg;
	const struct cmek_volhdr *hdr;
	int64_t due = 0;
	bool any = false;
	size_t i;

	/* As a rule there is nothing to do, and then nobody's lock is taken. */
	(void)pthread_mutex_lock(&d->header_lock);
	hdr = cmek_volhdr_store_header(d->header);
	due = cmek_volhdr_destroy_after(hdr);
	for (i = 0; i < hdr->n_deks; i++)
		any |= hdr->deks[i].state == CMEK_DEK_RETIRED;
	(void)pthread_mutex_unlock(&d->header_lock);
	*ret_next = due;
	if (!(all && any) && (due == 0 || due > (int64_t)time(NULL)))
		return 0;
	return run(d, &change, ret_next, err);
}
