/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The local key store as files: its form, tampering, permissions, key file and passphrase, several processes at once,
 * crashes. What keys do is check_local.c.
 */
#include "config.h"

#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>

#include "base/crypto.h"
#include "kms/local_file.h"
#include "tests/unit/local_fixture.h"

/* The form. Each row changes one thing in a good store; the error must name the place. */

static const struct {
	const char *change; /* jansson pack format of the new value, or NULL = remove */
	const char *path[4];
	size_t key, version; /* indices, for paths with "keys" and "versions" */
	const char *want;
	enum cmek_kind kind;
} form_rows[] = {
	{ "\"other\"", { "format" }, 0, 0, ": format is not", CMEK_E_BAD_FORMAT },
	{ NULL, { "format" }, 0, 0, ": format is missing", CMEK_E_BAD_FORMAT },
	{ "2", { "version" }, 0, 0, "format version 2", CMEK_E_UNSUPPORTED },
	{ "0", { "version" }, 0, 0, ": version is out of range", CMEK_E_BAD_FORMAT },
	{ "\"1\"", { "version" }, 0, 0, ": version is not an integer", CMEK_E_BAD_FORMAT },
	{ "1.5", { "sequence" }, 0, 0, ": sequence is not an integer", CMEK_E_BAD_FORMAT },
	{ "-1", { "sequence" }, 0, 0, ": sequence is out of range", CMEK_E_BAD_FORMAT },
	{ "9007199254740992", { "sequence" }, 0, 0, ": sequence is out of range", CMEK_E_BAD_FORMAT },
	{ "\"x\"", { "uuid" }, 0, 0, ": uuid is not a UUID", CMEK_E_BAD_FORMAT },
	{ "\"2026-13-01T00:00:00Z\"", { "created" }, 0, 0, ": created is not a time", CMEK_E_BAD_FORMAT },
	{ "\"AAAA\"", { "check" }, 0, 0, ": check is not base64", CMEK_E_BAD_FORMAT },
	{ "\"AAAA\"", { "mac" }, 0, 0, ": mac is not base64", CMEK_E_BAD_FORMAT },
	{ NULL, { "mac" }, 0, 0, ": mac is missing", CMEK_E_BAD_FORMAT },
	{ "1", { "surprise" }, 0, 0, ": has a member", CMEK_E_BAD_FORMAT },
	{ "{}", { "keys" }, 0, 0, ": keys is not an array", CMEK_E_BAD_FORMAT },
	{ "\"tpm\"", { "protection", "type" }, 0, 0, ": protection.type is neither", CMEK_E_BAD_FORMAT },
	{ "1", { "protection", "n" }, 0, 0, ": protection has a member", CMEK_E_BAD_FORMAT },
	{ "\"gone\"", { "keys", "state" }, 1, 0, ": keys[1].state is not a state", CMEK_E_BAD_FORMAT },
	{ "\"pending-deletion\"", { "keys", "state" }, 0, 0, ": keys[0].deletion_date is missing", CMEK_E_BAD_FORMAT },
	{ "\"destroyed\"", { "keys", "state" }, 0, 0, ": keys[0].destroyed is missing", CMEK_E_BAD_FORMAT },
	{ "\"2026-01-01T00:00:00Z\"", { "keys", "destroyed" }, 0, 0, ": keys[0].destroyed is there", CMEK_E_BAD_FORMAT },
	{ "\"a/b\"", { "keys", "name" }, 0, 0, ": keys[0].name is not a key name", CMEK_E_BAD_FORMAT },
	{ "\"zz\"", { "keys", "name" }, 0, 0, ": keys[1].name is out of order", CMEK_E_BAD_FORMAT },
	{ "\"b\"", { "keys", "name" }, 0, 0, ": keys[1].name is out of order", CMEK_E_BAD_FORMAT },
	{ "[]", { "keys", "versions" }, 0, 0, ": keys[0].versions is empty", CMEK_E_BAD_FORMAT },
	{ "3", { "keys", "versions", "version" }, 1, 1, ": keys[1].versions[1].version is out", CMEK_E_BAD_FORMAT },
	{ "\"eA==\"", { "keys", "versions", "wrapped" }, 0, 0, ": keys[0].versions[0].wrapped is not base64",
	  CMEK_E_BAD_FORMAT },
	{ "\"enabled\"", { "keys", "versions", "state" }, 0, 0, ": keys[0].versions[0] has a member",
	  CMEK_E_BAD_FORMAT },
	/* Well formed, and not what was authenticated. */
	{ "\"disabled\"", { "keys", "state" }, 0, 0, "is damaged, or was changed", CMEK_E_TAMPERED },
	{ "\"c\"", { "keys", "name" }, 1, 0, "is damaged, or was changed", CMEK_E_TAMPERED },
	{ "\"2020-01-01T00:00:00Z\"", { "keys", "created" }, 0, 0, "is damaged, or was changed", CMEK_E_TAMPERED },
	{ "[]", { "keys" }, 0, 0, "is damaged, or was changed", CMEK_E_TAMPERED },
	{ "1", { "sequence" }, 0, 0, "is damaged, or was changed", CMEK_E_TAMPERED },
	{ NULL, { "keys", "versions", "wrapped" }, 1, 1, "is damaged, or was changed", CMEK_E_TAMPERED },
	{ "\"00000000-0000-4000-8000-000000000000\"", { "uuid" }, 0, 0, "does not belong to", CMEK_E_DENIED },
};

