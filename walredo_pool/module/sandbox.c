/*-------------------------------------------------------------------------
 *
 * sandbox.c
 *	  Gives up what a redo process does not need.
 *
 * Redo functions trust their records, and ours come over a network.  A process
 * that one of them has taken over should find itself without files, network,
 * other programs, or more memory than a record can need.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "walredo.h"

/* A record of the largest size is held three times: as read, decoded, moved. */
#define ADDRESS_SPACE_BYTES_MAX (UINT64CONST(4) * 1024 * 1024 * 1024)

#if defined(__x86_64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#define ALLOW(name) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 1), \
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

#ifdef OUR_ARCHITECTURE
static struct sock_filter filter[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCHITECTURE, 1, 0),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),

	/* requests and answers */
	ALLOW(read),
	ALLOW(write),
	ALLOW(writev),
	/* memory */
	ALLOW(brk),
	ALLOW(mmap),
	ALLOW(mremap),
	ALLOW(munmap),
	ALLOW(madvise),
	/* time stamps of messages, and waiting */
	ALLOW(clock_gettime),
	ALLOW(gettimeofday),
	ALLOW(futex),
	ALLOW(clock_nanosleep),
	ALLOW(pselect6),
#ifdef __NR_select
	ALLOW(select),
#endif
	ALLOW(restart_syscall),
	/* the end, by exit or abort */
	ALLOW(exit),
	ALLOW(exit_group),
	ALLOW(getpid),
	ALLOW(gettid),
	ALLOW(rt_sigaction),
	ALLOW(rt_sigprocmask),
	ALLOW(rt_sigreturn),

	/* Signals to itself; others of the same account are none of its business. */
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_tgkill, 0, 3),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0 /* our process id */ , 0, 1),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
};

/* Which of these compares with our process id. */
#define FILTER_PROCESS_ID (lengthof(filter) - 3)
#endif

static void
limit(int resource, const char *name, uint64 value)
{
	struct rlimit limits = {value, value};
	struct rlimit current;

	if (getrlimit(resource, &current) == 0 && current.rlim_max != RLIM_INFINITY &&
		current.rlim_max < value)
		limits.rlim_cur = limits.rlim_max = current.rlim_max;
	if (setrlimit(resource, &limits) != 0)
		elog(FATAL, "could not limit %s: %m", name);
}

/*
 * Enter for good.  Where the kernel has no seccomp, say so and go on: the
 * limits hold nevertheless.
 */
void
sandbox_enter(void)
{
	limit(RLIMIT_CORE, "core files", 0);
	limit(RLIMIT_NPROC, "processes", 0);
	/* What is open stays open; nothing is added, and no file grows. */
	limit(RLIMIT_NOFILE, "open files", 0);
	limit(RLIMIT_FSIZE, "sizes of files", 0);
	limit(RLIMIT_AS, "memory", ADDRESS_SPACE_BYTES_MAX);

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		elog(FATAL, "prctl(PR_SET_NO_NEW_PRIVS) failed: %m");
#ifdef OUR_ARCHITECTURE
	{
		struct sock_fprog program = {lengthof(filter), filter};

		filter[FILTER_PROCESS_ID].k = getpid();
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
			elog(WARNING, "redo process runs without a system call filter: %m");
	}
#else
	elog(WARNING, "redo process runs without a system call filter on this architecture");
#endif
}
