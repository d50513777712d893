/* SPDX-License-Identifier: MIT */
/* Runs a program with some system calls denied, as a container's seccomp filter does, for all that it starts too.
 *
 *   deny [--errno EPERM|ENOSYS] CALL,CALL,… -- PROGRAM ARGUMENTS…
 *
 * CALL is one of those listed below. The filter is plain BPF set by prctl(2): no library is needed. It exits with 77
 * where the kernel or a container allows no filter, 127 when the program cannot be started. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define OWN_ARCH AUDIT_ARCH_RISCV64
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define OWN_ARCH AUDIT_ARCH_PPC64LE
#else
#define OWN_ARCH 0
#endif

#ifndef SYS_rseq
#if defined(__x86_64__)
#define SYS_rseq 334
#else
#define SYS_rseq 293 /* the generic table */
#endif
#endif

static const struct call {
	const char *name;
	unsigned number;
} calls[] = {
	{ "mbind", SYS_mbind },
	{ "set_mempolicy", SYS_set_mempolicy },
	{ "get_mempolicy", SYS_get_mempolicy },
	{ "migrate_pages", SYS_migrate_pages },
	{ "move_pages", SYS_move_pages },
	{ "rseq", SYS_rseq },
	{ "getcpu", SYS_getcpu },
	{ "membarrier", SYS_membarrier },
	{ "mlock2", SYS_mlock2 },
	{ "mincore", SYS_mincore },
	{ "madvise", SYS_madvise },
	{ "mremap", SYS_mremap },
};

#define CALLS (sizeof calls / sizeof *calls)

static void usage(const char *why, const char *what)
{
	fprintf(stderr, "deny: %s%s\n", why, what);
	fprintf(stderr, "usage: deny [--errno EPERM|ENOSYS] CALL,CALL,... -- PROGRAM ARGUMENTS...\ncalls:");
	for (size_t i = 0; i < CALLS; i++)
		fprintf(stderr, " %s", calls[i].name);
	fprintf(stderr, "\n");
	exit(2);
}

static unsigned number_of(const char *name)
{
	for (size_t i = 0; i < CALLS; i++)
		if (strcmp(calls[i].name, name) == 0)
			return calls[i].number;
	usage("no such call: ", name);
	return 0;
}

/* Two instructions per call, between a check of the architecture and the end, which allows. */
static size_t make_filter(struct sock_filter *f, char *list, unsigned error)
{
	size_t n = 0;

	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 1, 0);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (char *name = strtok(list, ","); name; name = strtok(NULL, ",")) {
		if (n > 4 + 2 * CALLS - 2)
			usage("too many calls", "");
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number_of(name), 0, 1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
	}
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	return n;
}

int main(int argc, char **argv)
{
	struct sock_filter filter[5 + 2 * CALLS];
	struct sock_fprog program = { .filter = filter };
	unsigned error = EPERM;
	int at = 1;

	if (at + 1 < argc && strcmp(argv[at], "--errno") == 0) {
		if (strcmp(argv[at + 1], "ENOSYS") == 0)
			error = ENOSYS;
		else if (strcmp(argv[at + 1], "EPERM") != 0)
			usage("not EPERM or ENOSYS: ", argv[at + 1]);
		at += 2;
	}
	if (argc < at + 3 || strcmp(argv[at + 1], "--") != 0)
		usage("calls, --, and a program are needed", "");
	if (OWN_ARCH == 0) {
		fprintf(stderr, "deny: no filter is known for this architecture\n");
		return 77;
	}
	program.len = (unsigned short)make_filter(filter, argv[at], error);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
		fprintf(stderr, "deny: seccomp: %s\n", strerror(errno));
		return 77;
	}
	execvp(argv[at + 2], argv + at + 2);
	fprintf(stderr, "deny: %s: %s\n", argv[at + 2], strerror(errno));
	return 127;
}
