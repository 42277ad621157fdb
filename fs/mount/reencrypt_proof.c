/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * From a tree that has nothing under older data keys to keys that are retired: what is no part of the tree, the journal, the
 * store's flush, in this order, so that a crash at any point leaves nothing behind that a retired key is needed for.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/mount/reencrypt.h"
#include "fs/tree/symlink_crypt.h"

#define LOST "lost"
/* The records that are being written when it begins are in place in a moment. */
#define JOURNAL_TICK_MS 50u
#define JOURNAL_TRIES 2400u
/* Another program changes the header; it may be asking a key service. */
#define HEADER_TICK_MS 500u
#define HEADER_TRIES 240u

/*
 * A name in .cmekfs, or in .cmekfs/lost. Journals other than the mount's own, and what fsck has put aside, may hold what only
 * an old key opens; whether they do can't be told from outside. A symlink says which key it needs.
 */
static bool hinders(int dirfd, const char *name, bool lost, uint16_t active)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 1];
	struct cmek_symlink_head head;
	ssize_t n;

	if (!lost)
		return strncmp(name, "journal.", 8) == 0 && strcmp(name, "journal.0") != 0;
	n = readlinkat(dirfd, name, text, sizeof(text));
	if (n < 0 || (size_t)n >= sizeof(text))
		return true;
	text[n] = '\0';
	/* A piece of a long target, or a directory's id, which goes with it. */
	return cmek_symlink_parse(text, (size_t)n, CMEK_SYMLINK_TEXT_MAX, &head) == 0 && head.dek != active;
}

/* How many were found, or -errno. */
static int look_aside(struct cmek_reencrypt *work, const char *dir_name, uint16_t active)
{
	int fd = openat(cmek_reencrypt_params(work)->meta_fd, dir_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), n = 0;
	bool lost = strcmp(dir_name, LOST) == 0;
	const struct dirent *d;
	char stored[300];
	DIR *dir;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	dir = fdopendir(fd);
	if (!dir) {
		n = -errno;
		(void)close(fd); /* a directory */
		return n;
	}
	while (errno = 0, (d = readdir(dir)) != NULL) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 || !hinders(fd, d->d_name, lost, active))
			continue;
		(void)snprintf(stored, sizeof(stored), ".cmekfs/%s%s", lost ? LOST "/" : "", d->d_name);
		cmek_log(CMEK_LOG_WARNING, "re-encryption: older data keys are kept: %s was put aside and may need them", stored);
		cmek_reencrypt_hinder(work, stored, d->d_ino, "was put aside, and may need an older data key");
		n++;
	}
	if (errno != 0)
		n = -errno;
	(void)closedir(dir);
	return n;
}

/* 0, 1: something was put aside, or -errno. */
static int check_aside(struct cmek_reencrypt *work, uint16_t active)
{
	int own = look_aside(work, ".", active), lost = own < 0 ? 0 : look_aside(work, LOST, active);

	return own < 0 ? own : lost < 0 ? lost : own + lost > 0;
}

/* Everything that was moved durable where it is, and the journal without a record from before. */
static int settle(struct cmek_reencrypt *work, uint64_t *ret_seq)
{
	const struct cmek_reencrypt_params *params = cmek_reencrypt_params(work);
	unsigned tries = 0;
	uint64_t seq = 0;
	int r;

	do {
		if (tries > 0)
			cmek_reencrypt_wait(work, JOURNAL_TICK_MS);
		r = cmek_reencrypt_enter(work) ? 0 : -ECANCELED;
		if (r == 0 && tries == 0)
			r = cmek_tree_reencrypt_spares(params->tree);
		if (r == 0)
			r = cmek_content_renew_journal(params->content, &seq);
		cmek_reencrypt_leave(work);
	} while (r == -EAGAIN && ++tries < JOURNAL_TRIES);
	if (r == 0)
		*ret_seq = seq;
	return r;
}

static void put_proof(const struct cmek_reencrypt_looked *l, uint16_t active, char *text, size_t size)
{
	(void)snprintf(text, size,
		       "nothing else than data key %u in: %" PRIu64 " directories, %" PRIu64 " names, %" PRIu64 " symlinks, %" PRIu64
		       " attributes, %" PRIu64 " files with %" PRIu64 " map pages and %" PRIu64 " blocks; %" PRIu64
		       " of all without a name, %" PRIu64 " moved meanwhile; journal from record %" PRIu64,
		       (unsigned)active, l->directories, l->names, l->targets, l->attributes, l->files, l->pages, l->blocks,
		       l->nameless, l->moved, l->journal_seq);
}

int cmek_reencrypt_retire(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts, const uint16_t *ids, size_t n,
			  uint64_t grace_s)
{
	const struct cmek_reencrypt_params *params = cmek_reencrypt_params(work);
	uint16_t active = cmek_keyring_active_dek(params->ring);
	struct cmek_error err = CMEK_ERROR_INIT;
	unsigned tries = 0;
	char proof[400];
	int r;

	r = settle(work, &counts->looked.journal_seq);
	if (r == 0)
		r = check_aside(work, active);
	if (r != 0)
		return r == -EAGAIN ? -ETIMEDOUT : r;
	put_proof(&counts->looked, active, proof, sizeof(proof));
	do {
		if (tries > 0)
			cmek_reencrypt_wait(work, HEADER_TICK_MS);
		cmek_error_clear(&err);
		r = cmek_reencrypt_enter(work) ? params->host.retire(params->host.arg, ids, n, grace_s, proof, &err) : -ECANCELED;
		cmek_reencrypt_leave(work);
	} while (r < 0 && err.kind == CMEK_E_BUSY && ++tries < HEADER_TRIES);
	if (r < 0 && r != -ECANCELED)
		cmek_log(CMEK_LOG_ERROR, "older data keys could not be retired: %s", err.text);
	return r;
}
