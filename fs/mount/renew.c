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

/* Whether the header is one of the volume's, put there by somebody with its keys. */
static int check_header(struct daemon *d, const struct cmek_volhdr_store *header, struct cmek_error *err)
{
	const char *name = NULL;
	size_t len = 0;
	const uint8_t *bytes = cmek_volhdr_store_bytes(header, &len, &name);

	if (!cmek_keyring_header_mac(d->ring))
		return cmek_error_set(err, CMEK_E_BUSY, EKEYREVOKED, "the volume is locked");
	if (cmek_volhdr_store_header(header)->sequence < d->header_seen)
		return cmek_error_set(err, CMEK_E_MISMATCH, ESTALE, "the volume's header was put back to an older one");
	return cmek_volhdr_verify(bytes, len, cmek_keyring_header_mac(d->ring), err);
}

/* The slot has still what the renewed one was made from: that is in a header which was checked, so it has the volume's key. */
static int check_slot(const struct cmek_slot *slot, const struct cmek_slot *from, struct cmek_error *err)
{
	if (!slot)
		return cmek_error_set(err, CMEK_E_MISMATCH, ESTALE, "the slot is gone");
	if (slot->wrapped_len != from->wrapped_len || memcmp(slot->wrapped, from->wrapped, from->wrapped_len) != 0)
		return cmek_error_set(err, CMEK_E_BUSY, ESTALE, "another program has changed the slot");
	return 0;
}

/* renewed: its blob is taken over. from: what it was made from; NULL: the header must be the one that was unlocked. */
static int write_renewed(struct daemon *d, struct cmek_volhdr_store *header, struct cmek_slot *renewed,
			 const struct cmek_slot *from, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = NULL;
	struct cmek_slot *slot;
	int rc = check_header(d, header, err);

	if (rc == 0 && !from && cmek_volhdr_store_header(header)->sequence != d->header_seen)
		rc = cmek_error_set(err, CMEK_E_BUSY, ESTALE, "another program has changed the volume's header");
	if (rc == 0)
		rc = cmek_volhdr_store_copy(header, &hdr, err);
	if (rc != 0)
		return rc;
	slot = find_slot(hdr, renewed->id);
	rc = check_slot(slot, from ? from : slot, err);
	if (rc == 0)
		rc = cmek_keyslot_take(slot, renewed, err);
	if (rc == 0)
		rc = cmek_volhdr_store_update(header, &hdr, cmek_keyring_header_mac(d->ring), err);
	cmek_volhdr_free(hdr);
	return rc;
}

static void tell(const struct daemon *d, const struct cmek_slot *renewed, const struct cmek_error *failure)
{
	struct cmek_mount_event event;

	cmek_event_init(d, CMEK_EVENT_SLOT_REWRAP, &event);
	event.slot = (int32_t)renewed->id;
	(void)snprintf(event.key, sizeof(event.key), "%s", renewed->resolved);
	(void)snprintf(event.version, sizeof(event.version), "%s", renewed->version);
	if (failure)
		event.failure = failure->kind;
	cmek_auditor_tell(d->audit, &event);
}

int cmek_daemon_put_slot(struct daemon *d, int store_fd, struct cmek_slot *renewed, const struct cmek_slot *from,
			 struct cmek_error *err)
{
	struct cmek_volhdr_store *header = NULL;
	int rc;

	(void)pthread_mutex_lock(&d->header_lock);
	/* A mount waits for nobody here: who is changing the header may be asking a key service. */
	rc = cmek_volhdr_store_open(store_fd, CMEK_STORE_CHANGE_NOW, NULL, &header, err);
	if (rc == 0)
		rc = write_renewed(d, header, renewed, from, err);
	if (rc == 0) {
		d->header_seen = cmek_volhdr_store_header(header)->sequence;
		(void)cmek_volhdr_store_reload(d->header, NULL); /* for the status alone */
	}
	cmek_volhdr_store_close(header);
	(void)pthread_mutex_unlock(&d->header_lock);
	tell(d, renewed, rc == 0 ? NULL : err);
	if (rc == 0)
		cmek_log(CMEK_LOG_NOTICE, "key slot %u is now wrapped under version %s of its key", renewed->id,
			 renewed->version);
	return rc;
}

void cmek_daemon_renew(struct daemon *d, int store_fd)
{
	struct cmek_error err = CMEK_ERROR_INIT;

	if (d->renewed.wrapped && !d->read_only && cmek_daemon_put_slot(d, store_fd, &d->renewed, NULL, &err) != 0)
		cmek_log(CMEK_LOG_WARNING, "key slot %u could not be wrapped under version %s of its key, it opens the volume as "
			 "before: %s", d->renewed.id, d->renewed.version, err.text);
	cmek_slot_done(&d->renewed);
	memset(&d->renewed, 0, sizeof(d->renewed));
}
