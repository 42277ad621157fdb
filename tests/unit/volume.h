/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_UNIT_VOLUME_H
#define CMEK_TESTS_UNIT_VOLUME_H

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "fs/volume/keyring.h"
#include "fs/volume/volhdr.h"
#include "fs/volume/volhdr_store.h"
#include "tests/unit/unit.h"

/* A small volume header with keys, in a directory of its own; for tests of what stands on the codec. */

#define UNIT_AREA_LEN 4096
#define UNIT_COPY_LEN (CMEK_VOLHDR_HEAD_LEN + UNIT_AREA_LEN)

struct unit_volume {
	char *dir;
	int store_fd, meta_fd;
	struct cmek_secret *kek; /* another reference than the ring's */
	struct cmek_keyring *ring;
	const struct cmek_secret *mac_key; /* the ring's */
	struct cmek_volhdr *hdr;           /* as written by unit_volume_init() */
	char reports[8192];                /* lines told through unit_volume_report() */
};

static inline void unit_volume_line(void *arg, const char *text)
{
	struct unit_volume *v = arg;
	size_t used = strlen(v->reports);

	snprintf(v->reports + used, sizeof(v->reports) - used, "%s\n", text);
}

static inline struct cmek_report unit_volume_report(struct unit_volume *v)
{
	return (struct cmek_report){ unit_volume_line, v };
}

static inline void unit_volume_add_slot(struct cmek_volhdr *hdr, const char *resolved)
{
	struct cmek_slot *slot = cmek_volhdr_grow_slots(hdr);

	ck_assert_ptr_nonnull(slot);
	slot->id = (unsigned)hdr->n_slots - 1;
	slot->purpose = strdup("data");
	slot->provider = strdup("local");
	slot->key = strdup(resolved);
	slot->resolved = strdup(resolved);
	slot->version = strdup("1");
	slot->region = strdup("");
	slot->wrapped = (uint8_t *)strdup("blob");
	slot->wrapped_len = 4;
	slot->created = slot->rewrapped = 1700000000;
}

/* Keys and a header with n slots for "local:0", "local:1", ... */
static inline void unit_volume_init(struct unit_volume *v, unsigned n_slots)
{
	struct cmek_dek_entry *dek;
	struct cmek_secret *kek;
	char resolved[32];
	unsigned i;

	memset(v, 0, sizeof(*v));
	cmek_secret_allow_unlocked();
	v->dir = unit_tmpdir();
	v->store_fd = open(v->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(v->store_fd, 0);
	ck_assert_int_eq(cmek_volhdr_new(&v->hdr, NULL), 0);
	v->hdr->sequence = 1;
	cmek_random(v->hdr->uuid, 16);
	v->hdr->area_len = UNIT_AREA_LEN;
	strcpy(v->hdr->label, "unit");
	v->hdr->block_size = 4096;
	v->hdr->symlink_max = 4095;
	v->hdr->created = 1700000000;
	for (i = 0; i < n_slots; i++) {
		snprintf(resolved, sizeof(resolved), "local:%u", i);
		unit_volume_add_slot(v->hdr, resolved);
	}
	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_KEK, 32, &v->kek, NULL), 0);
	kek = cmek_secret_ref(v->kek);
	ck_assert_int_eq(cmek_keyring_new(v->hdr->uuid, &kek, &v->ring, NULL), 0);
	v->mac_key = cmek_keyring_header_mac(v->ring);
	dek = cmek_volhdr_grow_deks(v->hdr);
	dek->id = 1;
	dek->state = CMEK_DEK_ACTIVE;
	dek->created = 1700000000;
	v->hdr->dek_active = 1;
	v->hdr->dek_next = 2;
	ck_assert_int_eq(cmek_keyring_make_dek(v->ring, 1, 0, CMEK_DEK_ACTIVE, dek->wrapped, NULL), 0);
}

/* The header onto the disk, with all else that a store has. */
static inline void unit_volume_write(struct unit_volume *v)
{
	struct cmek_error err = CMEK_ERROR_INIT;

	ck_assert_int_eq(mkdirat(v->store_fd, ".cmekfs", 0700), 0);
	v->meta_fd = openat(v->store_fd, ".cmekfs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(v->meta_fd, 0);
	ck_assert_msg(cmek_volhdr_store_create(v->meta_fd, v->hdr, v->mac_key, &err) == 0, "%s", err.text);
	close(openat(v->meta_fd, "lock", O_RDWR | O_CREAT, 0600));
}

static inline void unit_volume_done(struct unit_volume *v)
{
	cmek_volhdr_free(v->hdr);
	cmek_keyring_free(v->ring);
	cmek_secret_free(v->kek);
	if (v->meta_fd > 0)
		close(v->meta_fd);
	close(v->store_fd);
	unit_rmtree(v->dir);
}

static inline const char *unit_copy_name(int i)
{
	return i ? "header.1" : "header.0";
}

/* The bytes of a copy on the disk. */
static inline void unit_copy_read(const struct unit_volume *v, int i, uint8_t bytes[UNIT_COPY_LEN])
{
	int fd = openat(v->meta_fd, unit_copy_name(i), O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, bytes, UNIT_COPY_LEN, 0), UNIT_COPY_LEN);
	close(fd);
}

static inline void unit_copy_write(const struct unit_volume *v, int i, const void *bytes, size_t len)
{
	int fd = openat(v->meta_fd, unit_copy_name(i), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

/* What somebody without the key can do: bytes with a right checksum. */
static inline void unit_copy_reseal(uint8_t bytes[UNIT_COPY_LEN])
{
	uint8_t mac[32];
	struct iovec all = { bytes, UNIT_COPY_LEN };

	memcpy(mac, bytes + 88, sizeof(mac));
	memset(bytes + 56, 0, 64);
	ck_assert_int_eq(cmek_sha256(&all, 1, bytes + 56), 0);
	memcpy(bytes + 88, mac, sizeof(mac));
}

/* The volume's header, changed, as one copy; mac_key NULL: the HMAC of the old one. */
static inline void unit_copy_put(const struct unit_volume *v, int i, const struct cmek_volhdr *hdr,
				 const struct cmek_secret *mac_key)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	uint8_t *bytes = NULL;
	size_t len;

	ck_assert_msg(cmek_volhdr_encode(hdr, mac_key, &bytes, &len, &err) == 0, "%s", err.text);
	unit_copy_write(v, i, bytes, len);
	free(bytes);
}

#endif
