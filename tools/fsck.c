/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fsck.cmekfs: checks a volume, and repairs what is safe. The driver: options, the order of the passes, the summary. What
 * is checked is in the passes, what is said of it in the table of fsck_problem.c.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/text.h"
#include "tools/fsck.h"

/* fsck(8) */
#define EXIT_LEFT 4
#define EXIT_OPERATIONAL 8
#define EXIT_USAGE 16

enum { OPT_DATA = 256, OPT_NO_KEY, OPT_PASSPHRASE_FILE, OPT_KEYSTORE, OPT_CONFIG, OPT_PROFILE };

static int exit_code(enum cmek_kind kind)
{
	switch (kind) {
	case CMEK_E_USAGE:
		return EXIT_USAGE;
	case CMEK_E_BAD_FORMAT:
	case CMEK_E_TAMPERED:
		return EXIT_LEFT;
	default:
		return EXIT_OPERATIONAL;
	}
}

static void parse(struct cmek_fsck *fsck, const char **ret_store, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ 'n', "no", NULL, "change nothing; the default" },
		{ 'p', "preen", NULL, "repair what loses nothing" },
		{ 'a', "auto", NULL, "the same as --preen" },
		{ 'y', "yes", NULL, "also move to .cmekfs/lost what can't be read" },
		{ 'f', "force", NULL, "no effect: every check is a whole one" },
		{ OPT_DATA, "data", NULL, "also authenticate every block of every file" },
		{ 'j', "jobs", "N", "threads that do so [the number of processors]" },
		{ OPT_NO_KEY, "no-key", NULL, "check only what can be checked without a key" },
		{ OPT_PASSPHRASE_FILE, "passphrase-file", "FILE", "read the passphrase of a local key store from FILE" },
		{ OPT_KEYSTORE, "keystore", "FILE", "the local key store" },
		{ OPT_CONFIG, "config", "FILE", "the configuration [/etc/cmekfs/cmekfs.conf]" },
		CMEK_TOOL_PROFILE_OPTION(OPT_PROFILE),
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[-n | -p | -y] [--data] [options] STORE",
		.about = "Checks the volume in the directory STORE, which must not be mounted, and repairs what is safe.",
		.options = options, .min_operands = 1, .max_operands = 1,
	};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct cmek_tool_args args;
	unsigned modes = 0;
	int id;

	fsck->jobs = cpus > 0 && cpus < 64 ? (unsigned)cpus : 1;
	cmek_tool_args_init(&args, fsck->tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args))) {
		switch (id) {
		case 'n':
			modes |= 1u << CMEK_FSCK_NO;
			break;
		case 'p':
		case 'a':
			modes |= 1u << CMEK_FSCK_PREEN;
			fsck->findings.mode = CMEK_FSCK_PREEN;
			break;
		case 'y':
			modes |= 1u << CMEK_FSCK_YES;
			fsck->findings.mode = CMEK_FSCK_YES;
			break;
		case OPT_DATA:
			fsck->data = true;
			break;
		case 'j':
			fsck->jobs = (unsigned)cmek_tool_number(&args, 1, 64);
			break;
		case OPT_NO_KEY:
			fsck->no_key = true;
			break;
		case OPT_PASSPHRASE_FILE:
			fsck->kms.passphrase_file = args.value;
			break;
		case OPT_KEYSTORE:
			fsck->kms.keystore_path = args.value;
			break;
		case OPT_CONFIG:
			fsck->kms.config_path = args.value;
			break;
		case OPT_PROFILE:
			fsck->kms.profile = args.value;
			break;
		default:
			break;
		}
	}
	if (modes & (modes - 1))
		cmek_tool_usage(fsck->tool, "give one of -n, -p and -y");
	if (fsck->no_key && fsck->data)
		cmek_tool_usage(fsck->tool, "--data needs a key");
	*ret_store = args.argv[0];
}

/* A directory has a descriptor for each level above it while the tree is walked. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit); /* then trees may be too deep, which is told */
	}
}

