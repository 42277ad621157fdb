/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_SESSION_H
#define CMEK_MOUNT_SESSION_H

#include <stdbool.h>

#include "base/err.h"
#include "fs/content/content.h"
#include "fs/mount/gate.h"
#include "fs/tree/tree.h"

/* The conversation with the kernel over one FUSE connection, from INIT to the unmount. */
struct cmek_session;

struct cmek_session_params {
	bool writeback;       /* the kernel may keep what is written as dirty pages */
	bool read_only;       /* it has none, not even of mappings */
	bool allow_root;      /* libfuse refuses all but root and the owner, so the kernel may not answer from its caches */
	unsigned max_threads; /* 0 = 10 */
	struct cmek_room *room; /* borrowed; NULL: nothing is refused for want of it */
	/* The kernel was answered: the mount works. Called once, from a serving thread. */
	void (*up)(void *arg);
	/* Something stored failed authentication: see struct cmek_reply_site. From serving threads. */
	void (*unauthentic)(void *arg, uint64_t node, uint64_t offset, const char *what);
	void *arg;
};

/*
 * device_fd: a mounted connection, taken over. tree and content are borrowed. Nothing is answered before
 * cmek_session_run(). Kind system.
 */
int cmek_session_new(int device_fd, struct cmek_tree *tree, struct cmek_content *content,
		     const struct cmek_session_params *params, struct cmek_session **ret_session, struct cmek_error *err);

/* Serves until the file system is unmounted or cmek_session_stop() is heeded: 0, else -errno of the connection. */
int cmek_session_run(struct cmek_session *session);

/*
 * Makes cmek_session_run() return, from another thread, while users may still have files open: answers what is under
 * way (as long as it comes without a pause, at most 10 s), then ends. Returns when run has, or is about to.
 */
void cmek_session_stop(struct cmek_session *session);

/* Which requests are served, and counts of them; borrowed. */
struct cmek_gate *cmek_session_gate(struct cmek_session *session);
/* Waits for requests that are answered by other threads than those that serve. None may come in meanwhile. */
void cmek_session_settle(struct cmek_session *session);
/*
 * The kernel shall write back what it has of a node, and keep nothing of it: attributes, pages, mappings. Waits for the
 * writes, so never to be called by a serving thread. -ENOENT: the kernel does not know the node.
 */
int cmek_session_invalidate(struct cmek_session *session, uint64_t node);
/* No serving thread keeps anything of a request any more. False: one did not in timeout_ms. */
bool cmek_session_forget(struct cmek_session *session, unsigned timeout_ms);

/* Whether the kernel's requests are being dealt with, see cmek_workers_alive(). */
bool cmek_session_alive(struct cmek_session *session);

/* Closes the connection; after run. NULL allowed. */
void cmek_session_free(struct cmek_session *session);

#endif
