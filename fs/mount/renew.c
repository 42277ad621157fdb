/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A key that was rotated in its service can come back from an unwrapping with a blob of the newest version: here it goes into
 * the header. It must not know services, nor endanger a mount: what it writes was proven to hold the volume's key.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "fs/mount/daemon_impl.h"

/* The slot that the blob was made for, NULL: it is gone. */
static struct cmek_slot *find_slot(struct cmek_volhdr *hdr, unsigned id)
{
	size_t i;

	for (i = 0; i < hdr->n_slots; i++) {
		if (hdr->slots[i].id == id)
			return &hdr->slots[i];
	}
	return NULL;
}

/* Whether the header is still the one that was unlocked, and was not put there by somebody without its keys. */
static int check_header(struct daemon *d, const struct cmek_volhdr_store *header, struct cmek_error *err)
{
	const char *name = NULL;
	size_t len = 0;
	const uint8_t *bytes = cmek_volhdr_store_bytes(header, &len, &name);

	if (cmek_volhdr_store_header(header)->sequence != d->header_seen)
		return cmek_error_set(err, CMEK_E_BUSY, ESTALE, "another program has changed the volume's header");
	return cmek_volhdr_verify(bytes, len, cmek_keyring_header_mac(d->ring), err);
}

static int write_renewed(struct daemon *d, struct cmek_volhdr_store *header, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = NULL;
	struct cmek_slot *slot;
	int rc = check_header(d, header, err);

	if (rc == 0)
		rc = cmek_volhdr_store_copy(header, &hdr, err);
	if (rc != 0)
		return rc;
	slot = find_slot(hdr, d->renewed.id);
	rc = slot ? cmek_keyslot_take(slot, &d->renewed, err) :
		    cmek_error_set(err, CMEK_E_MISMATCH, ESTALE, "the slot is gone");
	if (rc == 0)
		rc = cmek_volhdr_store_update(header, &hdr, cmek_keyring_header_mac(d->ring), err);
	cmek_volhdr_free(hdr);
	return rc;
}

static void tell(const struct daemon *d, const struct cmek_error *failure)
{
	struct cmek_mount_event event;

	cmek_event_init(d, CMEK_EVENT_SLOT_REWRAP, &event);
	event.slot = (int32_t)d->renewed.id;
	(void)snprintf(event.key, sizeof(event.key), "%s", d->renewed.resolved);
	(void)snprintf(event.version, sizeof(event.version), "%s", d->renewed.version);
	if (failure)
		event.failure = failure->kind;
	cmek_auditor_tell(d->audit, &event);
}

void cmek_daemon_renew(struct daemon *d, int store_fd)
{
	struct cmek_volhdr_store *header = NULL;
	struct cmek_error err = CMEK_ERROR_INIT;
	int rc;

	if (!d->renewed.wrapped || d->read_only)
		goto out;
	(void)pthread_mutex_lock(&d->header_lock);
	/* A mount waits for nobody here: who is changing the header may be asking a key service. */
	rc = cmek_volhdr_store_open(store_fd, CMEK_STORE_CHANGE_NOW, NULL, &header, &err);
	if (rc == 0)
		rc = write_renewed(d, header, &err);
	if (rc == 0) {
		d->header_seen = cmek_volhdr_store_header(header)->sequence;
		(void)cmek_volhdr_store_reload(d->header, NULL); /* for the status alone */
	}
	cmek_volhdr_store_close(header);
	(void)pthread_mutex_unlock(&d->header_lock);
	tell(d, rc == 0 ? NULL : &err);
	if (rc == 0)
		cmek_log(CMEK_LOG_NOTICE, "key slot %u is now wrapped under version %s of its key", d->renewed.id,
			 d->renewed.version);
	else
		cmek_log(CMEK_LOG_WARNING, "key slot %u could not be wrapped under version %s of its key, it opens the volume as "
			 "before: %s", d->renewed.id, d->renewed.version, err.text);
out:
	cmek_slot_done(&d->renewed);
	memset(&d->renewed, 0, sizeof(d->renewed));
}
