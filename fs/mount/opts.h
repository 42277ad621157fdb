/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_OPTS_H
#define CMEK_MOUNT_OPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "fs/mount/watch.h"

/*
 * What the command line asks for, parsed: nothing behind this header looks at argv or at the text of -o again.
 * Strings are owned, cmek_mount_opts_free() frees them.
 */
struct cmek_mount_opts {
	enum { CMEK_MOUNT_DO, CMEK_MOUNT_HELP, CMEK_MOUNT_VERSION, CMEK_MOUNT_FAKE } action;
	char *store;           /* the store's directory; absolute after cmek_mount_opts_resolve() */
	char *mountpoint;      /* absolute and without symbolic links after cmek_mount_opts_resolve() */
	char *fsname;          /* what mount tables show as the source; NULL = the store */
	char *kernel_flags;    /* "nosuid,noatime": flags of mount(2), the last one counts, never NULL */
	char *key_uri;         /* pin: only a slot of this key may open the volume; NULL = as configured */
	char *passphrase_file; /* NULL = ask on the terminal when a passphrase is needed */
	char *keystore_path;   /* NULL = the local provider's default */
	char *config_path;     /* NULL = the default */
	char *profile;         /* of the configuration's sections for key services; NULL = none */
	int slot;              /* only this key slot, -1 = any that opens */
	bool foreground;
	bool read_only;
	bool writeback; /* the kernel may hold dirty pages (default) */
	bool journal;   /* (default) */
	bool salvage;   /* go on with what is whole of a damaged journal */
	bool allow_other;
	bool allow_root;
	bool unlocked_memory; /* keys may live in memory that is not locked */
	enum cmek_log_level log_level;
	struct cmek_watch_policy watch;
	/* Of -o watch_*: these come before the configuration's. key: borrowed from a table, value: owned */
	struct {
		const char *key;
		char *value;
	} watch_given[CMEK_WATCH_STATES + 3];
	unsigned commit_ms; /* 0 = default, so are the following */
	unsigned max_threads;
	uint64_t held_max_bytes;
	uint64_t map_cache_bytes;
	uint64_t journal_bytes;
	uint64_t reserve_bytes; /* CMEK_ROOM_BY_STORE (default), 0 = none */
	unsigned fd_cache;  /* descriptors */
	unsigned key_cache; /* content keys */
};

/*
 * Parses argv of `cmekfs STORE MOUNTPOINT [-f] [-d] [-o OPT,...]`, or, when the name in argv[0] begins with "mount.",
 * of mount(8)'s helper: `mount.cmekfs STORE MOUNTPOINT [-sfnv] [-o OPT,...]`, where -f means "check, but don't mount".
 * is_root: the caller's effective user is 0 (allow_other is then the default). Kind usage, -EINVAL: an unknown option
 * or a value out of range, named in the text. No file is touched. One thread at a time (getopt).
 */
int cmek_mount_opts_parse(int argc, char **argv, bool is_root, struct cmek_mount_opts **ret_opts,
			  struct cmek_error *err);

/*
 * Fills what was not given from the configuration's [volume NAME] section for this store: key and profile. A STORE that is
 * no path may be the NAME of such a section. Kinds of cmek_conf_load().
 */
int cmek_mount_opts_configure(struct cmek_mount_opts *opts, struct cmek_error *err);

/*
 * Makes all paths absolute, and checks that STORE and MOUNTPOINT are directories and that the mount point is not in
 * the store. Kinds: not-found, usage, system.
 */
int cmek_mount_opts_resolve(struct cmek_mount_opts *opts, struct cmek_error *err);

/* The text of --help. */
const char *cmek_mount_opts_usage(void);

void cmek_mount_opts_free(struct cmek_mount_opts *opts);

#endif
