/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * From argv and the text of -o to struct cmek_mount_opts. It is the last place that sees option strings; it must not
 * know what a process, a session or a key is.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/text.h"
#include "fs/content/room.h"
#include "fs/mount/opts.h"
#include "fs/volume/volconf.h"

#define COMMIT_MAX_S 3600
#define THREADS_MAX 256
#define BYTES_MIN (UINT64_C(1) << 20)
#define BYTES_MAX (UINT64_C(1) << 40)
#define SLOT_MAX 31
#define COUNT_MIN 64

/* What an option in -o does with its value, or without one. */
enum verb {
	IGNORE,       /* belongs to mount(8), systemd or the user; no value looked at */
	KERNEL_FLAG,  /* goes to mount(2) as it is */
	ALLOW_FLAG,   /* before all of those, without its "allow_" */
	READ_ONLY,    /* n: the new state */
	WRITEBACK,    /* n */
	JOURNAL,      /* n */
	SALVAGE,      /* n */
	ALLOW_OTHER,  /* n */
	ALLOW_ROOT,   /* n */
	UNLOCKED,     /* n */
	TEXT,         /* the value replaces a string */
	SLOT,
	COMMIT,
	THREADS,
	BYTES,
	RESERVE,
	COUNT,     /* n: the most */
	WATCH_OFF, /* n */
	WATCH,     /* a key of cmek_watch_policy_set() behind "watch_" */
	AUTO_REWRAP, /* n */
};

/* needs_value: the option is `name=VALUE`; otherwise it stands alone. field: offset of what TEXT, BYTES and COUNT set. */
struct option_row {
	const char *name;
	enum verb verb;
	bool needs_value;
	int n;
	size_t field;
};

enum { ALLOW_LEN = sizeof("allow_") - 1 };
#define FIELD(f) offsetof(struct cmek_mount_opts, f)

