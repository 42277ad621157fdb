/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Command lines of the mount program: one row each, what they mean or why they are refused. */
#include "config.h"

#include <sys/stat.h>

#include "fs/mount/opts.h"
#include "tests/unit/unit.h"

#define ARGS_MAX 10

static int parse(const char *const *args, bool is_root, struct cmek_mount_opts **ret, struct cmek_error *err)
{
	char *argv[ARGS_MAX + 1] = { NULL };
	int argc = 0, rc, i;

	while (args[argc]) {
		argv[argc] = strdup(args[argc]);
		argc++;
	}
	rc = cmek_mount_opts_parse(argc, argv, is_root, ret, err);
	/* getopt may have put them into another order, none is lost. */
	for (i = 0; i < argc; i++)
		free(argv[i]);
	return rc;
}

/* Refused command lines, and a piece of the reason. */
static const struct {
	const char *args[ARGS_MAX];
	const char *says;
} refused[] = {
	{ { "cmekfs" }, "got 0 arguments" },
	{ { "cmekfs", "/s" }, "got 1 argument" },
	{ { "cmekfs", "/s", "/m", "/x" }, "got 3 arguments" },
	{ { "cmekfs", "-z", "/s", "/m" }, "-z" },
	{ { "cmekfs", "--frobnicate", "/s", "/m" }, "--frobnicate" },
	{ { "cmekfs", "/s", "/m", "-o" }, "-o needs a value" },
	{ { "cmekfs", "/s", "/m", "-o", "frob" }, "\"frob\"" },
	{ { "cmekfs", "/s", "/m", "-o", "ro,frob=1,rw" }, "\"frob\"" },
	{ { "cmekfs", "/s", "/m", "-o", "ro=1" }, "\"ro\" takes no value" },
	{ { "cmekfs", "/s", "/m", "-o", "key" }, "\"key\" needs a value" },
	{ { "cmekfs", "/s", "/m", "-o", "key=" }, "not empty" },
	{ { "cmekfs", "/s", "/m", "-o", "slot=32" }, "slot=32" },
	{ { "cmekfs", "/s", "/m", "-o", "slot=-1" }, "slot=-1" },
	{ { "cmekfs", "/s", "/m", "-o", "slot=" }, "slot=" },
	{ { "cmekfs", "/s", "/m", "-o", "commit=0" }, "commit=0" },
	{ { "cmekfs", "/s", "/m", "-o", "commit=2h" }, "commit=2h" },
	{ { "cmekfs", "/s", "/m", "-o", "commit=5x" }, "commit=5x" },
	{ { "cmekfs", "/s", "/m", "-o", "max_threads=0" }, "max_threads=0" },
	{ { "cmekfs", "/s", "/m", "-o", "max_threads=257" }, "max_threads=257" },
	{ { "cmekfs", "/s", "/m", "-o", "held_max=1" }, "held_max=1" },
	{ { "cmekfs", "/s", "/m", "-o", "held_max=2T" }, "held_max=2T" },
	{ { "cmekfs", "/s", "/m", "-o", "map_cache=many" }, "map_cache=many" },
	{ { "cmekfs", "/s", "/m", "-o", "fd_cache=63" }, "fd_cache=63: expected 64 to 1048576" },
	{ { "cmekfs", "/s", "/m", "-o", "fd_cache=1M" }, "fd_cache=1M" },
	{ { "cmekfs", "/s", "/m", "-o", "key_cache=65537" }, "key_cache=65537: expected 64 to 65536" },
	{ { "cmekfs", "/s", "/m", "-o", "RO" }, "\"RO\"" },
	{ { "mount.cmekfs", "-d", "/s", "/m" }, "-d" },
	{ { "mount.cmekfs", "--help" }, "--help" },
	{ { "mount.cmekfs", "-s", "/s", "/m", "-o", "frob" }, "\"frob\"" },
};

START_TEST(refuses)
{
	struct cmek_mount_opts *opts = NULL;
	struct cmek_error err = CMEK_ERROR_INIT;

	ck_assert_int_eq(parse(refused[_i].args, true, &opts, &err), -EINVAL);
	ck_assert_ptr_null(opts);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
	ck_assert_msg(strstr(err.text, refused[_i].says) != NULL, "\"%s\" lacks \"%s\"", err.text, refused[_i].says);
}
END_TEST

#define ROOT true
#define USER false