/* What the configuration says of the volume. Who wants no key needs none, whatever is wrong with it. */
static int configure(struct cmek_fsck *fsck, const char *store, struct cmek_error *err)
{
	int ret = cmek_volconf_load(fsck->kms.config_path, store, &fsck->conf, fsck->no_key ? NULL : err);

	if (ret)
		return fsck->no_key ? 0 : ret;
	if (!fsck->kms.profile)
		fsck->kms.profile = fsck->conf.profile;
	return 0;
}

static int run(struct cmek_fsck *fsck, const char *store, struct cmek_error *err)
{
	int ret = configure(fsck, store, err);

	if (ret)
		return ret;
	if (fsck->conf.store)
		store = fsck->conf.store;
	fsck->path = realpath(store, NULL);
	if (!fsck->path)
		return cmek_error_set(err, errno == ENOENT ? CMEK_E_NOT_FOUND : CMEK_E_SYSTEM, errno, "%s: %s", store,
				      strerror(errno));
	ret = cmek_fsck_header(fsck, err);
	if (!ret)
		ret = cmek_fsck_journal(fsck, err);
	if (!ret)
		ret = cmek_fsck_tree(fsck, err);
	if (!ret && fsck->data)
		ret = cmek_fsck_data(fsck, err);
	return ret;
}

static void summary(struct cmek_fsck *fsck)
{
	const struct cmek_fsck_findings *f = &fsck->findings;
	char uuid[CMEK_UUID_TEXT];
	json_t *json;

	cmek_uuid_encode(fsck->hdr->uuid, uuid);
	if (!fsck->ring)
		cmek_tool_say(fsck->tool, "Without a key: names, contents and journals were not checked.");
	else if (fsck->stale)
		cmek_tool_say(fsck->tool, "Contents were not checked: the journal has to be replayed first.");
	cmek_tool_say(fsck->tool, "%s: %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " symbolic links", fsck->path,
		      fsck->files, fsck->dirs, fsck->symlinks);
	if (fsck->data && !fsck->stale)
		cmek_tool_say(fsck->tool, "%" PRIu64 " blocks were authenticated", fsck->blocks);
	if (f->found)
		cmek_tool_say(fsck->tool, "%u found, %u repaired, %u left", f->found, f->fixed, f->found - f->fixed);
	else
		cmek_tool_say(fsck->tool, "clean");
	json = json_pack("{s:s, s:s, s:O, s:i, s:i, s:b, s:b, s:I, s:I, s:I, s:I, s:i}", "uuid", uuid, "store", fsck->path,
			 "problems", f->list, "found", (int)f->found, "fixed", (int)f->fixed, "with_key",
			 fsck->ring != NULL, "contents", fsck->ring && !fsck->stale, "files", (json_int_t)fsck->files,
			 "directories", (json_int_t)fsck->dirs, "symlinks", (json_int_t)fsck->symlinks, "blocks",
			 (json_int_t)fsck->blocks, "exit_code", cmek_fsck_status(f));
	cmek_tool_json(fsck->tool, &json);
}

int main(int argc, char **argv)
{
	static struct cmek_fsck fsck;
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_tool tool;
	const char *store;
	int code;

	cmek_tool_init(&tool, "fsck.cmekfs");
	tool.exit_code = exit_code;
	fsck.tool = &tool;
	fsck.findings.tool = &tool;
	fsck.findings.list = json_array();
	pthread_mutex_init(&fsck.findings.lock, NULL);
	fsck.store_fd = fsck.meta_fd = -1;
	fsck.kms = cmek_tool_kms_options(&tool);
	parse(&fsck, &store, argc, argv);
	raise_limit();
	if (run(&fsck, store, &err)) {
		code = cmek_tool_fail(&tool, &err);
	} else {
		summary(&fsck);
		code = cmek_tool_done(&tool) ? EXIT_OPERATIONAL : cmek_fsck_status(&fsck.findings);
	}
	cmek_keyring_free(fsck.ring);
	cmek_volhdr_store_close(fsck.store);
	if (fsck.meta_fd >= 0)
		close(fsck.meta_fd);
	if (fsck.store_fd >= 0)
		close(fsck.store_fd);
	json_decref(fsck.findings.list);
	cmek_volconf_done(&fsck.conf);
	free(fsck.path);
	return code;
}
