/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Capabilities of the process, by system calls alone. It must not know what anybody needs them for. */
#include "config.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/caps.h"

int cmek_caps_keep(uint64_t keep, struct cmek_error *err)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3, .pid = 0 };
	struct __user_cap_data_struct data[2];
	int i;

	for (i = 0; i <= CAP_LAST_CAP; i++) {
		/* Not permitted without CAP_SETPCAP; then there is nothing to gain from the bounding set either. */
		if (!(keep & CMEK_CAP(i)))
			(void)prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
	}
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* absent from old kernels, as are ambient sets */
	if (syscall(SYS_capget, &head, data) != 0)
		return cmek_error_sys(err, errno, "reading the capabilities");
	for (i = 0; i < 2; i++) {
		data[i].permitted &= (uint32_t)(keep >> (32 * i));
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &head, data) != 0)
		return cmek_error_sys(err, errno, "dropping capabilities");
	return 0;
}
