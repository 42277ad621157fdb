/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What an error means for the user of a program: its exit code and what to do about it. The only place with advice;
 * it knows kinds and errno values, not the modules that they came from.
 */
#include "config.h"

#include <errno.h>

#include "tools/tool.h"

static const int exit_codes[CMEK_E_KIND_MAX] = {
	[CMEK_E_NONE] = CMEK_EXIT_FAILED,
	[CMEK_E_USAGE] = CMEK_EXIT_USAGE,
	[CMEK_E_SYSTEM] = CMEK_EXIT_FAILED,
	[CMEK_E_NOT_FOUND] = CMEK_EXIT_NOT_FOUND,
	[CMEK_E_EXISTS] = CMEK_EXIT_EXISTS,
	[CMEK_E_BUSY] = CMEK_EXIT_BUSY,
	[CMEK_E_DENIED] = CMEK_EXIT_DENIED,
	[CMEK_E_EXPIRED] = CMEK_EXIT_EXPIRED,
	[CMEK_E_KEY_DISABLED] = CMEK_EXIT_KEY_DISABLED,
	[CMEK_E_PENDING_DELETION] = CMEK_EXIT_PENDING_DELETION,
	[CMEK_E_KEY_DESTROYED] = CMEK_EXIT_KEY_DESTROYED,
	[CMEK_E_UNREACHABLE] = CMEK_EXIT_UNREACHABLE,
	[CMEK_E_THROTTLED] = CMEK_EXIT_THROTTLED,
	[CMEK_E_BAD_FORMAT] = CMEK_EXIT_BAD_FORMAT,
	[CMEK_E_TAMPERED] = CMEK_EXIT_TAMPERED,
	[CMEK_E_MISMATCH] = CMEK_EXIT_MISMATCH,
	[CMEK_E_UNSUPPORTED] = CMEK_EXIT_UNSUPPORTED,
	[CMEK_E_LIMIT] = CMEK_EXIT_LIMIT,
};

/* The first row that fits is taken: rows with an errno come before the one for the whole kind (errno 0). */
static const struct {
	enum cmek_kind kind;
	int err;
	const char *remedy;
} remedies[] = {
	{ CMEK_E_USAGE, EKEYREJECTED, "add another key first: 'cmekctl slot add VOLUME KEY'" },
	{ CMEK_E_SYSTEM, ENOSPC, "free some space on that file system, then repeat the command" },
	{ CMEK_E_SYSTEM, EDQUOT, "free some of the quota on that file system, then repeat the command" },
	{ CMEK_E_SYSTEM, EACCES, "run it as the owner of that path, or as root" },
	{ CMEK_E_SYSTEM, EPERM, "run it as the owner of that path, or as root" },
	{ CMEK_E_NOT_FOUND, ENOKEY, "check the key's name and, for local keys, CMEKFS_LOCAL_KEYSTORE; "
				    "'cmekctl key create' makes a new key" },
	{ CMEK_E_NOT_FOUND, ENXIO, "'cmekctl slot list VOLUME' shows the key slots" },
	{ CMEK_E_NOT_FOUND, 0, "check the path, or bring the file back from a backup" },
	{ CMEK_E_EXISTS, EUCLEAN, "bring .cmekfs back from a backup, or use --force to make a new volume" },
	{ CMEK_E_EXISTS, EALREADY, "use --older if the older header is what you want" },
	{ CMEK_E_EXISTS, 0, "choose another name or place; nothing was changed" },
	{ CMEK_E_BUSY, EDEADLK, "see 'cmekctl key uses KEY'; leave out --kms, or add --shared-keys" },
	{ CMEK_E_BUSY, ETXTBSY, "'cmekctl key registrations URI' lists what uses the key" },
	{ CMEK_E_BUSY, EAGAIN, "wait as long as it says, then repeat the command" },
	{ CMEK_E_BUSY, ETIMEDOUT, "find out why the store takes so long, then repeat the command" },
	{ CMEK_E_BUSY, 0, "wait until the other program is done, or stop it, then repeat the command" },
	{ CMEK_E_DENIED, EPERM, "see 'ls -ln' for its owner and mode, and 'chmod 600' it once you know who could read it" },
	{ CMEK_E_DENIED, ENOTTY, "give the passphrase with --passphrase-file FILE (a mount: -o "
				   "passphrase_file=FILE), or run it on a terminal" },
	{ CMEK_E_DENIED, EKEYREJECTED, "give the passphrase or recovery code that belongs to it, or bring back its key file" },
	{ CMEK_E_DENIED, ECANCELED, NULL },
	{ CMEK_E_EXPIRED, ENOKEY, "give credentials in one of these places; 'cmekctl slot test KEY' tells which are found" },
	{ CMEK_E_DENIED, 0, "check the permissions that the KMS gives to these credentials" },
	{ CMEK_E_EXPIRED, ENOENT, "bring that file, or give credentials in another way" },
	{ CMEK_E_EXPIRED, EACCES, "let the user who asks read that file" },
	{ CMEK_E_EXPIRED, 0, "renew the credentials (log in again), then repeat the command" },
	{ CMEK_E_KEY_DISABLED, 0, "'cmekctl key enable URI' if it was not disabled on purpose" },
	{ CMEK_E_PENDING_DELETION, 0, "'cmekctl key cancel-deletion URI' before that date, then 'cmekctl key enable URI'" },
	{ CMEK_E_KEY_DESTROYED, EIDRM, "only a backup of its header can bring it back, with a key that still works: "
				       "'cmekctl header restore'" },
	{ CMEK_E_KEY_DESTROYED, 0, "use another key; only a backup of the key could open what this one wrapped" },
	{ CMEK_E_UNREACHABLE, EPROTO, "check the endpoint and its certificate (ca_file in cmekfs.conf(5))" },
	{ CMEK_E_UNREACHABLE, 0, "check the network and the endpoint, then repeat the command" },
	{ CMEK_E_THROTTLED, 0, "repeat the command later" },
	{ CMEK_E_BAD_FORMAT, EPROTO, "check the endpoint, and what is between here and the service" },
	{ CMEK_E_BAD_FORMAT, EILSEQ, "check what is between here and the service (a proxy?), then repeat the command" },
	{ CMEK_E_BAD_FORMAT, 0, "check the disk, and bring the file back from a backup" },
	{ CMEK_E_TAMPERED, 0, "find out who changed it, then bring the file back from a backup" },
	{ CMEK_E_MISMATCH, EXDEV, "find the header of this volume, or use --other-volume if you are sure" },
	{ CMEK_E_MISMATCH, 0, "if the change of key was intended, give the new key explicitly" },
	{ CMEK_E_UNSUPPORTED, EOPNOTSUPP, NULL },
	{ CMEK_E_UNSUPPORTED, 0, "use a version of cmekfs that has this" },
	{ CMEK_E_LIMIT, ENOMEM, "raise the limit on locked memory (ulimit -l, LimitMEMLOCK= of the unit)" },
	{ CMEK_E_LIMIT, EPERM, "raise the limit on locked memory (ulimit -l, LimitMEMLOCK= of the unit)" },
};

int cmek_exit_code(enum cmek_kind kind)
{
	if ((unsigned)kind >= CMEK_E_KIND_MAX)
		return CMEK_EXIT_FAILED;
	return exit_codes[kind];
}

const char *cmek_remedy(const struct cmek_error *err)
{
	for (size_t i = 0; i < sizeof(remedies) / sizeof(remedies[0]); i++) {
		if (remedies[i].kind == err->kind && (remedies[i].err == 0 || remedies[i].err == err->err))
			return remedies[i].remedy;
	}
	return NULL;
}
