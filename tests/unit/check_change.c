/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Changes of a header as the tools make them, with a real local key store: what they leave when they end in order, and
 * when the process dies at any call that changes a disk (linked with --wrap for those): the volume opens, and opens
 * under the pins, and it is the old one or the new one.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "fs/volume/change.h"
#include "fs/volume/registry.h"
#include "fs/volume/shred.h"
#include "kms/json.h"
#include "tests/unit/unit.h"
#include "tests/unit/volume.h"

/* Counts the calls that change a disk; at the chosen one the process ends. 0 = never. */
static unsigned calls, exit_at;

#define EXIT_CRASHED 42

static void crash_here(void)
{
	calls++;
	if (exit_at && calls == exit_at)
		_exit(EXIT_CRASHED);
}

ssize_t __real_write(int fd, const void *buf, size_t n);
ssize_t __wrap_write(int fd, const void *buf, size_t n);
ssize_t __wrap_write(int fd, const void *buf, size_t n)
{
	/* Half of it reaches the disk before the crash, so that a torn copy is among the cases. */
	if (exit_at && calls + 1 == exit_at && n > 1)
		n = (size_t)__real_write(fd, buf, n / 2);
	crash_here();
	return __real_write(fd, buf, n);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	crash_here();
	return __real_fsync(fd);
}

int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	crash_here();
	return __real_renameat(from_fd, from, to_fd, to);
}

static void write_file(int dir_fd, const char *name, size_t len)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)len), 0);
	close(fd);
}

static struct unit_volume v;
static struct cmek_error err;
static struct cmek_kms_options kms;
static char *key_path, *registry_path;

#define ck_ok(call) ck_assert_msg((call) == 0, "%s: %s (%s)", #call, err.text, cmek_kind_name(err.kind))

static struct cmek_kms *open_key(const char *uri)
{
	struct cmek_kms *key = NULL;

	ck_ok(cmek_kms_open(uri, NULL, &kms, &key, &err));
	return key;
}

static void make_key(const char *uri)
{
	struct cmek_kms *key = open_key(uri);

	ck_ok(cmek_kms_create(key, NULL, &err));
	cmek_kms_close(key);
}

static void wrap_into(struct cmek_volhdr *hdr, unsigned id, const char *uri, const struct cmek_secret *kek)
{
	struct cmek_kms *key = open_key(uri);
	struct cmek_slot slot = { 0 }, *place;

	ck_ok(cmek_keyslot_wrap(key, hdr->uuid, id, "data", NULL, kek, &slot, &err));
	place = cmek_volhdr_grow_slots(hdr);
	ck_assert_ptr_nonnull(place);
	*place = slot;
	cmek_kms_close(key);
}

/* A pinned volume with slots 0 (local:a) and 1 (local:b), and DEK 2 beside DEK 1, which is retired. */
static void setup(void)
{
	struct cmek_registry *registry = NULL;
	struct cmek_dek_entry *dek;

	cmek_json_init();
	exit_at = 0;
	err = (struct cmek_error)CMEK_ERROR_INIT;
	unit_volume_init(&v, 0);
	v.hdr->area_len = 8192;
	ck_assert_int_gt(asprintf(&key_path, "%s/keys.json", v.dir), 0);
	ck_assert_int_gt(asprintf(&registry_path, "%s/volumes.json", v.dir), 0);
	ck_assert_int_eq(setenv("CMEKFS_VOLUMES", registry_path, 1), 0);
	kms = (struct cmek_kms_options){ .keystore_path = key_path };
	make_key("local:a");
	make_key("local:b");
	make_key("local:c");
	wrap_into(v.hdr, 0, "local:a", v.kek);
	wrap_into(v.hdr, 1, "local:b", v.kek);
	dek = cmek_volhdr_grow_deks(v.hdr);
	dek->id = 2;
	dek->state = CMEK_DEK_RETIRED;
	dek->created = 1700000000;
	v.hdr->dek_next = 3;
	ck_ok(cmek_keyring_make_dek(v.ring, 2, 0, CMEK_DEK_RETIRED, dek->wrapped, &err));
	unit_volume_write(&v);
	ck_ok(cmek_registry_new(NULL, &registry, &err));
	ck_ok(cmek_registry_pin(registry, v.hdr, v.dir, &err));
	cmek_registry_free(registry);
}