static const struct option_row option_table[] = {
	{ "ro", READ_ONLY, false, 1, 0 },
	{ "rw", READ_ONLY, false, 0, 0 },
	{ "writeback", WRITEBACK, false, 1, 0 },
	{ "nowriteback", WRITEBACK, false, 0, 0 },
	{ "journal", JOURNAL, false, 1, 0 },
	{ "nojournal", JOURNAL, false, 0, 0 },
	{ "salvage", SALVAGE, false, 1, 0 },
	{ "allow_other", ALLOW_OTHER, false, 1, 0 },
	{ "noallow_other", ALLOW_OTHER, false, 0, 0 },
	{ "allow_root", ALLOW_ROOT, false, 1, 0 },
	{ "unlocked_memory", UNLOCKED, false, 1, 0 },
	{ "key", TEXT, true, 0, FIELD(key_uri) },
	{ "passphrase_file", TEXT, true, 0, FIELD(passphrase_file) },
	{ "keystore", TEXT, true, 0, FIELD(keystore_path) },
	{ "config", TEXT, true, 0, FIELD(config_path) },
	{ "profile", TEXT, true, 0, FIELD(profile) },
	{ "fsname", TEXT, true, 0, FIELD(fsname) },
	{ "slot", SLOT, true, 0, 0 },
	{ "commit", COMMIT, true, 0, 0 },
	{ "max_threads", THREADS, true, 0, 0 },
	{ "held_max", BYTES, true, 0, FIELD(held_max_bytes) },
	{ "map_cache", BYTES, true, 0, FIELD(map_cache_bytes) },
	{ "fd_cache", COUNT, true, 1 << 20, FIELD(fd_cache) },
	{ "key_cache", COUNT, true, 1 << 16, FIELD(key_cache) },
	{ "journal_size", BYTES, true, 0, FIELD(journal_bytes) },
	{ "reserve", RESERVE, true, 0, 0 },

	{ "watch", WATCH_OFF, false, 0, 0 },
	{ "nowatch", WATCH_OFF, false, 1, 0 },
	{ "watch_interval", WATCH, true, 0, 0 },
	{ "watch_retry", WATCH, true, 0, 0 },
	{ "watch_grace", WATCH, true, 0, 0 },
	{ "watch_on_throttled", WATCH, true, 0, 0 },
	{ "watch_on_unreachable", WATCH, true, 0, 0 },
	{ "watch_on_expired", WATCH, true, 0, 0 },
	{ "watch_on_denied", WATCH, true, 0, 0 },
	{ "watch_on_disabled", WATCH, true, 0, 0 },
	{ "watch_on_pending_deletion", WATCH, true, 0, 0 },
	{ "watch_on_destroyed", WATCH, true, 0, 0 },
	{ "auto_rewrap", AUTO_REWRAP, false, 1, 0 },
	{ "noauto_rewrap", AUTO_REWRAP, false, 0, 0 },

	{ "suid", KERNEL_FLAG, false, 0, 0 },
	{ "nosuid", KERNEL_FLAG, false, 0, 0 },
	{ "dev", KERNEL_FLAG, false, 0, 0 },
	{ "nodev", KERNEL_FLAG, false, 0, 0 },
	/* mount(8) passes on neither "suid" nor "dev", and "nosuid" in front of what it does not know: that is to count. */
	{ "allow_suid", ALLOW_FLAG, false, 0, 0 },
	{ "allow_dev", ALLOW_FLAG, false, 0, 0 },
	{ "exec", KERNEL_FLAG, false, 0, 0 },
	{ "noexec", KERNEL_FLAG, false, 0, 0 },
	{ "sync", KERNEL_FLAG, false, 0, 0 },
	{ "async", KERNEL_FLAG, false, 0, 0 },
	{ "dirsync", KERNEL_FLAG, false, 0, 0 },
	{ "atime", KERNEL_FLAG, false, 0, 0 },
	{ "noatime", KERNEL_FLAG, false, 0, 0 },

	/* A mount of ours never moves access times, so these hold already. */
	{ "relatime", IGNORE, false, 0, 0 },
	{ "norelatime", IGNORE, false, 0, 0 },
	{ "diratime", IGNORE, false, 0, 0 },
	{ "nodiratime", IGNORE, false, 0, 0 },
	{ "lazytime", IGNORE, false, 0, 0 },
	{ "nolazytime", IGNORE, false, 0, 0 },
	/* For mount(8), systemd and fstab readers. */
	{ "defaults", IGNORE, false, 0, 0 },
	{ "auto", IGNORE, false, 0, 0 },
	{ "noauto", IGNORE, false, 0, 0 },
	{ "nofail", IGNORE, false, 0, 0 },
	{ "_netdev", IGNORE, false, 0, 0 },
	{ "user", IGNORE, false, 0, 0 },
	{ "nouser", IGNORE, false, 0, 0 },
	{ "users", IGNORE, false, 0, 0 },
	{ "owner", IGNORE, false, 0, 0 },
	{ "group", IGNORE, false, 0, 0 },
	{ "user", IGNORE, true, 0, 0 },
	{ "comment", IGNORE, true, 0, 0 },
	{ "uhelper", IGNORE, true, 0, 0 },
};

static const char usage_text[] =
	"Usage: cmekfs STORE MOUNTPOINT [-f] [-d] [-o OPTION,...]\n"
	"Mounts the encrypted volume in the directory STORE on MOUNTPOINT.\n"
	"\n"
	"  -f, --foreground   stay in the foreground, log to standard error\n"
	"  -d, --debug        log more (never names, contents or keys)\n"
	"  -o OPTION,...      mount options, see cmekfs(8):\n"
	"       ro, rw                  read-only, read-write (default)\n"
	"       key=URI, slot=N         open with this key, this key slot only\n"
	"       passphrase_file=FILE    the local key store's passphrase\n"
	"       keystore=FILE, config=FILE, profile=NAME\n"
	"       allow_other, noallow_other, allow_root\n"
	"       commit=SECONDS, held_max=SIZE, map_cache=SIZE, max_threads=N\n"
	"       fd_cache=N, key_cache=N descriptors and content keys kept\n"
	"       nowatch, watch_interval=TIME, watch_grace=TIME, watch_on_STATE=ACTION, ...\n"
	"       auto_rewrap             wrap key slots under newer versions of their keys\n"
	"       nojournal, journal_size=SIZE, salvage, nowriteback, unlocked_memory\n"
	"       reserve=SIZE            room kept for data that was taken already\n"
	"       fsname=NAME\n"
	"       suid, nosuid, dev, nodev, exec, noexec, sync, dirsync, noatime\n"
	"       allow_suid, allow_dev   suid and dev through mount(8), which keeps those to itself\n"
	"  -h, --help         show this text\n"
	"  -V, --version      show the version\n";

