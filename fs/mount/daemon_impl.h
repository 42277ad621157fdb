/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_DAEMON_IMPL_H
#define CMEK_MOUNT_DAEMON_IMPL_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/content/content.h"
#include "fs/mount/control.h"
#include "fs/mount/opts.h"
#include "fs/mount/session.h"
#include "fs/tree/tree.h"
#include "fs/volume/volhdr_store.h"

/* The inside of the storage daemon, shared by its own files only: its life (daemon.c) and its commands (verbs.c). */
struct daemon {
	/* constant once requests are served, but for what the lock below guards */
	const struct cmek_mount_opts *opts;
	int supervisor, agent;
	int store_fd, meta_fd;
	int control_fd; /* the control socket until somebody serves it, -1: there is none */
	char store_path[PATH_MAX];
	bool read_only;
	int64_t since; /* Unix seconds */
	struct cmek_keyring *ring;
	struct cmek_tree *tree;
	struct cmek_content *content;
	struct cmek_overlay *overlay; /* the journal's changes, where a read-only mount can't write them; mostly NULL */
	struct cmek_session *session;
	struct cmek_control *control;
	pthread_t listener;
	bool listening;
	atomic_bool ending; /* the session is over: what the listener hears is of no interest */
	/* header_lock: the header and its handle. Held over writes of the header, never over a request of FUSE */
	pthread_mutex_t header_lock;
	struct cmek_volhdr_store *header;
};

/* verbs.c: what the control socket understands; arg is the daemon. Ends with a zeroed row. */
extern const struct cmek_control_verb cmek_daemon_verbs[];

#endif
