/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The host's registry of volumes: pins, where it lies, what it refuses to be, and several processes at once. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "fs/volume/registry.h"
#include "tests/unit/unit.h"
#include "tests/unit/volume.h"

static struct unit_volume v;
static struct cmek_error err;
static struct cmek_registry *reg;
static char *path;

static void setup(void)
{
	err = (struct cmek_error)CMEK_ERROR_INIT;
	unit_volume_init(&v, 2);
	ck_assert_int_gt(asprintf(&path, "%s/volumes.json", v.dir), 0);
	ck_assert_int_eq(cmek_registry_new(path, &reg, NULL), 0);
	ck_assert_str_eq(cmek_registry_path(reg), path);
}

static void teardown(void)
{
	cmek_registry_free(reg);
	free(path);
	unit_volume_done(&v);
}

static struct cmek_pins *pins_of(const uint8_t uuid[16])
{
	struct cmek_pins *pins = NULL;
	struct cmek_error e = CMEK_ERROR_INIT;

	ck_assert_msg(cmek_registry_pins(reg, uuid, &pins, &e) == 0, "%s", e.text);
	return pins;
}

static void pin(void)
{
	ck_assert_msg(cmek_registry_pin(reg, v.hdr, "/the/store", &err) == 0, "%s", err.text);
}

static char *text_of_file(void)
{
	uint8_t *text = NULL;
	size_t len;

	ck_assert_int_eq(cmek_read_file(AT_FDCWD, path, 1 << 20, &text, &len, NULL), 0);
	return (char *)text;
}