const char *cmek_mount_opts_usage(void)
{
	return usage_text;
}

static int replace_text(char **field, const char *value, struct cmek_error *err)
{
	char *copy = strdup(value);

	if (!copy)
		return cmek_error_sys(err, ENOMEM, "reading the options");
	free(*field);
	*field = copy;
	return 0;
}

/* The last one counts where two contradict each other. */
static int add_flag(char **flags, const char *flag, bool in_front, struct cmek_error *err)
{
	const char *first = in_front ? flag : *flags, *second = in_front ? *flags : flag;
	char *joined = NULL;

	if (asprintf(&joined, "%s%s%s", first, **flags ? "," : "", second) < 0)
		return cmek_error_sys(err, ENOMEM, "reading the options");
	free(*flags);
	*flags = joined;
	return 0;
}

static int bad_value(const struct option_row *row, const char *value, const char *expected, struct cmek_error *err)
{
	return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "mount option %s=%s: expected %s", row->name, value, expected);
}

/* A number from text of whole seconds; 0 would mean "default" further on, so it is refused. */
static int set_commit(struct cmek_mount_opts *opts, const struct option_row *row, const char *value,
		      struct cmek_error *err)
{
	uint64_t s;

	if (cmek_parse_duration(value, &s) != 0 || s < 1 || s > COMMIT_MAX_S)
		return bad_value(row, value, "1 to 3600 seconds", err);
	opts->commit_ms = (unsigned)s * 1000;
	return 0;
}

static const char auto_rewrap_key[] = "auto_rewrap";

/* Checked and kept, to be applied again behind the configuration, which is read later. */
static int give_watch(struct cmek_mount_opts *opts, const char *key, const char *value, struct cmek_error *err)
{
	int rc = cmek_watch_policy_set(&opts->watch, key, value, err);
	size_t i = 0;

	if (rc != 0)
		return rc;
	while (opts->watch_given[i].key && opts->watch_given[i].key != key)
		i++;
	opts->watch_given[i].key = key;
	return replace_text(&opts->watch_given[i].value, value, err);
}

static int apply_row(struct cmek_mount_opts *opts, const struct option_row *row, const char *value,
		     struct cmek_error *err)
{
	unsigned count;
	uint64_t n;

