/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fsck's first passes: the volume's own directory, its header, its keys and its journals. Knows nothing of the tree.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/content/replay.h"
#include "fs/volume/registry.h"
#include "fs/volume/unlock.h"
#include "tools/fsck.h"

static void report_line(void *arg, const char *text)
{
	const struct cmek_fsck *fsck = arg;

	fprintf(stderr, "%s: %s\n", fsck->tool->program, text);
}

/* What is wrong with the copies, before the unlock makes them equal where it may. */
static void look_at_copies(struct cmek_fsck *fsck, bool fixed)
{
	const char *problem;
	uint64_t sequence, newest = 0;
	char stored[32];
	int i;

	for (i = 0; i < 2; i++)
		if (!cmek_volhdr_store_problem(fsck->store, i, &sequence) && sequence > newest)
			newest = sequence;
	for (i = 0; i < 2; i++) {
		snprintf(stored, sizeof(stored), CMEK_META_DIR "/header.%d", i);
		problem = cmek_volhdr_store_problem(fsck->store, i, &sequence);
		if (problem)
			cmek_fsck_tell(&fsck->findings, CMEK_FSCK_HEADER_COPY, stored, NULL, fixed, "%s", problem);
		else if (sequence != newest)
			cmek_fsck_tell(&fsck->findings, CMEK_FSCK_HEADER_OLD_COPY, stored, NULL, fixed,
				       "number %" PRIu64 ", the other one has %" PRIu64, sequence, newest);
	}
}

static int unlock(struct cmek_fsck *fsck, struct cmek_error *err)
{
	struct cmek_unlock_params params = {
		.unwrapper = cmek_unwrapper_kms(&fsck->kms),
		.key = fsck->conf.key,
		.slot = -1,
	};
	struct cmek_registry *registry = NULL;
	struct cmek_pins *pins = NULL;
	int ret;

	ret = cmek_registry_new(NULL, &registry, err);
	if (!ret)
		ret = cmek_registry_check_place(registry, fsck->hdr->uuid, fsck->path, err);
	if (!ret)
		ret = cmek_registry_pins(registry, fsck->hdr->uuid, &pins, err);
	params.pins = pins;
	if (!ret)
		ret = cmek_unlock(fsck->store, &params, &fsck->ring, err);
	cmek_pins_free(pins);
	cmek_registry_free(registry);
	fsck->hdr = cmek_volhdr_store_header(fsck->store); /* it may be the other copy's now */
	return ret;
}

static bool is_number(const char *text)
{
	return text[0] && strspn(text, "0123456789") == strlen(text);
}

static bool is_meta_name(const char *name)
{
	static const char *const names[] = { "header.0", "header.1", "lock", "links", "lost", "reserve", NULL };
	int i;

	for (i = 0; names[i]; i++)
		if (!strcmp(name, names[i]))
			return true;
	return (!strncmp(name, "journal.", 8) && is_number(name + 8)) || cmek_volhdr_is_temporary(name);
}

/* Names in .cmekfs or in its lost. */
static int look_at_names(struct cmek_fsck *fsck, const char *dir_name, struct cmek_error *err)
{
	int fd = openat(fsck->meta_fd, dir_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	bool lost = strcmp(dir_name, ".") != 0;
	char stored[300];
	struct dirent *entry;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return fd < 0 && lost ? 0 : cmek_error_sys(err, errno, CMEK_META_DIR "/%s", dir_name);
	}
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(stored, sizeof(stored), CMEK_META_DIR "/%s%s", lost ? "lost/" : "", entry->d_name);
		if (lost && !strncmp(entry->d_name, "journal.", 8))
			cmek_fsck_tell(&fsck->findings, CMEK_FSCK_JOURNAL_LOST, stored, NULL, false, NULL);
		else if (!lost && !is_meta_name(entry->d_name))
			cmek_fsck_tell(&fsck->findings, CMEK_FSCK_META_FOREIGN, stored, NULL, false, NULL);
	}
	closedir(dir);
	return 0;
}

static void look_at_dir(struct cmek_fsck *fsck, const char *name)
{
	bool fixed = false;
	char stored[32];
	struct stat st;

	if (!fstatat(fsck->meta_fd, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode))
		return;
	if (cmek_fsck_may_fix(&fsck->findings, CMEK_FSCK_META_MISSING))
		fixed = mkdirat(fsck->meta_fd, name, 0700) == 0;
	snprintf(stored, sizeof(stored), CMEK_META_DIR "/%s", name);
	cmek_fsck_tell(&fsck->findings, CMEK_FSCK_META_MISSING, stored, NULL, fixed, NULL);
}

