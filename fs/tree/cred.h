/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TREE_CRED_H
#define CMEK_TREE_CRED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/tree/tree.h"

/*
 * Makes a thread create things in the store as its caller would: owner, group of set-group-ID directories, quotas and
 * default ACLs are then the store's own business. Linux keeps fsuid, fsgid and capabilities per thread; glibc's
 * wrappers that would change all threads are avoided.
 */
struct cmek_cred_self {
	bool can_switch; /* CAP_SETUID and CAP_SETGID are there; else everything runs as ourselves */
	bool drops_caps; /* leaving user 0 takes the file capabilities away: raise what we need again */
	uid_t uid;
	gid_t gid;
	uint32_t effective[2], permitted[2], inheritable[2];
};

/* Looks at the calling thread; the threads that enter later must have the same identity. */
void cmek_cred_init(struct cmek_cred_self *ret_self);
/*
 * *ret_entered says whether there is something to leave. The thread then has the caller's fsuid and fsgid, but our
 * right to search and write everywhere: the kernel checked permissions above us. -errno: nothing changed.
 */
int cmek_cred_enter(const struct cmek_cred_self *self, const struct cmek_cred *caller, bool *ret_entered);
/* Keeps errno. Aborts when our identity does not come back: no other request may run under it. */
void cmek_cred_leave(const struct cmek_cred_self *self, bool entered);

#endif