/* Accepted ones, in the words of describe(). */
static const struct {
	bool is_root;
	const char *args[ARGS_MAX];
	const char *means;
} accepted[] = {
	{ ROOT, { "cmekfs", "/s", "/m" }, "rw wb other" },
	{ USER, { "cmekfs", "/s", "/m" }, "rw wb" },
	{ USER, { "cmekfs", "-f", "/s", "-d", "/m" }, "rw wb fg debug" },
	{ USER, { "cmekfs", "--foreground", "--debug", "/s", "/m" }, "rw wb fg debug" },
	{ USER, { "cmekfs", "-ofsname=x,ro", "/s", "/m" }, "ro wb fsname=x" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "ro,rw" }, "rw wb" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "rw", "-o", "ro" }, "ro wb" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "nowriteback" }, "rw" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "allow_other" }, "rw wb other" },
	{ ROOT, { "cmekfs", "/s", "/m", "-o", "noallow_other" }, "rw wb" },
	{ ROOT, { "cmekfs", "/s", "/m", "-o", "allow_root" }, "rw wb root" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "unlocked_memory" }, "rw wb unlocked" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "nosuid,noatime,nosuid,dev" }, "rw wb kernel=nosuid,noatime,nosuid,dev" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "allow_suid" }, "rw wb kernel=suid" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "nosuid,nodev,allow_suid,allow_dev" }, "rw wb kernel=dev,suid,nosuid,nodev" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "allow_dev,nodev" }, "rw wb kernel=dev,nodev" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "key=local:db,slot=31" }, "rw wb key=local:db slot=31" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "slot=0" }, "rw wb slot=0" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "key=a\\,b\\\\c" }, "rw wb key=a,b\\c" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "key=a=b" }, "rw wb key=a=b" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "commit=30,held_max=64M,map_cache=1G,max_threads=4" },
	  "rw wb commit=30000 held=67108864 map=1073741824 threads=4" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "fd_cache=64,key_cache=65536" }, "rw wb fds=64 keys=65536" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "commit=1m" }, "rw wb commit=60000" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "nojournal" }, "rw wb nojournal" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "nojournal,journal,journal_size=128M" }, "rw wb journal=134217728" },
	{ USER, { "cmekfs", "/s", "/m", "-o", ",,_netdev,nofail,auto,noauto,user,users,defaults,x-systemd.automount," },
	  "rw wb" },
	{ USER, { "cmekfs", "/s", "/m", "-o", "x-gvfs-name=a,X-mount.mkdir,comment=hello,user=me,relatime" }, "rw wb" },
	{ USER, { "cmekfs", "--", "/s", "/m" }, "rw wb" },
	{ ROOT, { "mount.cmekfs", "/s", "/m", "-o", "rw,key=local:a" }, "rw wb other key=local:a" },
	{ ROOT, { "/sbin/mount.cmekfs", "/s", "/m", "-sfnv", "-o", "ro" }, "ro wb other fake" },
	{ ROOT, { "mount.fuse.cmekfs", "/s", "/m", "-N", "7", "-t", "fuse.cmekfs" }, "rw wb other" },
};

static void add(char *text, const char *fmt, const char *value)
{
	size_t n = strlen(text);

	snprintf(text + n, 512 - n, fmt, value);
}

static void add_number(char *text, const char *name, uint64_t value, bool is_set)
{
	size_t n = strlen(text);

	if (is_set)
		snprintf(text + n, 512 - n, " %s=%llu", name, (unsigned long long)value);
}

static void describe(const struct cmek_mount_opts *o, char text[512])
{
	strcpy(text, o->read_only ? "ro" : "rw");
	add(text, "%s", o->writeback ? " wb" : "");
	add(text, "%s", o->allow_other ? " other" : "");
	add(text, "%s", o->allow_root ? " root" : "");
	add(text, "%s", o->foreground ? " fg" : "");
	add(text, "%s", o->log_level == CMEK_LOG_DEBUG ? " debug" : "");
	add(text, "%s", o->unlocked_memory ? " unlocked" : "");
	add(text, "%s", o->action == CMEK_MOUNT_FAKE ? " fake" : "");
	if (*o->kernel_flags)
		add(text, " kernel=%s", o->kernel_flags);
	if (o->key_uri)
		add(text, " key=%s", o->key_uri);
	add_number(text, "slot", (uint64_t)o->slot, o->slot >= 0);
	if (o->fsname)
		add(text, " fsname=%s", o->fsname);
	add_number(text, "commit", o->commit_ms, o->commit_ms);
	add_number(text, "held", o->held_max_bytes, o->held_max_bytes);
	add(text, "%s", o->journal ? "" : " nojournal");
	add_number(text, "journal", o->journal_bytes, o->journal_bytes);
	add_number(text, "map", o->map_cache_bytes, o->map_cache_bytes);
	add_number(text, "fds", o->fd_cache, o->fd_cache);
	add_number(text, "keys", o->key_cache, o->key_cache);
	add_number(text, "threads", o->max_threads, o->max_threads);
}