static void teardown(void)
{
	free(key_path);
	free(registry_path);
	unit_volume_done(&v);
}

static struct cmek_change *begin(enum cmek_store_access access)
{
	const struct cmek_change_params params = { access, &kms, NULL, -1, unit_volume_report(&v) };
	struct cmek_change *change = NULL;

	ck_ok(cmek_change_begin(v.store_fd, v.dir, &params, &change, &err));
	return change;
}

/* What a tool would do with the volume. */
static void do_nothing(struct cmek_change *change)
{
	(void)change;
}

static void do_add(struct cmek_change *change)
{
	wrap_into(cmek_change_new(change), 2, "local:c", cmek_change_kek(change));
}

static void do_remove(struct cmek_change *change)
{
	cmek_volhdr_drop_slot(cmek_change_new(change), cmek_volhdr_slot(cmek_change_new(change), 0));
}

static void do_replace(struct cmek_change *change)
{
	do_remove(change);
	do_add(change);
}

static void do_rewrap(struct cmek_change *change)
{
	struct cmek_volhdr *hdr = cmek_change_new(change);

	ck_ok(cmek_keyslot_rewrap(hdr->uuid, cmek_volhdr_slot(hdr, 1), &kms, cmek_change_kek(change), &err));
}

static void do_rekey(struct cmek_change *change)
{
	do_remove(change);
	ck_ok(cmek_change_rekey(change, &err));
}

static void do_rotate(struct cmek_change *change)
{
	uint16_t dek = 0;

	ck_ok(cmek_change_rotate(change, &dek, &err));
	ck_assert_uint_eq(dek, 3);
	ck_assert_uint_eq(cmek_change_new(change)->dek_active, 3);
	ck_assert_uint_eq(cmek_change_new(change)->dek_next, 4);
}

static const struct {
	const char *name;
	void (*change)(struct cmek_change *change);
	const char *before, *after; /* the slots' keys */
} changes[] = {
	{ "nothing", do_nothing, "local:a local:b", "local:a local:b" },
	{ "add", do_add, "local:a local:b", "local:a local:b local:c" },
	{ "remove", do_remove, "local:a local:b", "local:b" },
	{ "replace", do_replace, "local:a local:b", "local:b local:c" },
	{ "rewrap", do_rewrap, "local:a local:b", "local:a local:b" },
	{ "rekey", do_rekey, "local:a local:b", "local:b" },
	{ "rotate", do_rotate, "local:a local:b", "local:a local:b" },
};
#define N_CHANGES ((int)(sizeof(changes) / sizeof(changes[0])))

static const char *keys_of(const struct cmek_volhdr *hdr)
{
	static char text[256];
	size_t i;

	text[0] = '\0';
	for (i = 0; i < hdr->n_slots; i++) {
		strcat(text, i ? " " : "");
		strcat(text, hdr->slots[i].resolved);
	}
	return text;
}

/* The header that is found opens, by each of its slots alone, under the pins; the DEKs are what they were. */
static void check_volume(const char *before, const char *after)
{
	struct cmek_change_params params = { CMEK_STORE_CHANGE, &kms, NULL, -1, unit_volume_report(&v) };
	struct cmek_change *change = begin(CMEK_STORE_CHANGE), *other = NULL;
	uint8_t salt[CMEK_SALT_LEN] = { 1 }, file[CMEK_FILE_ID_LEN] = { 2 };
	struct cmek_secret *was = NULL, *is = NULL;
	const char *keys = keys_of(cmek_change_old(change));
	int ids[8];
	size_t i, n = cmek_change_old(change)->n_slots;

	ck_assert_msg(!strcmp(keys, before) || !strcmp(keys, after), "slots %s", keys);
	ck_ok(cmek_keyring_content_key(v.ring, 1, salt, file, &was));
	ck_ok(cmek_keyring_content_key(cmek_change_ring(change), 1, salt, file, &is));
	ck_assert_mem_eq(cmek_secret_bytes(was, CMEK_KEY_CONTENT), cmek_secret_bytes(is, CMEK_KEY_CONTENT), 32);
	ck_assert_int_eq(cmek_keyring_content_key(cmek_change_ring(change), 2, salt, file, &is), -EKEYREVOKED);
	cmek_secret_free(was);
	cmek_secret_free(is);
	for (i = 0; i < n; i++)
		ids[i] = (int)cmek_change_old(change)->slots[i].id;
	cmek_change_end(change);
	for (i = 0; i < n; i++) {
		params.slot = ids[i];
		ck_ok(cmek_change_begin(v.store_fd, v.dir, &params, &other, &err));
		cmek_change_end(other);
	}
}

