/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Capabilities, no_new_privs, limits and the seccomp filter. It must not know what the process does afterwards, only
 * which kernel facilities it never needs.
 */
#include "config.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/caps.h"
#include "fs/mount/confine.h"

#define BIT(cap) CMEK_CAP(cap)

/*
 * Files of all owners are made, opened by handle and changed on behalf of users; keys are locked. Not SYS_RESOURCE: with
 * it a user's data would go past their quota and into the reserve of the store's file system.
 */
static const uint64_t daemon_caps = BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_FOWNER) |
				    BIT(CAP_FSETID) | BIT(CAP_SETUID) | BIT(CAP_SETGID) | BIT(CAP_MKNOD) |
				    BIT(CAP_SETFCAP) | BIT(CAP_IPC_LOCK);
static const uint64_t agent_caps = BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_IPC_LOCK);
static const uint64_t auditor_caps = BIT(CAP_DAC_OVERRIDE);

#if defined(__x86_64__)
#define FILTER_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define FILTER_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define FILTER_ARCH AUDIT_ARCH_RISCV64
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define FILTER_ARCH AUDIT_ARCH_PPC64LE
#elif defined(__s390x__)
#define FILTER_ARCH AUDIT_ARCH_S390X
#endif

#ifdef FILTER_ARCH

/* One comparison of the system call's number; refused with EPERM so that a library that asks in vain can go on. */
#define REFUSE(call)                                       \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

static struct sock_filter filter[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FILTER_ARCH, 1, 0),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef __x86_64__
	/* The x32 numbers name the same calls once more. */
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
#endif
	/* no network, no other program's socket */
	REFUSE(socket),
	REFUSE(socketpair),
	REFUSE(connect),
	REFUSE(bind),
	REFUSE(listen),
	/* no programs */
	REFUSE(execve),
	REFUSE(execveat),
	/* no other process's memory or descriptors */
	REFUSE(ptrace),
	REFUSE(process_vm_readv),
	REFUSE(process_vm_writev),
	REFUSE(pidfd_getfd),
	REFUSE(userfaultfd),
	REFUSE(perf_event_open),
	/* no other view of the file system */
	REFUSE(mount),
	REFUSE(umount2),
	REFUSE(pivot_root),
	REFUSE(chroot),
	REFUSE(setns),
	REFUSE(unshare),
	REFUSE(fsopen),
	REFUSE(open_tree),
	REFUSE(move_mount),
	/* no changes of the kernel, and no second way to make system calls */
	REFUSE(init_module),
	REFUSE(finit_module),
	REFUSE(delete_module),
	REFUSE(kexec_load),
	REFUSE(bpf),
	REFUSE(io_uring_setup),
	REFUSE(keyctl),
	REFUSE(add_key),
	REFUSE(request_key),
	REFUSE(swapon),
	REFUSE(swapoff),
	REFUSE(reboot),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

static int load_filter(struct cmek_error *err)
{
	struct sock_fprog prog = { sizeof(filter) / sizeof(filter[0]), filter };

	/* A kernel without seccomp is still a kernel that people run us on. */
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0 && errno != EINVAL)
		return cmek_error_sys(err, errno, "restricting system calls");
	return 0;
}

#else

static int load_filter(struct cmek_error *err)
{
	(void)err;
	return 0;
}

#endif

static int raise_open_files(struct cmek_error *err)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return cmek_error_sys(err, errno, "reading the limit of open files");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		return cmek_error_sys(err, errno, "raising the limit of open files");
	return 0;
}

int cmek_confine_daemon(struct cmek_error *err)
{
	int rc = raise_open_files(err);

	if (rc == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		rc = cmek_error_sys(err, errno, "giving up new privileges");
	if (rc == 0)
		rc = cmek_caps_keep(daemon_caps, err);
	if (rc == 0)
		rc = load_filter(err);
	return rc;
}

int cmek_confine_agent(struct cmek_error *err)
{
	return cmek_caps_keep(agent_caps, err);
}

int cmek_confine_auditor(struct cmek_error *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return cmek_error_sys(err, errno, "giving up new privileges");
	return cmek_caps_keep(auditor_caps, err);
}