	switch (row->verb) {
	case IGNORE:
		return 0;
	case KERNEL_FLAG:
		return add_flag(&opts->kernel_flags, row->name, false, err);
	case ALLOW_FLAG:
		return add_flag(&opts->kernel_flags, row->name + ALLOW_LEN, true, err);
	case READ_ONLY:
		opts->read_only = row->n;
		return 0;
	case WRITEBACK:
		opts->writeback = row->n;
		return 0;
	case JOURNAL:
		opts->journal = row->n;
		return 0;
	case SALVAGE:
		opts->salvage = row->n;
		return 0;
	case ALLOW_OTHER:
		opts->allow_other = row->n;
		return 0;
	case ALLOW_ROOT:
		opts->allow_root = row->n;
		return 0;
	case UNLOCKED:
		opts->unlocked_memory = row->n;
		return 0;
	case TEXT:
		if (*value == '\0')
			return bad_value(row, value, "a value that is not empty", err);
		return replace_text((char **)((char *)opts + row->field), value, err);
	case SLOT:
		if (cmek_parse_u64(value, SLOT_MAX, &n) != 0)
			return bad_value(row, value, "a slot number, 0 to 31", err);
		opts->slot = (int)n;
		return 0;
	case COMMIT:
		return set_commit(opts, row, value, err);
	case THREADS:
		if (cmek_parse_u64(value, THREADS_MAX, &n) != 0 || n < 1)
			return bad_value(row, value, "1 to 256", err);
		opts->max_threads = (unsigned)n;
		return 0;
	case BYTES:
		if (cmek_parse_size(value, BYTES_MAX, &n) != 0 || n < BYTES_MIN)
			return bad_value(row, value, "a size from 1M on, as in 64M", err);
		memcpy((char *)opts + row->field, &n, sizeof(n));
		return 0;
	case RESERVE: /* none is a size, too */
		if (cmek_parse_size(value, BYTES_MAX, &n) != 0 || (n > 0 && n < BYTES_MIN))
			return bad_value(row, value, "0, or a size from 1M on, as in 64M", err);
		opts->reserve_bytes = n;
		return 0;
	case COUNT:
		if (cmek_parse_u64(value, (uint64_t)row->n, &n) != 0 || n < COUNT_MIN)
			return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "mount option %s=%s: expected %d to %d", row->name, value,
					      COUNT_MIN, row->n);
		count = (unsigned)n;
		memcpy((char *)opts + row->field, &count, sizeof(count));
		return 0;
	case WATCH_OFF:
		opts->watch.off = row->n;
		return 0;
	case WATCH:
		return give_watch(opts, row->name + strlen("watch_"), value, err);
	case AUTO_REWRAP:
		return give_watch(opts, auto_rewrap_key, row->n ? "yes" : "no", err);
	}
	return 0;
}

/* text: one option, `name` or `name=value`; it is cut at the equals sign. */
static int apply_option(struct cmek_mount_opts *opts, char *text, struct cmek_error *err)
{
	const struct option_row *other_form = NULL;
	char *value = strchr(text, '=');
	size_t i;

	if (*text == '\0' || strncmp(text, "x-", 2) == 0 || strncmp(text, "X-", 2) == 0)
		return 0;
	if (value)
		*value++ = '\0';
	for (i = 0; i < sizeof(option_table) / sizeof(option_table[0]); i++) {
		const struct option_row *row = &option_table[i];

		if (strcmp(row->name, text) != 0)
			continue;
		if (row->needs_value == (value != NULL))
			return apply_row(opts, row, value, err);
		other_form = row;
	}
	if (other_form)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "mount option \"%s\" %s", text,
				      other_form->needs_value ? "needs a value" : "takes no value");
	/* mount(8) passes it on with all the other options of the mount, and would take success for a changed mount. */
	if (!strcmp(text, "remount"))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "a mount can't be changed by a remount: unmount it, and mount "
				      "it with the new options");
	return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "unknown mount option \"%s\"", text);
}

/* Options are separated by commas; a backslash takes the next character as it is. */
static int apply_option_list(struct cmek_mount_opts *opts, const char *list, struct cmek_error *err)
{
	char *item = malloc(strlen(list) + 1);
	size_t n = 0;
	int rc = 0;

	if (!item)
		return cmek_error_sys(err, ENOMEM, "reading the options");
	for (;; list++) {
		if (*list == '\0' || *list == ',') {
			item[n] = '\0';
			n = 0;
			rc = apply_option(opts, item, err);
			if (rc != 0 || *list == '\0')
				break;
			continue;
		}
		if (*list == '\\' && list[1] != '\0')
			list++;
		item[n++] = *list;
	}
	free(item);
	return rc;
}

static bool is_mount_helper(const char *argv0)
{
	const char *slash = strrchr(argv0, '/');

	return strncmp(slash ? slash + 1 : argv0, "mount.", 6) == 0;
}

/* One letter of `cmekfs`; -EAGAIN asks to look at the letters of both forms. */
static int apply_own_letter(struct cmek_mount_opts *opts, int letter)
{
	switch (letter) {
	case 'f':
		opts->foreground = true;
		return 0;
	case 'd':
		opts->log_level = CMEK_LOG_DEBUG;
		return 0;
	case 'h':
		opts->action = CMEK_MOUNT_HELP;
		return 0;
	case 'V':
		opts->action = CMEK_MOUNT_VERSION;
		return 0;
	default:
		return -EAGAIN;
	}
}