static void write_file(const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fchmod(fd, mode), 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

START_TEST(nothing_is_pinned)
{
	struct stat st;

	ck_assert_ptr_null(pins_of(v.hdr->uuid));
	ck_assert_int_eq(stat(path, &st), -1);
	ck_assert_int_eq(cmek_registry_touch(reg, v.hdr->uuid, NULL), 0);
	ck_assert_int_eq(cmek_registry_forget(reg, v.hdr->uuid, NULL), 0);
	ck_assert_int_eq(stat(path, &st), -1);
	cmek_pins_free(NULL);
	cmek_registry_free(NULL);
}
END_TEST

START_TEST(pin_and_forget)
{
	uint8_t other[16] = { 1 };
	struct cmek_pins *pins;
	struct stat st;
	char *text;

	pin();
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	pins = pins_of(v.hdr->uuid);
	ck_assert_ptr_nonnull(pins);
	ck_assert_str_eq(cmek_pins_text(pins), "local:0, local:1");
	ck_assert(cmek_pins_match(pins, &v.hdr->slots[0]));
	ck_assert(cmek_pins_match(pins, &v.hdr->slots[1]));
	cmek_pins_free(pins);
	ck_assert_ptr_null(pins_of(other));
	text = text_of_file();
	ck_assert_ptr_nonnull(strstr(text, "\"/the/store\""));
	ck_assert_ptr_nonnull(strstr(text, "\"label\": \"unit\""));
	free(text);
	ck_assert_int_eq(cmek_registry_touch(reg, v.hdr->uuid, NULL), 0);
	ck_assert_int_eq(cmek_registry_forget(reg, v.hdr->uuid, NULL), 0);
	ck_assert_ptr_null(pins_of(v.hdr->uuid));
}
END_TEST

START_TEST(pinning_again_replaces)
{
	struct cmek_pins *pins;

	pin();
	strcpy(v.hdr->slots[0].resolved, "local:9");
	pin();
	pins = pins_of(v.hdr->uuid);
	ck_assert_str_eq(cmek_pins_text(pins), "local:9, local:1");
	strcpy(v.hdr->slots[0].resolved, "local:0");
	ck_assert(!cmek_pins_match(pins, &v.hdr->slots[0]));
	cmek_pins_free(pins);
}
END_TEST

/* A slot differs from its pin in one field; key as given and version do not count. */
static const struct {
	const char *name;
	size_t offset;
	const char *value;
	int fits;
} fields[] = {
	{ "provider", offsetof(struct cmek_slot, provider), "aws", 0 },
	{ "resolved", offsetof(struct cmek_slot, resolved), "local:00", 0 },
	{ "role", offsetof(struct cmek_slot, role), "other", 0 },
	{ "no role", offsetof(struct cmek_slot, role), NULL, 0 },
	{ "external id", offsetof(struct cmek_slot, external_id), "x", 0 },
	{ "service account", offsetof(struct cmek_slot, service_account), "x", 0 },
	{ "profile", offsetof(struct cmek_slot, profile), "x", 0 },
	{ "key", offsetof(struct cmek_slot, key), "alias", 1 },
	{ "version", offsetof(struct cmek_slot, version), "2", 1 },
};

START_TEST(what_has_to_fit)
{
	struct cmek_slot *slot = &v.hdr->slots[0];
	char **field = (char **)((char *)slot + fields[_i].offset);
	struct cmek_pins *pins;

	slot->role = strdup("role");
	pin();
	pins = pins_of(v.hdr->uuid);
	ck_assert(cmek_pins_match(pins, slot));
	free(*field);
	*field = fields[_i].value ? strdup(fields[_i].value) : NULL;
	ck_assert_msg(cmek_pins_match(pins, slot) == fields[_i].fits, "%s", fields[_i].name);
	cmek_pins_free(pins);
}
END_TEST

#define V "6b0c1f5e-2d3a-4b58-9697-88796a5b4c3d"

/* Files that are not believed, and not overwritten either. */
static const struct {
	const char *text;
	mode_t mode;
	enum cmek_kind kind;
	int pin_works; /* what is wrong is within the volume's own entry, which is replaced */
} bad_files[] = {
	{ "", 0600, CMEK_E_BAD_FORMAT, 0 },
	{ "{", 0600, CMEK_E_BAD_FORMAT, 0 },
	{ "{\"format\": 1}", 0600, CMEK_E_BAD_FORMAT, 0 },
	{ "{\"format\": 1, \"volumes\": []}", 0600, CMEK_E_BAD_FORMAT, 0 },
	{ "{\"format\": 2, \"volumes\": {}}", 0600, CMEK_E_UNSUPPORTED, 0 },
	{ "{\"format\": 1, \"volumes\": {}}", 0666, CMEK_E_DENIED, 0 },
	{ "{\"format\": 1, \"volumes\": {\"" V "\": 7}}", 0600, CMEK_E_BAD_FORMAT, 1 },
	{ "{\"format\": 1, \"volumes\": {\"" V "\": {}}}", 0600, CMEK_E_BAD_FORMAT, 1 },
	{ "{\"format\": 1, \"volumes\": {\"" V "\": {\"slots\": []}}}", 0600, CMEK_E_BAD_FORMAT, 1 },
	{ "{\"format\": 1, \"volumes\": {\"" V "\": {\"slots\": [{}]}}}", 0600, CMEK_E_BAD_FORMAT, 1 },
	{ "{\"format\": 1, \"volumes\": {\"" V
	  "\": {\"slots\": [{\"provider\": \"local\", \"resolved\": \"local:0\"}]}}}",
	  0600, CMEK_E_BAD_FORMAT, 1 },
};

START_TEST(bad_file)
{
	struct cmek_pins *pins = NULL;
	char *text;

	ck_assert_int_eq(cmek_uuid_decode(V, v.hdr->uuid), 0);
	write_file(bad_files[_i].text, bad_files[_i].mode);
	ck_assert_int_ne(cmek_registry_pins(reg, v.hdr->uuid, &pins, &err), 0);
	ck_assert_msg(err.kind == bad_files[_i].kind, "%s: %s", bad_files[_i].text, err.text);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_ptr_null(pins);
	if (bad_files[_i].pin_works) {
		ck_assert_int_eq(cmek_registry_pin(reg, v.hdr, "/s", NULL), 0);
		return;
	}
	ck_assert_int_ne(cmek_registry_pin(reg, v.hdr, "/s", NULL), 0);
	text = text_of_file();
	ck_assert_str_eq(text, bad_files[_i].text);
	free(text);
}
END_TEST

START_TEST(unknown_members_are_kept)
{
	char *text;

	write_file("{\"format\": 1, \"x-host\": 7, \"volumes\": {\"other\": {\"x\": [1]}}}", 0600);
	pin();
	text = text_of_file();
	ck_assert_ptr_nonnull(strstr(text, "\"x-host\": 7"));
	ck_assert_ptr_nonnull(strstr(text, "\"other\""));
	free(text);
}
END_TEST

static const struct {
	const char *volumes, *xdg, *home, *path; /* path NULL: refused */
} places[] = {
	{ "/x/v.json", "/xdg", "/home/u", "/x/v.json" },
	{ "", "/xdg", "/home/u", "/xdg/cmekfs/volumes.json" },
	{ NULL, "/xdg", "/home/u", "/xdg/cmekfs/volumes.json" },
	{ NULL, "relative", "/home/u", "/home/u/.local/share/cmekfs/volumes.json" },
	{ NULL, NULL, "/home/u", "/home/u/.local/share/cmekfs/volumes.json" },
	{ NULL, NULL, "relative", NULL },
	{ NULL, NULL, NULL, NULL },
};

static void set_or_unset(const char *name, const char *value)
{
	ck_assert_int_eq(value ? setenv(name, value, 1) : unsetenv(name), 0);
}

/* As another user than root, in a child, since that can't be undone. */
static void check_place(void *arg)
{
	int i = *(int *)arg;
	struct cmek_registry *r = NULL;
	int ret;

	set_or_unset("CMEKFS_VOLUMES", places[i].volumes);
	set_or_unset("XDG_DATA_HOME", places[i].xdg);
	set_or_unset("HOME", places[i].home);
	if (geteuid() == 0 && setresuid(65534, 65534, 65534))
		_exit(2);
	ret = cmek_registry_new(NULL, &r, &err);
	if (!places[i].path)
		_exit(ret == -EINVAL && err.kind == CMEK_E_USAGE ? 0 : 1);
	_exit(ret == 0 && !strcmp(cmek_registry_path(r), places[i].path) ? 0 : 1);
}

START_TEST(place)
{
	ck_assert_int_eq(unit_in_child(check_place, &_i), 0);
}
END_TEST

START_TEST(place_for_root)
{
	struct cmek_registry *r = NULL;

	if (geteuid() != 0)
		return;
	unsetenv("CMEKFS_VOLUMES");
	ck_assert_int_eq(cmek_registry_new(NULL, &r, NULL), 0);
	ck_assert_str_eq(cmek_registry_path(r), "/var/lib/cmekfs/volumes.json");
	cmek_registry_free(r);
}
END_TEST

#define PROCESSES 4
#define VOLUMES 12

/* Processes that pin volumes of their own at once: none is lost. */
START_TEST(many_at_once)
{
	pid_t pids[PROCESSES];
	struct cmek_pins *pins;
	int i, k, status;

	for (i = 0; i < PROCESSES; i++) {
		fflush(NULL);
		pids[i] = fork();
		ck_assert_int_ge(pids[i], 0);
		if (pids[i])
			continue;
		for (k = 0; k < VOLUMES; k++) {
			v.hdr->uuid[0] = (uint8_t)i;
			v.hdr->uuid[1] = (uint8_t)k;
			if (cmek_registry_pin(reg, v.hdr, "/s", NULL))
				_exit(1);
		}
		_exit(0);
	}
	for (i = 0; i < PROCESSES; i++) {
		ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
		ck_assert_int_eq(status, 0);
	}
	for (i = 0; i < PROCESSES; i++) {
		for (k = 0; k < VOLUMES; k++) {
			v.hdr->uuid[0] = (uint8_t)i;
			v.hdr->uuid[1] = (uint8_t)k;
			pins = pins_of(v.hdr->uuid);
			ck_assert_ptr_nonnull(pins);
			cmek_pins_free(pins);
		}
	}
}
END_TEST

/* The volume's entry alone, and what was noted of its backups. */
START_TEST(list)
{
	struct cmek_registered *volumes = NULL;
	const struct cmek_registered *here;
	uint8_t other[16] = { 0 };
	size_t n = 7;

	ck_assert_int_eq(cmek_registry_list(reg, &volumes, &n, &err), 0);
	ck_assert_uint_eq(n, 0);
	cmek_registry_list_free(volumes, n);
	/* Nothing is noted of a volume that is not there. */
	ck_assert_int_eq(cmek_registry_note_backup(reg, v.hdr, "/backup", &err), 0);
	ck_assert_int_eq(cmek_registry_repin(reg, NULL, v.hdr, "/s", &err), 0);
	ck_assert_ptr_null(pins_of(v.hdr->uuid));
	pin();
	ck_assert_int_eq(cmek_registry_note_backup(reg, v.hdr, "/backup", &err), 0);
	v.hdr->sequence = 9;
	ck_assert_int_eq(cmek_registry_note_backup(reg, v.hdr, "/other", &err), 0);
	ck_assert_int_eq(cmek_registry_note_backup(reg, v.hdr, "/backup", &err), 0);
	pin(); /* keeps the notes */
	ck_assert_msg(cmek_registry_list(reg, &volumes, &n, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(n, 1);
	ck_assert_ptr_null(cmek_registered_find(volumes, n, other));
	here = cmek_registered_find(volumes, n, v.hdr->uuid);
	ck_assert_ptr_eq(here, volumes);
	ck_assert_str_eq(here->store, "/the/store");
	ck_assert_str_eq(here->label, "unit");
	ck_assert(cmek_pins_have_key(here->pins, "local:1"));
	ck_assert(!cmek_pins_have_key(here->pins, "local:2"));
	ck_assert_uint_eq(here->n_backups, 2);
	ck_assert_str_eq(here->backups[0].path, "/backup");
	ck_assert_uint_eq(here->backups[0].sequence, 9);
	ck_assert_int_gt(here->backups[0].made, 0);
	ck_assert_uint_eq(here->backups[1].n_slots, 2);
	ck_assert_uint_eq(here->backups[1].slots[1].id, 1);
	ck_assert_str_eq(here->backups[1].slots[1].resolved, "local:1");
	ck_assert_str_eq(here->backups[1].slots[1].version, "1");
	cmek_registry_list_free(volumes, n);
	cmek_registry_list_free(NULL, 0);
}
END_TEST

/* Around a change of slots both headers' keys are pinned, and each only once. */
START_TEST(repin)
{
	struct cmek_volhdr next = *v.hdr;
	struct cmek_pins *pins;

	pin();
	next.slots = v.hdr->slots + 1;
	next.n_slots = 1;
	ck_assert_int_eq(cmek_registry_repin(reg, v.hdr, &next, "/new", &err), 0);
	pins = pins_of(v.hdr->uuid);
	ck_assert_str_eq(cmek_pins_text(pins), "local:0, local:1");
	cmek_pins_free(pins);
	ck_assert_int_eq(cmek_registry_repin(reg, NULL, &next, "/new", &err), 0);
	pins = pins_of(v.hdr->uuid);
	ck_assert_str_eq(cmek_pins_text(pins), "local:1");
	cmek_pins_free(pins);
}
END_TEST

/* A header is known by where its volume was made, if anything was made there. */
START_TEST(header_out_of_place)
{
	struct cmek_volhdr other = *v.hdr;

	other.uuid[0] ^= 1;
	ck_assert_int_eq(cmek_registry_check_place(reg, v.hdr->uuid, "/the/store", &err), 0);
	pin();
	ck_assert_int_eq(cmek_registry_check_place(reg, v.hdr->uuid, "/the/store", &err), 0);
	ck_assert_int_eq(cmek_registry_check_place(reg, v.hdr->uuid, "/moved", &err), 0);
	ck_assert_int_eq(cmek_registry_check_place(reg, other.uuid, "/elsewhere", &err), 0);
	ck_assert_int_eq(cmek_registry_check_place(reg, other.uuid, "/the/store", &err), -EKEYREJECTED);
	ck_assert_int_eq(err.kind, CMEK_E_MISMATCH);
	cmek_error_clear(&err);
	/* on another disk, or made anew */
	ck_assert_int_eq(cmek_registry_pin(reg, &other, "/the/store", &err), 0);
	ck_assert_int_eq(cmek_registry_check_place(reg, other.uuid, "/the/store", &err), 0);
	ck_assert_int_eq(cmek_registry_check_place(reg, v.hdr->uuid, "/the/store", &err), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("registry");
	TCase *tcase = tcase_create("registry");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, nothing_is_pinned);
	tcase_add_test(tcase, pin_and_forget);
	tcase_add_test(tcase, pinning_again_replaces);
	tcase_add_loop_test(tcase, what_has_to_fit, 0, UNIT_ROWS(fields));
	tcase_add_loop_test(tcase, bad_file, 0, UNIT_ROWS(bad_files));
	tcase_add_test(tcase, unknown_members_are_kept);
	tcase_add_loop_test(tcase, place, 0, UNIT_ROWS(places));
	tcase_add_test(tcase, place_for_root);
	tcase_add_test(tcase, many_at_once);
	tcase_add_test(tcase, list);
	tcase_add_test(tcase, repin);
	tcase_add_test(tcase, header_out_of_place);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