/* A store with the keys a (1 version) and b (2 versions). */
static struct cmek_kms *make_two_keys(void)
{
	struct cmek_kms *kms;

	cmek_kms_close(created("local:a"));
	kms = created("local:b");
	ck_ok(cmek_kms_rotate(kms, NULL, &err));
	return kms;
}

static void save(const json_t *json)
{
	char *text = json_dumps(json, 0);

	write_text(store_path, text, strlen(text));
	free(text);
}

START_TEST(form_is_checked)
{
	json_t *json, *at, *value = NULL;
	struct cmek_kms_info info;
	struct cmek_kms *kms;
	size_t depth = 0;

	cmek_kms_close(make_two_keys());
	json = json_load_file(store_path, 0, NULL);
	at = json;
	for (; form_rows[_i].path[depth + 1]; depth++) {
		at = json_object_get(at, form_rows[_i].path[depth]);
		if (json_is_array(at))
			at = json_array_get(at, depth == 0 ? form_rows[_i].key : form_rows[_i].version);
	}
	if (form_rows[_i].change) {
		value = json_loads(form_rows[_i].change, JSON_DECODE_ANY, NULL);
		ck_assert_ptr_nonnull(value);
		json_object_set_new(at, form_rows[_i].path[depth], value);
	} else {
		json_object_del(at, form_rows[_i].path[depth]);
	}
	save(json);
	json_decref(json);
	/* A new handle and one from before see the same. */
	kms = open_key("local:a");
	ck_assert_int_lt(cmek_kms_describe(kms, &info, &err), 0);
	ck_assert_msg(strstr(err.text, form_rows[_i].want) && strstr(err.text, store_path), "row %d: %s", _i, err.text);
	ck_assert_msg(err.kind == form_rows[_i].kind, "row %d: kind %s", _i, cmek_kind_name(err.kind));
	cmek_error_clear(&err);
	ck_fails(cmek_kms_create(kms, NULL, &err), form_rows[_i].kind);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(white_space_and_order_do_not_matter)
{
	struct cmek_kms *kms = make_two_keys();
	json_t *json = json_load_file(store_path, 0, NULL);
	char *text = json_dumps(json, JSON_SORT_KEYS | JSON_INDENT(7));

	write_text(store_path, text, strlen(text));
	ck_assert_uint_eq(n_versions_of(kms), 2);
	free(text);
	json_decref(json);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(every_changed_byte_is_noticed)
{
	struct cmek_kms *kms = make_two_keys(), *fresh;
	struct cmek_kms_info info;
	size_t len = 0;
	char *text = read_text(store_path, &len);

	for (size_t i = 0; i < len; i++) {
		text[i] ^= 1;
		write_text(store_path, text, len);
		fresh = open_key("local:b");
		ck_assert_msg(cmek_kms_describe(fresh, &info, &err) < 0, "byte %zu of %zu changed unnoticed", i, len);
		cmek_error_clear(&err);
		ck_assert_msg(cmek_kms_describe(kms, &info, &err) < 0, "byte %zu of %zu changed unnoticed", i, len);
		cmek_error_clear(&err);
		cmek_kms_close(fresh);
		text[i] ^= 1;
	}
	free(text);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(every_truncation_is_noticed)
{
	struct cmek_kms *kms = make_two_keys();
	struct cmek_kms_info info;
	size_t len = 0;
	char *text = read_text(store_path, &len);

	/* Less the last newline it is whole. */
	for (size_t n = 0; n < len - 1; n++) {
		write_text(store_path, text, n);
		ck_fails(cmek_kms_describe(kms, &info, &err), CMEK_E_BAD_FORMAT);
	}
	free(text);
	cmek_kms_close(kms);
}
END_TEST

/* Material moved from one version or key to another, with the MAC made good: GCM's AAD is what notices. */
START_TEST(exchanged_material_is_tampered)
{
	static const struct cmek_kms_principal nobody;
	const struct cmek_kms_options opts = { .keystore_path = store_path };
	struct cmek_kms *kms = make_two_keys();
	struct cmek_secret *kek = new_kek(), *back = NULL;
	struct cmek_kms_blob blob = { 0 };
	struct cmek_local_update u;
	struct cmek_local *l = NULL;

	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &blob, &err));
	ck_ok(cmek_local_handle_new("local:b", &nobody, &opts, &l, &err));
	ck_ok(cmek_local_begin(l, &u, &err));
	u.store.keys[1].versions[1] = _i ? u.store.keys[1].versions[0] : u.store.keys[0].versions[0];
	ck_ok(cmek_local_commit(l, &u, &err));
	cmek_local_end(&u);
	ck_fails(cmek_kms_unwrap(kms, &ctx, &blob, &back, NULL, &err), CMEK_E_TAMPERED);
	ck_fails(cmek_kms_wrap(kms, &ctx, kek, &blob, &err), CMEK_E_TAMPERED);
	cmek_local_handle_free(l);
	cmek_kms_blob_done(&blob);
	cmek_secret_free(kek);
	cmek_kms_close(kms);
}
END_TEST

/* Permissions */

static const mode_t bad_modes[] = { 0640, 0620, 0610, 0604, 0602, 0601, 0660, 0666, 0777, 0444 };

START_TEST(open_permissions_are_refused)
{
	struct cmek_kms *kms = created("local:db"), *fresh = open_key("local:db");
	struct cmek_secret *kek = new_kek();
	struct cmek_kms_blob blob = { 0 };
	char mode[8];

	snprintf(mode, sizeof(mode), "%04o", (unsigned)bad_modes[_i]);
	ck_assert_int_eq(chmod(store_path, bad_modes[_i]), 0);
	ck_assert_int_lt(cmek_kms_wrap(kms, &ctx, kek, &blob, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	ck_assert_int_eq(err.err, EPERM);
	ck_assert_ptr_nonnull(strstr(err.text, store_path));
	ck_assert_ptr_nonnull(strstr(err.text, mode));
	cmek_error_clear(&err);
	ck_fails(cmek_kms_create(fresh, NULL, &err), CMEK_E_DENIED);
	ck_assert_int_eq(chmod(store_path, 0600), 0);
	ck_assert_int_eq(chmod(key_path, bad_modes[_i]), 0);
	ck_assert_int_lt(cmek_kms_wrap(fresh, &ctx, kek, &blob, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	ck_assert_ptr_nonnull(strstr(err.text, key_path));
	cmek_error_clear(&err);
	ck_assert_int_eq(chmod(key_path, 0400), 0);
	check_round_trip(fresh);
	cmek_secret_free(kek);
	cmek_kms_close(kms);
	cmek_kms_close(fresh);
}
END_TEST

START_TEST(files_are_private)
{
	struct stat st;

	umask(_i ? 0 : 077);
	cmek_kms_close(created("local:db"));
	ck_assert_int_eq(stat(store_path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(stat(key_path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
}
END_TEST

START_TEST(other_owners_are_refused)
{
	struct cmek_kms *kms = created("local:db");
	struct cmek_kms_info info;

	if (geteuid() != 0) {
		cmek_kms_close(kms);
		return;
	}
	ck_assert_int_eq(chown(store_path, 12345, 0), 0);
	ck_fails(cmek_kms_describe(kms, &info, &err), CMEK_E_DENIED);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(odd_files_are_refused)
{
	struct cmek_kms *kms = open_key("local:db");
	struct cmek_kms_info info;
	char *target = NULL;

	switch (_i) {
	case 0:
		ck_assert_int_eq(mkdir(store_path, 0700), 0);
		break;
	case 1:
		ck_assert_int_eq(mkfifo(store_path, 0600), 0);
		break;
	case 2:
		cmek_kms_close(created("local:db"));
		ck_assert_int_gt(asprintf(&target, "%s/elsewhere", dir_path), 0);
		ck_assert_int_eq(rename(store_path, target), 0);
		ck_assert_int_eq(symlink(target, store_path), 0);
		free(target);
		break;
	}
	ck_assert_int_lt(cmek_kms_describe(kms, &info, &err), 0);
	cmek_error_clear(&err);
	ck_assert_int_lt(cmek_kms_create(kms, NULL, &err), 0);
	cmek_error_clear(&err);
	cmek_kms_close(kms);
}
END_TEST

/* The key file */

START_TEST(key_file_is_never_made_anew)
{
	struct cmek_kms *kms;
	struct cmek_kms_info info;

	cmek_kms_close(created("local:db"));
	ck_assert_int_eq(unlink(key_path), 0);
	kms = open_key("local:db");
	ck_assert_int_lt(cmek_kms_describe(kms, &info, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_NOT_FOUND);
	ck_assert_int_eq(err.err, ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, key_path));
	cmek_error_clear(&err);
	ck_fails(cmek_kms_rotate(kms, NULL, &err), CMEK_E_NOT_FOUND);
	ck_fails(cmek_kms_create(kms, NULL, &err), CMEK_E_NOT_FOUND);
	ck_assert_int_eq(access(key_path, F_OK), -1);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(wrong_key_file_is_told)
{
	char zeros[33] = { 0 };
	struct cmek_kms *kms;
	struct cmek_kms_info info;

	cmek_kms_close(created("local:db"));
	kms = open_key("local:db");
	write_text(key_path, zeros, 32);
	ck_assert_int_lt(cmek_kms_describe(kms, &info, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	ck_assert_int_eq(err.err, EKEYREJECTED);
	cmek_error_clear(&err);
	write_text(key_path, zeros, 31);
	ck_fails(cmek_kms_describe(kms, &info, &err), CMEK_E_BAD_FORMAT);
	write_text(key_path, zeros, 33);
	ck_fails(cmek_kms_describe(kms, &info, &err), CMEK_E_BAD_FORMAT);
	cmek_kms_close(kms);
}
END_TEST

/* A first use that was cut short after the key file, and a store that was removed on purpose. */
START_TEST(key_file_without_a_store_is_used)
{
	char key[32], *now;

	memset(key, 7, sizeof(key));
	write_text(key_path, key, sizeof(key));
	cmek_kms_close(created("local:db"));
	now = read_text(key_path, NULL);
	ck_assert_mem_eq(now, key, 32);
	free(now);
}
END_TEST

/* Passphrases */

static void write_passphrase(char *path, size_t max, const char *text)
{
	snprintf(path, max, "%s/pass", dir_path);
	write_text(path, text, strlen(text));
}

START_TEST(passphrase_file_opens_the_store)
{
	const struct cmek_kms_create how = { .passphrase = true };
	struct cmek_kms_options opts = { 0 };
	struct cmek_kms_info info = { 0 };
	struct cmek_kms *kms, *bare = open_key("local:db");
	char path[128];

	opts.passphrase_file = path;
	write_passphrase(path, sizeof(path), "open sesame\nignored\n");
	kms = open_with("local:db", &opts);
	ck_ok(cmek_kms_create(kms, &how, &err));
	ck_assert_int_eq(access(key_path, F_OK), -1);
	check_round_trip(kms);
	ck_ok(cmek_kms_describe(kms, &info, &err));
	ck_assert_str_eq(info.protected_by, "passphrase");
	cmek_kms_info_done(&info);
	cmek_kms_close(kms);

	write_passphrase(path, sizeof(path), "open sesame"); /* without a newline */
	kms = open_with("local:db", &opts);
	check_round_trip(kms);
	/* Derived once per handle: with the file gone, the handle goes on. */
	ck_assert_int_eq(unlink(path), 0);
	check_round_trip(kms);
	cmek_kms_close(kms);

	kms = open_with("local:db", &opts);
	ck_fails(cmek_kms_describe(kms, &info, &err), CMEK_E_NOT_FOUND);
	write_passphrase(path, sizeof(path), "open sesamE\n");
	ck_assert_int_lt(cmek_kms_describe(kms, &info, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	ck_assert_int_eq(err.err, EKEYREJECTED);
	ck_assert_ptr_nonnull(strstr(err.text, "wrong passphrase"));
	cmek_error_clear(&err);
	write_passphrase(path, sizeof(path), "\nopen sesame\n");
	ck_fails(cmek_kms_describe(kms, &info, &err), CMEK_E_USAGE);
	cmek_kms_close(kms);

	ck_assert_int_lt(cmek_kms_describe(bare, &info, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	ck_assert_int_eq(err.err, ENOTTY);
	cmek_error_clear(&err);
	cmek_kms_close(bare);
}
END_TEST

START_TEST(passphrase_file_must_be_private)
{
	struct cmek_secret *s = NULL;
	char path[128];
	int fd;

	write_passphrase(path, sizeof(path), "open sesame\n");
	ck_assert_int_eq(chmod(path, 0640), 0);
	ck_assert_int_lt(cmek_local_file_passphrase(path, &s, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	ck_assert_int_eq(err.err, EPERM);
	cmek_error_clear(&err);

	/* systemd answers for its directory, but not for what a path out of it leads to */
	setenv("CREDENTIALS_DIRECTORY", dir_path, 1);
	ck_ok(cmek_local_file_passphrase(path, &s, &err));
	ck_assert_uint_eq(cmek_secret_len(s), 11);
	ck_assert_mem_eq(cmek_secret_bytes(s, CMEK_KEY_TEXT), "open sesame", 11);
	cmek_secret_free(s);
	setenv("CREDENTIALS_DIRECTORY", "/nowhere", 1);
	ck_fails(cmek_local_file_passphrase(path, &s, &err), CMEK_E_DENIED);
	unsetenv("CREDENTIALS_DIRECTORY");

	fd = open(path, O_RDONLY);
	snprintf(path, sizeof(path), "/dev/fd/%d", fd);
	ck_ok(cmek_local_file_passphrase(path, &s, &err));
	cmek_secret_free(s);
	close(fd);
}
END_TEST

START_TEST(passphrase_comes_through_a_pipe)
{
	struct cmek_secret *s = NULL;
	char path[32], *large = malloc(4098);
	int fd[2];

	ck_assert_int_eq(pipe(fd), 0);
	snprintf(path, sizeof(path), "/dev/fd/%d", fd[0]);
	ck_assert_int_eq(cmek_write_full(fd[1], "secret\nx", 8), 0);
	ck_ok(cmek_local_file_passphrase(path, &s, &err));
	ck_assert_mem_eq(cmek_secret_bytes(s, CMEK_KEY_TEXT), "secret", 7);
	cmek_secret_free(s);
	close(fd[0]);
	close(fd[1]);

	ck_assert_int_eq(pipe(fd), 0);
	snprintf(path, sizeof(path), "/dev/fd/%d", fd[0]);
	memset(large, 'x', 4098);
	large[4097] = '\n';
	ck_assert_int_eq(cmek_write_full(fd[1], large, 4098), 0);
	ck_fails(cmek_local_file_passphrase(path, &s, &err), CMEK_E_USAGE);
	free(large);
	close(fd[0]);
	close(fd[1]);
}
END_TEST

struct asked {
	const char *answers[4];
	unsigned n;
};

static int answer(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *e)
{
	struct asked *a = arg;
	const char *text = a->answers[a->n++];

	ck_assert_ptr_nonnull(strstr(prompt, store_path));
	ck_assert_ptr_nonnull(text);
	return cmek_secret_new_copy(CMEK_KEY_TEXT, text, strlen(text), ret_passphrase, e);
}

START_TEST(passphrase_is_asked_for)
{
	const struct cmek_kms_create how = { .passphrase = true };
	struct asked asked = { { "one", "two" }, 0 };
	struct cmek_kms_options opts = { .ask_passphrase = answer, .ask_arg = &asked };
	struct cmek_kms *kms = open_with("local:db", &opts);

	ck_fails(cmek_kms_create(kms, &how, &err), CMEK_E_USAGE); /* the two differ */
	ck_assert_int_eq(access(store_path, F_OK), -1);
	asked = (struct asked){ { "one", "one" }, 0 };
	ck_ok(cmek_kms_create(kms, &how, &err));
	ck_assert_uint_eq(asked.n, 2);
	check_round_trip(kms);
	ck_assert_uint_eq(asked.n, 2);
	cmek_kms_close(kms);
	asked = (struct asked){ { "one" }, 0 };
	kms = open_with("local:db2", &opts);
	ck_ok(cmek_kms_create(kms, &how, &err)); /* the store has a passphrase already: this one */
	check_round_trip(kms);
	ck_ok(cmek_kms_rotate(kms, NULL, &err));
	ck_assert_uint_eq(asked.n, 1);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(passphrase_is_for_new_stores)
{
	const struct cmek_kms_create how = { .passphrase = true };
	struct asked asked = { { NULL }, 0 };
	struct cmek_kms_options opts = { .ask_passphrase = answer, .ask_arg = &asked };
	struct cmek_kms *kms;

	cmek_kms_close(created("local:db"));
	kms = open_with("local:db2", &opts);
	ck_fails(cmek_kms_create(kms, &how, &err), CMEK_E_USAGE);
	cmek_kms_close(kms);
}
END_TEST

static const struct {
	const char *member;
	json_int_t value;
} scrypt_rows[] = {
	{ "n", 131071 }, { "n", 8192 }, { "n", 2097152 }, { "n", 0 },  { "n", -1 },
	{ "r", 0 },	 { "r", 9 },	{ "p", 0 },	  { "p", 5 }, { "p", INT64_MAX },
};

/* Before anything is authenticated, the parameters must not be able to keep us busy. */
START_TEST(scrypt_parameters_are_bounded)
{
	const struct cmek_kms_create how = { .passphrase = true };
	struct asked asked = { { "one", "one" }, 0 };
	struct cmek_kms_options opts = { .ask_passphrase = answer, .ask_arg = &asked };
	struct cmek_kms *kms = open_with("local:db", &opts);
	struct cmek_kms_info info;
	json_t *json;

	ck_ok(cmek_kms_create(kms, &how, &err));
	json = json_load_file(store_path, 0, NULL);
	json_object_set_new(json_object_get(json, "protection"), scrypt_rows[_i].member,
			    json_integer(scrypt_rows[_i].value));
	save(json);
	json_decref(json);
	cmek_kms_close(kms);
	kms = open_with("local:db", &opts);
	ck_fails(cmek_kms_describe(kms, &info, &err), CMEK_E_BAD_FORMAT);
	ck_assert_uint_eq(asked.n, 2); /* nobody was asked */
	cmek_kms_close(kms);
}
END_TEST

/* Several processes */

#define N_WRITERS 6
#define N_ROUNDS 8

static void writer(int who)
{
	char uri[32];

	for (int i = 0; i < N_ROUNDS; i++) {
		struct cmek_kms *shared = open_key("local:shared");
		int rc;

		snprintf(uri, sizeof(uri), "local:w%d.%d", who, i);
		cmek_kms_close(created(uri));
		/* Everyone tries; one makes it. */
		rc = cmek_kms_create(shared, NULL, &err);
		if (rc < 0 && err.kind != CMEK_E_EXISTS)
			_exit(1);
		cmek_error_clear(&err);
		ck_ok(cmek_kms_rotate(shared, NULL, &err));
		cmek_kms_close(shared);
	}
	_exit(0);
}

START_TEST(writers_lose_nothing)
{
	pid_t pids[N_WRITERS];
	struct cmek_kms *kms;
	struct cmek_kms_info *infos = NULL;
	size_t n = 0;
	int status;

	/* From nothing: the key file and the store are raced for as well. */
	for (int i = 0; i < N_WRITERS; i++) {
		pids[i] = fork();
		ck_assert_int_ge(pids[i], 0);
		if (pids[i] == 0)
			writer(i);
	}
	for (int i = 0; i < N_WRITERS; i++) {
		ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
		ck_assert_int_eq(status, 0);
	}
	kms = open_key("local:shared");
	ck_assert_uint_eq(n_versions_of(kms), 1 + N_WRITERS * N_ROUNDS);
	ck_ok(cmek_kms_list(kms, &infos, &n, &err));
	ck_assert_uint_eq(n, 1 + N_WRITERS * N_ROUNDS);
	for (size_t i = 0; i < n; i++) {
		struct cmek_kms *one = open_key(infos[i].resolved);

		check_round_trip(one);
		cmek_kms_close(one);
		cmek_kms_info_done(&infos[i]);
	}
	free(infos);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(lock_has_a_deadline)
{
	const struct cmek_kms_options opts = { .deadline_ms = 50 };
	struct cmek_kms *kms = created("local:db"), *hasty = open_with("local:db", &opts);
	int fd = -1;

	ck_ok(cmek_local_file_lock(store_path, 1000, &fd, &err));
	ck_fails(cmek_kms_rotate(hasty, NULL, &err), CMEK_E_BUSY);
	check_round_trip(hasty); /* reading needs no lock */
	close(fd);
	ck_ok(cmek_kms_rotate(hasty, NULL, &err));
	cmek_kms_close(kms);
	cmek_kms_close(hasty);
}
END_TEST

/* Crashes */

#define N_KILLS 40

/* Runs fn in a child and kills it after a random time of up to max_us. */
static void run_and_kill(void (*fn)(void), unsigned max_us)
{
	struct timespec pause = { 0, 0 };
	uint32_t random;
	int status;
	pid_t pid;

	cmek_random(&random, sizeof(random));
	pause.tv_nsec = (long)(random % max_us) * 1000;
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		fn();
		_exit(0);
	}
	nanosleep(&pause, NULL);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
}

static void rotate_for_ever(void)
{
	struct cmek_kms *kms = open_key("local:db");

	for (;;)
		ck_ok(cmek_kms_rotate(kms, NULL, &err));
}

START_TEST(killed_writers_leave_old_or_new)
{
	struct cmek_kms *kms = created("local:db");
	size_t before = 1, now;

	for (int i = 0; i < N_KILLS; i++) {
		run_and_kill(rotate_for_ever, 20000);
		now = n_versions_of(kms);
		ck_assert_uint_ge(now, before);
		before = now;
		check_round_trip(kms);
	}
	ck_assert_uint_gt(before, 1);
	cmek_kms_close(kms);
}
END_TEST

static void create_once(void)
{
	cmek_kms_close(created("local:db"));
}

START_TEST(killed_first_use_can_be_repeated)
{
	for (int i = 0; i < N_KILLS; i++) {
		struct cmek_kms *kms;

		run_and_kill(create_once, 3000);
		kms = open_key("local:db");
		if (cmek_kms_create(kms, NULL, &err) < 0)
			ck_assert_msg(err.kind == CMEK_E_EXISTS, "%s", err.text);
		cmek_error_clear(&err);
		check_round_trip(kms);
		cmek_kms_close(kms);
		(void)unlink(store_path);
		if (i % 2)
			(void)unlink(key_path);
	}
}
END_TEST

/* A crash between writing and renaming leaves a copy of the store, which must not outlive what is deleted. */
START_TEST(left_over_copies_are_removed)
{
	struct cmek_kms *kms = created("local:db");
	char ours[128], foreign[128], *text;
	size_t len = 0;

	text = read_text(store_path, &len);
	snprintf(ours, sizeof(ours), "%s/" CMEK_TEMP_PREFIX "0123456789abcdef" CMEK_TEMP_SUFFIX, dir_path);
	snprintf(foreign, sizeof(foreign), "%s/" CMEK_TEMP_PREFIX "1123456789abcdef" CMEK_TEMP_SUFFIX, dir_path);
	write_text(ours, text, len);
	text[strlen("{\n \"format\": \"cmekfs key store\",\n \"version\": 1,\n \"uuid\": \"")] ^= 1;
	write_text(foreign, text, len);
	free(text);
	ck_ok(cmek_kms_schedule_deletion(kms, 0, NULL, &err));
	ck_assert_int_eq(access(ours, F_OK), -1);
	ck_assert_int_eq(access(foreign, F_OK), 0);
	cmek_kms_close(kms);
}
END_TEST

/* Where the store is */

static const struct {
	const char *given, *env, *want; /* %s: the current directory */
} path_rows[] = {
	{ "/a/b.json", "/c/d.json", "/a/b.json" },
	{ NULL, "/c/d.json", "/c/d.json" },
	{ "x/y.json", NULL, "%s/x/y.json" },
	{ NULL, "y.json", "%s/y.json" },
};

START_TEST(path_is_found)
{
	char *path = NULL, *want = NULL, *cwd = getcwd(NULL, 0);
	bool is_default = true;

	if (path_rows[_i].env)
		setenv("CMEKFS_LOCAL_KEYSTORE", path_rows[_i].env, 1);
	else
		unsetenv("CMEKFS_LOCAL_KEYSTORE");
	ck_ok(cmek_local_file_path(path_rows[_i].given, &path, &is_default, &err));
	if (path_rows[_i].want[0] == '%')
		ck_assert_int_gt(asprintf(&want, "%s%s", cwd, path_rows[_i].want + 2), 0);
	ck_assert_str_eq(path, want ? want : path_rows[_i].want);
	ck_assert(!is_default);
	free(path);
	free(want);
	free(cwd);
}
END_TEST

START_TEST(default_paths)
{
	char *path = NULL;
	bool is_default = false;

	unsetenv("CMEKFS_LOCAL_KEYSTORE");
	setenv("HOME", "/home/x", 1);
	unsetenv("XDG_DATA_HOME");
	if (geteuid() == 0) {
		ck_ok(cmek_local_file_path(NULL, &path, &is_default, &err));
		ck_assert_str_eq(path, "/var/lib/cmekfs/keys.json");
		free(path);
		ck_assert_int_eq(seteuid(65534), 0);
	}
	ck_ok(cmek_local_file_path(NULL, &path, &is_default, &err));
	ck_assert_str_eq(path, "/home/x/.local/share/cmekfs/keys.json");
	ck_assert(is_default);
	free(path);
	setenv("XDG_DATA_HOME", "/data", 1);
	ck_ok(cmek_local_file_path("", &path, &is_default, &err));
	ck_assert_str_eq(path, "/data/cmekfs/keys.json");
	free(path);
	setenv("XDG_DATA_HOME", "relative", 1);
	unsetenv("HOME");
	ck_fails(cmek_local_file_path(NULL, &path, &is_default, &err), CMEK_E_USAGE);
	if (getuid() == 0)
		ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

START_TEST(default_directory_is_made)
{
	char path[160], dir[128];
	struct stat st;

	umask(022);
	snprintf(dir, sizeof(dir), "%s/share/cmekfs", dir_path);
	snprintf(path, sizeof(path), "%s/keys.json", dir);
	ck_ok(cmek_local_file_make_dir(path, &err));
	ck_ok(cmek_local_file_make_dir(path, &err));
	ck_assert_int_eq(stat(dir, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0700);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

static TCase *new_case(Suite *suite, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(suite, tc);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("local_store");
	TCase *tc = new_case(suite, "form");

	tcase_add_loop_test(tc, form_is_checked, 0, UNIT_ROWS(form_rows));
	tcase_add_test(tc, white_space_and_order_do_not_matter);
	tcase_add_test(tc, every_changed_byte_is_noticed);
	tcase_add_test(tc, every_truncation_is_noticed);
	tcase_add_loop_test(tc, exchanged_material_is_tampered, 0, 2);
	tc = new_case(suite, "access");
	tcase_add_loop_test(tc, open_permissions_are_refused, 0, UNIT_ROWS(bad_modes));
	tcase_add_loop_test(tc, files_are_private, 0, 2);
	tcase_add_test(tc, other_owners_are_refused);
	tcase_add_loop_test(tc, odd_files_are_refused, 0, 3);
	tcase_add_test(tc, key_file_is_never_made_anew);
	tcase_add_test(tc, wrong_key_file_is_told);
	tcase_add_test(tc, key_file_without_a_store_is_used);
	tc = new_case(suite, "passphrase");
	tcase_add_test(tc, passphrase_file_opens_the_store);
	tcase_add_test(tc, passphrase_file_must_be_private);
	tcase_add_test(tc, passphrase_comes_through_a_pipe);
	tcase_add_test(tc, passphrase_is_asked_for);
	tcase_add_test(tc, passphrase_is_for_new_stores);
	tcase_add_loop_test(tc, scrypt_parameters_are_bounded, 0, UNIT_ROWS(scrypt_rows));
	tc = new_case(suite, "processes");
	tcase_add_test(tc, writers_lose_nothing);
	tcase_add_test(tc, lock_has_a_deadline);
	tcase_add_test(tc, killed_writers_leave_old_or_new);
	tcase_add_test(tc, killed_first_use_can_be_repeated);
	tcase_add_test(tc, left_over_copies_are_removed);
	tc = new_case(suite, "place");
	tcase_add_loop_test(tc, path_is_found, 0, UNIT_ROWS(path_rows));
	tcase_add_test(tc, default_paths);
	tcase_add_test(tc, default_directory_is_made);
	return unit_run(suite);
}