/* One letter of the helper. Sloppiness (-s) is not for options that decide who reads the data: it changes nothing. */
static int apply_helper_letter(struct cmek_mount_opts *opts, int letter)
{
	switch (letter) {
	case 'f':
		opts->action = CMEK_MOUNT_FAKE;
		return 0;
	case 's':
	case 'n':
	case 'N':
	case 't':
	case 'v':
		return 0;
	default:
		return -EAGAIN;
	}
}

static int parse_letters(struct cmek_mount_opts *opts, int argc, char **argv, struct cmek_error *err)
{
	static const struct option long_options[] = {
		{ "foreground", no_argument, NULL, 'f' },
		{ "debug", no_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	static const struct option no_long_options[] = { { NULL, 0, NULL, 0 } };
	bool helper = is_mount_helper(argv[0]);
	int letter, rc;

	optind = 0;
	opterr = 0;
	while ((letter = getopt_long(argc, argv, helper ? ":sfnvN:t:o:" : ":fdhVo:",
				     helper ? no_long_options : long_options, NULL)) != -1) {
		if (letter == 'o') {
			rc = apply_option_list(opts, optarg, err);
			if (rc != 0)
				return rc;
			continue;
		}
		if (letter == ':')
			return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "option -%c needs a value", optopt);
		rc = helper ? apply_helper_letter(opts, letter) : apply_own_letter(opts, letter);
		if (rc == 0)
			continue;
		if (optopt != 0)
			return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "unknown option -%c", optopt);
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "unknown option %s", argv[optind - 1]);
	}
	return 0;
}

int cmek_mount_opts_parse(int argc, char **argv, bool is_root, struct cmek_mount_opts **ret_opts,
			  struct cmek_error *err)
{
	struct cmek_mount_opts *opts = calloc(1, sizeof(*opts));
	int rc;

	if (!opts)
		return cmek_error_sys(err, ENOMEM, "reading the options");
	opts->slot = -1;
	opts->writeback = true;
	opts->journal = true;
	opts->reserve_bytes = CMEK_ROOM_BY_STORE;
	opts->allow_other = is_root;
	opts->log_level = CMEK_LOG_INFO;
	cmek_watch_policy_init(&opts->watch);
	rc = replace_text(&opts->kernel_flags, "", err);
	if (rc == 0)
		rc = parse_letters(opts, argc, argv, err);
	if (rc != 0 || opts->action == CMEK_MOUNT_HELP || opts->action == CMEK_MOUNT_VERSION)
		goto out;
	if (argc - optind != 2) {
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "expected STORE and MOUNTPOINT, got %d argument%s",
				    argc - optind, argc - optind == 1 ? "" : "s");
		goto out;
	}
	if (opts->allow_root)
		opts->allow_other = false;
	rc = replace_text(&opts->store, argv[optind], err);
	if (rc == 0)
		rc = replace_text(&opts->mountpoint, argv[optind + 1], err);
out:
	if (rc == 0)
		*ret_opts = opts;
	else
		cmek_mount_opts_free(opts);
	return rc;
}

/* What the configuration says of the watch, and over it what -o says. */
static int configure_watch(struct cmek_mount_opts *opts, const struct cmek_conf *conf, struct cmek_error *err)
{
	static const char *const keys[] = { "interval", "retry", "grace", auto_rewrap_key, "on_throttled", "on_unreachable",
					    "on_expired", "on_denied", "on_disabled", "on_pending_deletion", "on_destroyed" };
	const char *value, *name;
	int rc = 0;
	size_t i;

	for (i = 0; rc == 0 && i < sizeof(keys) / sizeof(keys[0]); i++) {
		value = cmek_conf_text(conf, "watch", NULL, keys[i]);
		if (value)
			rc = cmek_watch_policy_set(&opts->watch, keys[i], value, err);
	}
	name = cmek_volconf_name(conf, opts->store);
	if (name)
		(void)cmek_conf_bool(conf, "volume", name, auto_rewrap_key, &opts->watch.auto_rewrap); /* else it stays */
	for (i = 0; rc == 0 && i < sizeof(opts->watch_given) / sizeof(opts->watch_given[0]); i++) {
		if (opts->watch_given[i].key)
			rc = cmek_watch_policy_set(&opts->watch, opts->watch_given[i].key, opts->watch_given[i].value, err);
	}
	return rc;
}