/* Loop over changes. */
START_TEST(ends_in_order)
{
	struct cmek_change *change = begin(CMEK_STORE_CHANGE);
	uint64_t sequence = cmek_change_old(change)->sequence;

	changes[_i].change(change);
	ck_ok(cmek_change_commit(change, &err));
	ck_assert_str_eq(keys_of(cmek_change_old(change)), changes[_i].after);
	ck_assert_ptr_eq(cmek_change_new(change), cmek_change_old(change));
	ck_assert_uint_eq(cmek_change_old(change)->sequence, sequence + 1);
	cmek_change_end(change);
	check_volume(changes[_i].after, changes[_i].after);
}
END_TEST

/* A child makes the change and dies at the n-th call: how it ended. */
static int change_and_die(int which, unsigned n)
{
	struct cmek_change *change;
	int status = -1;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		change = begin(CMEK_STORE_CHANGE);
		changes[which].change(change);
		calls = 0;
		exit_at = n;
		_exit(cmek_change_commit(change, &err) ? 1 : 0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "status %x", (unsigned)status);
	return WEXITSTATUS(status);
}

/* Loop over changes. The volume of the next round is what the last one left, put back by hand. */
START_TEST(killed_anywhere)
{
	uint8_t copy[2][CMEK_VOLHDR_HEAD_LEN + 8192], *registry = NULL;
	size_t len = 0;
	unsigned n;
	int i, code = EXIT_CRASHED;

	for (i = 0; i < 2; i++) {
		int fd = openat(v.meta_fd, unit_copy_name(i), O_RDONLY | O_CLOEXEC);

		ck_assert_int_eq(read(fd, copy[i], sizeof(copy[i])), sizeof(copy[i]));
		close(fd);
	}
	ck_ok(cmek_read_file(AT_FDCWD, registry_path, 1 << 20, &registry, &len, &err));
	for (n = 1; code == EXIT_CRASHED; n++) {
		code = change_and_die(_i, n);
		check_volume(changes[_i].before, changes[_i].after);
		for (i = 0; i < 2; i++)
			unit_copy_write(&v, i, copy[i], sizeof(copy[i]));
		i = open(registry_path, O_WRONLY | O_TRUNC | O_CLOEXEC);
		ck_assert_int_eq(write(i, registry, len), (ssize_t)len);
		close(i);
	}
	ck_assert_int_eq(code, 0);
	/* Two copies of four calls each, and the registry twice. */
	ck_assert_uint_gt(n, 12);
	free(registry);
}
END_TEST

START_TEST(other_programs)
{
	struct cmek_volhdr_store *mount = NULL, *copy = NULL;
	struct cmek_change *change;

	/* A mount does not keep a change out, nor a change a mount. */
	ck_ok(cmek_volhdr_store_open(v.store_fd, CMEK_STORE_WRITE, NULL, &mount, &err));
	change = begin(CMEK_STORE_CHANGE);
	cmek_volhdr_store_close(mount);
	mount = NULL;
	ck_ok(cmek_volhdr_store_open(v.store_fd, CMEK_STORE_WRITE, NULL, &mount, &err));
	/* The header that the mount has read is the old one then: it writes nothing over the new one. */
	do_add(change);
	ck_ok(cmek_change_commit(change, &err));
	cmek_change_end(change);
	ck_assert_int_eq(cmek_volhdr_store_repair(mount, &err), -ESTALE);
	ck_assert_int_eq(err.kind, CMEK_E_BUSY);
	cmek_error_clear(&err);
	/* One that keeps mounts out does so. */
	ck_assert_int_eq(cmek_volhdr_store_open(v.store_fd, CMEK_STORE_WRITE, NULL, &copy, NULL), -EBUSY);
	cmek_volhdr_store_close(mount);
	check_volume(changes[1].after, changes[1].after);
}
END_TEST