int cmek_fsck_header(struct cmek_fsck *fsck, struct cmek_error *err)
{
	bool read_only = fsck->findings.mode == CMEK_FSCK_NO, unequal;
	int ret;

	fsck->store_fd = open(fsck->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fsck->store_fd < 0)
		return cmek_error_sys(err, errno, "%s", fsck->path);
	ret = cmek_volhdr_store_open(fsck->store_fd, read_only ? CMEK_STORE_READ : CMEK_STORE_WRITE, NULL, &fsck->store,
				     err);
	if (ret)
		return ret;
	fsck->hdr = cmek_volhdr_store_header(fsck->store);
	fsck->meta_fd = openat(fsck->store_fd, CMEK_META_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fsck->meta_fd < 0)
		return cmek_error_sys(err, errno, "%s/" CMEK_META_DIR, fsck->path);
	unequal = cmek_volhdr_store_unequal(fsck->store);
	if (unequal && (fsck->no_key || read_only))
		look_at_copies(fsck, false);
	if (!fsck->no_key) {
		/* The copies as they were found are told even if no key opens; the unlock replaces the bad one. */
		struct cmek_volhdr_store *found = NULL;

		if (unequal && !read_only)
			(void)cmek_volhdr_store_open(fsck->store_fd, CMEK_STORE_PEEK, NULL, &found, NULL);
		ret = unlock(fsck, err);
		if (found) {
			struct cmek_volhdr_store *now = fsck->store;

			fsck->store = found;
			look_at_copies(fsck, !ret && !cmek_volhdr_store_unequal(now));
			fsck->store = now;
			cmek_volhdr_store_close(found);
		}
		if (ret)
			return ret;
	}
	look_at_dir(fsck, "links");
	look_at_dir(fsck, "lost");
	ret = look_at_names(fsck, ".", err);
	return ret ? ret : look_at_names(fsck, "lost", err);
}

static int replay(struct cmek_fsck *fsck, bool dry_run, bool salvage, struct cmek_replay_result *ret_result,
		  struct cmek_error *err)
{
	struct cmek_replay_params params = {
		.store_fd = fsck->store_fd,
		.meta_fd = fsck->meta_fd,
		.block_size = fsck->hdr->block_size,
		.dry_run = dry_run,
		.salvage = salvage,
		.report = report_line,
		.arg = fsck,
	};

	memcpy(params.volume, fsck->hdr->uuid, sizeof(params.volume));
	return cmek_replay(fsck->ring, &params, ret_result, err);
}

int cmek_fsck_journal(struct cmek_fsck *fsck, struct cmek_error *err)
{
	struct cmek_error why = CMEK_ERROR_INIT;
	struct cmek_replay_result result = { 0 };
	bool fix, damaged;
	int ret;

	if (!fsck->ring) {
		fsck->stale = true;
		return 0;
	}
	ret = replay(fsck, true, false, &result, &why);
	damaged = ret && (why.kind == CMEK_E_TAMPERED || why.kind == CMEK_E_BAD_FORMAT);
	if (ret && why.kind == CMEK_E_UNSUPPORTED) {
		fsck->stale = true;
		cmek_fsck_tell(&fsck->findings, CMEK_FSCK_DEK_UNKNOWN, CMEK_META_DIR, NULL, false, "%s", why.text);
		return 0;
	}
	if (ret && !damaged)
		return cmek_error_set(err, why.kind, why.err, "%s", why.text);
	if (!ret && !result.journals)
		return 0;
	fix = cmek_fsck_may_fix(&fsck->findings, damaged ? CMEK_FSCK_JOURNAL_DAMAGED : CMEK_FSCK_JOURNAL_FULL);
	if (fix)
		ret = replay(fsck, false, damaged, &result, err);
	if (fix && ret)
		return ret;
	fsck->stale = !fix;
	if (damaged)
		cmek_fsck_tell(&fsck->findings, CMEK_FSCK_JOURNAL_DAMAGED, CMEK_META_DIR, NULL, fix, "%s", why.text);
	else
		cmek_fsck_tell(&fsck->findings, CMEK_FSCK_JOURNAL_FULL, CMEK_META_DIR, NULL, fix,
			       "%" PRIu64 " files, %" PRIu64 " not found", result.files, result.lost);
	if (fix && cmek_keyring_active_dek(fsck->ring))
		cmek_keyring_new_session(fsck->ring);
	return 0;
}