int cmek_mount_opts_configure(struct cmek_mount_opts *opts, struct cmek_error *err)
{
	struct cmek_conf *conf = NULL;
	const char *name, *key, *profile;
	int rc = cmek_conf_load(opts->config_path, &conf, err);

	if (rc != 0)
		return rc;
	rc = configure_watch(opts, conf, err);
	name = cmek_volconf_name(conf, opts->store);
	if (rc == 0 && name) {
		key = cmek_conf_text(conf, "volume", name, "key");
		profile = cmek_conf_text(conf, "volume", name, "profile");
		if (key && !opts->key_uri)
			rc = replace_text(&opts->key_uri, key, err);
		if (rc == 0 && profile && !opts->profile)
			rc = replace_text(&opts->profile, profile, err);
		if (rc == 0)
			rc = replace_text(&opts->store, cmek_conf_text(conf, "volume", name, "store"), err);
	}
	cmek_conf_free(conf);
	return rc;
}

/* The directory's real path. role: what it is, for the message. */
static int resolve_directory(char **path, const char *role, struct cmek_error *err)
{
	char *real = realpath(*path, NULL);
	struct stat st;
	int rc = 0;

	if (!real && errno == ENOENT)
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "%s %s: no such directory", role, *path);
	if (!real || stat(real, &st) != 0)
		rc = cmek_error_sys(err, errno, "%s %s", role, *path);
	else if (!S_ISDIR(st.st_mode))
		rc = cmek_error_set(err, CMEK_E_USAGE, ENOTDIR, "%s %s: not a directory", role, *path);
	if (rc != 0) {
		free(real);
		return rc;
	}
	free(*path);
	*path = real;
	return 0;
}

/* Prepends the working directory, which the processes leave; whether the file exists is its reader's business. */
static int make_absolute(char **path, struct cmek_error *err)
{
	char *cwd, *joined = NULL;
	int rc = 0;

	if (!*path || **path == '/')
		return 0;
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return cmek_error_sys(err, errno, "the working directory");
	if (asprintf(&joined, "%s/%s", cwd, *path) < 0)
		rc = cmek_error_sys(err, ENOMEM, "reading the options");
	free(cwd);
	if (rc == 0) {
		free(*path);
		*path = joined;
	}
	return rc;
}

/* True when path is dir or below it; both are real paths. */
static bool is_within(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	if (strcmp(dir, "/") == 0)
		return true;
	return strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

int cmek_mount_opts_resolve(struct cmek_mount_opts *opts, struct cmek_error *err)
{
	int rc = resolve_directory(&opts->store, "store", err);

	if (rc == 0)
		rc = resolve_directory(&opts->mountpoint, "mount point", err);
	if (rc == 0)
		rc = make_absolute(&opts->passphrase_file, err);
	if (rc == 0)
		rc = make_absolute(&opts->keystore_path, err);
	if (rc == 0)
		rc = make_absolute(&opts->config_path, err);
	if (rc == 0 && is_within(opts->mountpoint, opts->store))
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "mount point %s: is in the store %s", opts->mountpoint,
				    opts->store);
	return rc;
}

void cmek_mount_opts_free(struct cmek_mount_opts *opts)
{
	size_t i;

	if (!opts)
		return;
	free(opts->store);
	free(opts->mountpoint);
	free(opts->fsname);
	free(opts->kernel_flags);
	free(opts->key_uri);
	free(opts->passphrase_file);
	free(opts->keystore_path);
	free(opts->config_path);
	free(opts->profile);
	for (i = 0; i < sizeof(opts->watch_given) / sizeof(opts->watch_given[0]); i++)
		free(opts->watch_given[i].value);
	free(opts);
}