START_TEST(refuses)
{
	struct cmek_change *change = begin(CMEK_STORE_CHANGE);
	struct cmek_kms *key = open_key("local:b");

	/* A key that can't wrap now can't get the new KEK: all stays as it is. */
	ck_ok(cmek_kms_disable(key, &err));
	ck_assert_int_lt(cmek_change_rekey(change, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_KEY_DISABLED);
	ck_assert_ptr_nonnull(strstr(err.text, "slot 1 (local:b)"));
	cmek_error_clear(&err);
	ck_ok(cmek_kms_enable(key, &err));
	cmek_kms_close(key);
	cmek_change_end(change);
	check_volume(changes[0].before, changes[0].before);

	change = begin(CMEK_STORE_CHANGE);
	while (cmek_change_new(change)->n_slots)
		cmek_volhdr_drop_slot(cmek_change_new(change), &cmek_change_new(change)->slots[0]);
	ck_assert_int_lt(cmek_change_commit(change, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
	cmek_error_clear(&err);
	cmek_change_end(change);
	check_volume(changes[0].before, changes[0].before);
}
END_TEST

/* An old KEK opens nothing of the header that came after it. */
START_TEST(rekeyed)
{
	struct cmek_change *change = begin(CMEK_STORE_CHANGE);
	const struct cmek_dek_entry *dek;

	do_rekey(change);
	ck_ok(cmek_change_commit(change, &err));
	dek = &cmek_change_old(change)->deks[0];
	ck_assert_int_eq(cmek_keyring_add_dek(v.ring, 7, dek->domain, dek->state, dek->wrapped, &err), -EBADMSG);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_keyslot_prove(v.hdr->uuid, &cmek_change_old(change)->slots[0], &kms, v.kek, &err), -EBADMSG);
	ck_assert_int_eq(err.kind, CMEK_E_TAMPERED);
	cmek_error_clear(&err);
	ck_ok(cmek_keyslot_prove(v.hdr->uuid, &cmek_change_old(change)->slots[0], &kms, cmek_change_kek(change), &err));
	cmek_change_end(change);
}
END_TEST

/* A mount takes the keys of the rotated header over; what it had goes on, what it seals is under the new data key. */
START_TEST(adopted)
{
	struct cmek_change *change = begin(CMEK_STORE_CHANGE);
	uint8_t salt[CMEK_SALT_LEN] = { 1 }, file[CMEK_FILE_ID_LEN] = { 2 };
	struct cmek_secret *name_before = NULL, *name_after = NULL;
	struct cmek_volhdr_store *mount = NULL;
	struct cmek_keyring *ring = NULL;
	struct cmek_seal_right before, after;
	struct cmek_secret *key = NULL;
	struct cmek_unlock_params params = { .unwrapper = cmek_unwrapper_kms(&kms), .slot = -1 };

	ck_ok(cmek_volhdr_store_open(v.store_fd, CMEK_STORE_WRITE, NULL, &mount, &err));
	ck_assert_int_eq(cmek_keyring_seal_right(v.ring, 1, &before), 0);
	ck_assert_int_eq(cmek_keyring_name_key(v.ring, 1, &name_before), 0);
	do_rotate(change);
	ck_ok(cmek_change_commit(change, &err));
	cmek_change_end(change);

	ck_ok(cmek_volhdr_store_reload(mount, &err));
	ck_assert_uint_eq(cmek_volhdr_store_header(mount)->dek_active, 3);
	ck_ok(cmek_unlock(mount, &params, &ring, &err));
	ck_ok(cmek_keyring_adopt(v.ring, &ring, &err));
	ck_assert_ptr_null(ring);
	ck_assert_uint_eq(cmek_keyring_active_dek(v.ring), 3);
	ck_assert_int_eq(cmek_keyring_seal_right(v.ring, 1, &after), 0);
	ck_assert_uint_eq(after.dek, 3);
	ck_assert_uint_ne(after.epoch, before.epoch);
	ck_assert_int_ne(memcmp(after.salt, before.salt, CMEK_SALT_LEN), 0);
	ck_assert_uint_gt(after.first, before.first);
	ck_assert_int_eq(cmek_keyring_name_key(v.ring, 1, &name_after), 0);
	ck_assert_ptr_eq(name_after, name_before);
	cmek_secret_free(name_before);
	cmek_secret_free(name_after);
	ck_assert_int_eq(cmek_keyring_content_key(v.ring, 3, salt, file, &key), 0);
	cmek_secret_free(key);
	/* The header's new MAC key came along. */
	ck_assert(!cmek_volhdr_store_unequal(mount));
	ck_ok(cmek_unlock(mount, &params, &ring, &err));
	ck_assert_mem_eq(cmek_secret_bytes(cmek_keyring_header_mac(v.ring), CMEK_KEY_HEADER_MAC),
			 cmek_secret_bytes(cmek_keyring_header_mac(ring), CMEK_KEY_HEADER_MAC), 32);
	cmek_keyring_free(ring);
	cmek_volhdr_store_close(mount);
}
END_TEST

/* Keys that are no newer ones of the volume are refused, and change nothing. */
START_TEST(not_adopted)
{
	uint8_t wrapped[CMEK_DEK_WRAPPED_LEN], other[16] = { 7 };
	struct cmek_keyring *ring = NULL;
	struct cmek_secret *kek = NULL;
	int i;

	for (i = 0; i < 3; i++) {
		ck_ok(cmek_secret_new_random(CMEK_KEY_KEK, 32, &kek, &err));
		ck_ok(cmek_keyring_new(i == 0 ? other : v.hdr->uuid, &kek, &ring, &err));
		/* Of another volume; without the active data key; with another one under its number. */
		ck_ok(cmek_keyring_make_dek(ring, i == 1 ? 9 : 1, 0, CMEK_DEK_ACTIVE, wrapped, &err));
		ck_assert_int_eq(cmek_keyring_adopt(v.ring, &ring, &err), i == 2 ? -EEXIST : -EINVAL);
		ck_assert_ptr_nonnull(ring);
		cmek_error_clear(&err);
		ck_assert_uint_eq(cmek_keyring_active_dek(v.ring), 1);
		cmek_keyring_free(ring);
		ring = NULL;
	}
}
END_TEST

/* A child shreds the volume and dies at the n-th call. */
static int shred_and_die(unsigned n)
{
	struct cmek_volhdr_store *store = NULL;
	struct cmek_shred_count count;
	int status = -1;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		ck_ok(cmek_volhdr_store_open_any(v.store_fd, CMEK_STORE_WRITE, &store, &err));
		calls = 0;
		exit_at = n;
		_exit(cmek_shred_volume(v.store_fd, store, v.hdr->uuid, 1700000000, &count, &err) ? 1 : 0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "status %x", (unsigned)status);
	return WEXITSTATUS(status);
}

/* Cut off anywhere the volume is whole, or damaged and whole in its other copy, or a shredded one; repeated, it is done. */
START_TEST(shred_killed_anywhere)
{
	struct cmek_volhdr_store *store = NULL;
	unsigned n;
	int code = EXIT_CRASHED, ret;

	for (n = 1; code == EXIT_CRASHED; n++) {
		unit_copy_put(&v, 0, v.hdr, v.mac_key);
		unit_copy_put(&v, 1, v.hdr, v.mac_key);
		write_file(v.meta_fd, "journal.0", 10000);
		code = shred_and_die(n);
		ret = cmek_volhdr_store_open(v.store_fd, CMEK_STORE_READ, NULL, &store, &err);
		if (ret) {
			ck_assert_int_eq(ret, -EIDRM);
			ck_assert_int_eq(err.kind, CMEK_E_KEY_DESTROYED);
			ck_assert_str_eq(err.text, "the volume was shredded on 2023-11-14T22:13:20Z");
			cmek_error_clear(&err);
		}
		cmek_volhdr_store_close(store);
		store = NULL;
		ck_assert_int_eq(shred_and_die(0), 0);
		ck_ok(cmek_shred_verify(v.store_fd, &err));
	}
	ck_assert_int_eq(code, 0);
	ck_assert_int_ne(ret, 0);
	ck_assert_uint_gt(n, 12);
}
END_TEST

/* Bytes of the wrapped keys are nowhere in the volume's directory, nor in files that the old copies were. */
START_TEST(shredded)
{
	uint8_t old[CMEK_VOLHDR_HEAD_LEN + 8192], now[CMEK_VOLHDR_HEAD_LEN + 8192];
	struct cmek_volhdr_store *store = NULL;
	struct cmek_shred_count planned, done;
	struct cmek_shred_old handle;
	struct cmek_change *change;
	int fds[2], i;

	write_file(v.meta_fd, "journal.0", 5000);
	ck_assert_int_eq(mkdirat(v.meta_fd, "lost", 0700), 0);
	write_file(v.meta_fd, "lost/journal.0.1", 100);
	for (i = 0; i < 2; i++) {
		fds[i] = openat(v.meta_fd, unit_copy_name(i), O_RDONLY | O_CLOEXEC);
		ck_assert_int_eq(pread(fds[i], old, sizeof(old), 0), sizeof(old));
	}
	/* An update leaves the old copies to be overwritten. */
	ck_ok(cmek_shred_old_open(v.store_fd, &handle, &err));
	change = begin(CMEK_STORE_CHANGE);
	do_remove(change);
	ck_ok(cmek_change_commit(change, &err));
	cmek_change_end(change);
	ck_ok(cmek_shred_old_finish(&handle, true, &err));
	for (i = 0; i < 2; i++) {
		ck_assert_int_eq(pread(fds[i], now, sizeof(now), 0), sizeof(now));
		ck_assert_int_ne(memcmp(now, old, 4096), 0);
		ck_assert_ptr_null(memmem(now, sizeof(now), "wrapped", 7));
		close(fds[i]);
		fds[i] = openat(v.meta_fd, unit_copy_name(i), O_RDONLY | O_CLOEXEC);
	}
	check_volume(changes[2].after, changes[2].after);

	ck_assert_int_eq(cmek_shred_verify(v.store_fd, &err), -EUCLEAN);
	cmek_error_clear(&err);
	ck_ok(cmek_shred_measure(v.store_fd, &planned, &err));
	ck_assert_uint_eq(planned.files, 4);
	ck_ok(cmek_volhdr_store_open_any(v.store_fd, CMEK_STORE_WRITE, &store, &err));
	ck_ok(cmek_shred_volume(v.store_fd, store, v.hdr->uuid, 1700000000, &done, &err));
	cmek_volhdr_store_close(store);
	ck_assert_mem_eq(&planned, &done, sizeof(done));
	ck_ok(cmek_shred_verify(v.store_fd, &err));
	for (i = 0; i < 2; i++) {
		ck_assert_int_eq(pread(fds[i], now, sizeof(now), 0), sizeof(now));
		ck_assert_ptr_null(memmem(now, sizeof(now), "wrapped", 7));
		close(fds[i]);
	}
	/* A header that comes back is newer than the tombstones, and one of them beside it does no harm. */
	store = NULL;
	ck_ok(cmek_volhdr_store_open_any(v.store_fd, CMEK_STORE_WRITE, &store, &err));
	ck_assert_ptr_null(cmek_volhdr_store_header(store));
	v.hdr->sequence = cmek_volhdr_store_newest(store) + 1;
	cmek_volhdr_store_close(store);
	unit_copy_put(&v, 1, v.hdr, v.mac_key);
	store = NULL;
	ck_ok(cmek_volhdr_store_open(v.store_fd, CMEK_STORE_READ, NULL, &store, &err));
	ck_assert_str_eq(keys_of(cmek_volhdr_store_header(store)), changes[0].before);
	cmek_volhdr_store_close(store);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("change");
	Suite *s = suite_create("change");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, ends_in_order, 0, N_CHANGES);
	tcase_add_loop_test(tc, killed_anywhere, 0, N_CHANGES);
	tcase_add_test(tc, other_programs);
	tcase_add_test(tc, refuses);
	tcase_add_test(tc, rekeyed);
	tcase_add_test(tc, adopted);
	tcase_add_test(tc, not_adopted);
	tcase_add_test(tc, shred_killed_anywhere);
	tcase_add_test(tc, shredded);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