START_TEST(accepts)
{
	struct cmek_mount_opts *opts = NULL;
	struct cmek_error err = CMEK_ERROR_INIT;
	char text[512];

	ck_assert_msg(parse(accepted[_i].args, accepted[_i].is_root, &opts, &err) == 0, "%s", err.text);
	ck_assert_str_eq(opts->store, "/s");
	ck_assert_str_eq(opts->mountpoint, "/m");
	describe(opts, text);
	ck_assert_str_eq(text, accepted[_i].means);
	cmek_mount_opts_free(opts);
}
END_TEST

START_TEST(help_and_version_need_no_operands)
{
	static const char *const help[] = { "cmekfs", "--help", NULL }, *const version[] = { "cmekfs", "-V", NULL };
	struct cmek_mount_opts *opts = NULL;

	ck_assert_int_eq(parse(help, false, &opts, NULL), 0);
	ck_assert_int_eq(opts->action, CMEK_MOUNT_HELP);
	cmek_mount_opts_free(opts);
	ck_assert_int_eq(parse(version, false, &opts, NULL), 0);
	ck_assert_int_eq(opts->action, CMEK_MOUNT_VERSION);
	cmek_mount_opts_free(opts);
	ck_assert_ptr_nonnull(strstr(cmek_mount_opts_usage(), "MOUNTPOINT"));
}
END_TEST

/* Paths under a directory of the test's own: %s/store, %s/store/in, %s/mnt, %s/storefile, %s/store2. */
static const struct {
	const char *store, *mountpoint;
	enum cmek_kind kind;
} places[] = {
	{ "store", "mnt", CMEK_E_NONE },
	{ "store", "store2", CMEK_E_NONE }, /* the name begins alike, it is no part of it */
	{ "store", ".", CMEK_E_NONE },
	{ "link", "mnt", CMEK_E_NONE },
	{ "store", "store", CMEK_E_USAGE },
	{ "store", "store/in", CMEK_E_USAGE },
	{ "link", "store/in", CMEK_E_USAGE },
	{ "gone", "mnt", CMEK_E_NOT_FOUND },
	{ "store", "gone", CMEK_E_NOT_FOUND },
	{ "file", "mnt", CMEK_E_USAGE },
	{ "store", "file", CMEK_E_USAGE },
};

START_TEST(resolves_places)
{
	static const char *const args[] = { "cmekfs", "x", "y", "-o", "passphrase_file=p,keystore=/k", NULL };
	char *dir = unit_tmpdir(), real[4096], joined[4200];
	struct cmek_mount_opts *opts = NULL;
	struct cmek_error err = CMEK_ERROR_INIT;

	ck_assert_int_eq(chdir(dir), 0);
	ck_assert_ptr_nonnull(getcwd(real, sizeof(real)));
	ck_assert_int_eq(mkdir("store", 0700) | mkdir("store/in", 0700) | mkdir("mnt", 0700) | mkdir("store2", 0700), 0);
	ck_assert_int_eq(symlink("store", "link") | mknod("file", S_IFREG | 0600, 0), 0);

	ck_assert_int_eq(parse(args, false, &opts, &err), 0);
	free(opts->store);
	free(opts->mountpoint);
	opts->store = strdup(places[_i].store);
	opts->mountpoint = strdup(places[_i].mountpoint);
	(void)cmek_mount_opts_resolve(opts, &err);
	ck_assert_msg(err.kind == places[_i].kind, "kind %d: %s", err.kind, err.text);
	if (err.kind == CMEK_E_NONE) {
		snprintf(joined, sizeof(joined), "%s/store", real);
		ck_assert_str_eq(opts->store, joined);
		ck_assert_int_eq(opts->mountpoint[0], '/');
		snprintf(joined, sizeof(joined), "%s/p", real);
		ck_assert_str_eq(opts->passphrase_file, joined);
		ck_assert_str_eq(opts->keystore_path, "/k");
	}
	cmek_mount_opts_free(opts);
	ck_assert_int_eq(chdir("/"), 0);
	unit_rmtree(dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("opts");
	TCase *tc = tcase_create("opts");

	tcase_add_loop_test(tc, refuses, 0, UNIT_ROWS(refused));
	tcase_add_loop_test(tc, accepts, 0, UNIT_ROWS(accepted));
	tcase_add_test(tc, help_and_version_need_no_operands);
	tcase_add_loop_test(tc, resolves_places, 0, UNIT_ROWS(places));
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
