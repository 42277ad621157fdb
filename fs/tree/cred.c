/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The identity of creating calls on the store: raw per-thread system calls. Knows nothing of names or nodes.
 */
#include "config.h"

#include "fs/tree/cred.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAP_BIT(cap) (UINT64_C(1) << (cap))

/* What setfsuid() away from 0 takes from the effective set (CAP_FS_SET of the kernel) ... */
#define FS_CAPS                                                                                                        \
	(CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_MKNOD) | CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_DAC_READ_SEARCH) |          \
	 CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_FSETID) | CAP_BIT(CAP_LINUX_IMMUTABLE) | CAP_BIT(CAP_MAC_OVERRIDE))
/* ... and what of it creating needs. FSETID: the kernel above us has already judged the set-group-ID bit. */
#define NEEDED_CAPS                                                                                                    \
	(CAP_BIT(CAP_MKNOD) | CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_DAC_READ_SEARCH) | CAP_BIT(CAP_FOWNER) |         \
	 CAP_BIT(CAP_FSETID))

static uint64_t join(const uint32_t v[2])
{
	return v[0] | (uint64_t)v[1] << 32;
}

static int set_effective(const struct cmek_cred_self *self, uint64_t effective)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3, .pid = 0 };
	struct __user_cap_data_struct data[2];
	int i;

	for (i = 0; i < 2; i++) {
		data[i].effective = (uint32_t)(effective >> (32 * i));
		data[i].permitted = self->permitted[i];
		data[i].inheritable = self->inheritable[i];
	}
	return syscall(SYS_capset, &head, data) ? -errno : 0;
}

static uid_t current_fsuid(void)
{
	return (uid_t)syscall(SYS_setfsuid, (uid_t)-1);
}

static gid_t current_fsgid(void)
{
	return (gid_t)syscall(SYS_setfsgid, (gid_t)-1);
}

void cmek_cred_init(struct cmek_cred_self *ret_self)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3, .pid = 0 };
	struct __user_cap_data_struct data[2];
	uint64_t effective;
	int i;

	memset(ret_self, 0, sizeof *ret_self);
	ret_self->uid = current_fsuid();
	ret_self->gid = current_fsgid();
	memset(data, 0, sizeof data);
	if (syscall(SYS_capget, &head, data))
		return;
	for (i = 0; i < 2; i++) {
		ret_self->effective[i] = data[i].effective;
		ret_self->permitted[i] = data[i].permitted;
		ret_self->inheritable[i] = data[i].inheritable;
	}
	effective = join(ret_self->effective);
	ret_self->can_switch = (effective & CAP_BIT(CAP_SETUID)) && (effective & CAP_BIT(CAP_SETGID));
	ret_self->drops_caps = ret_self->uid == 0;
}

int cmek_cred_enter(const struct cmek_cred_self *self, const struct cmek_cred *caller, bool *ret_entered)
{
	uint64_t effective = join(self->effective);
	int r;

	*ret_entered = false;
	if (!self->can_switch || (caller->uid == self->uid && caller->gid == self->gid))
		return 0;
	syscall(SYS_setfsgid, caller->gid);
	syscall(SYS_setfsuid, caller->uid);
	/* These calls have no error result: an id that is not mapped in our user namespace is simply not taken. */
	r = current_fsuid() == caller->uid && current_fsgid() == caller->gid ? 0 : -EOVERFLOW;
	if (r == 0 && self->drops_caps && caller->uid != self->uid)
		r = set_effective(self, (effective & ~FS_CAPS) | (effective & NEEDED_CAPS));
	if (r) {
		cmek_cred_leave(self, true);
		return r;
	}
	*ret_entered = true;
	return 0;
}

void cmek_cred_leave(const struct cmek_cred_self *self, bool entered)
{
	int saved = errno;

	if (!entered)
		return;
	syscall(SYS_setfsuid, self->uid);
	syscall(SYS_setfsgid, self->gid);
	if (current_fsuid() != self->uid || current_fsgid() != self->gid)
		abort();
	/* Back at user 0 the kernel raises all permitted file capabilities, also those we did not have. */
	if (self->drops_caps && (~join(self->effective) & join(self->permitted) & FS_CAPS) &&
	    set_effective(self, join(self->effective)))
		abort();
	errno = saved;
}
