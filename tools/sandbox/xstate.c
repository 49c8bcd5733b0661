/*
 * Licensed under the Apache License, Version 2.0 (the "License"); you may
 * not use this file except in compliance with the License. You may obtain
 * a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
 * WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
 * License for the specific language governing permissions and limitations
 * under the License.
 *
 * To be preloaded into user-mode-linux before 6.13, which panics at its first
 * process on a CPU with AMX: it has 2696 bytes for the registers that
 * PTRACE_SETREGSET sets (HOST_FP_SIZE in arch/x86/um/user-offsets.c, enough
 * for AVX-512), where the kernel takes all of the CPU's or nothing (EFAULT,
 * xstateregs_set() in arch/x86/kernel/fpu/regset.c), and AMX makes that
 * 11008. What is missing is filled up here: zeros, which mean nothing as the
 * header, that comes first, says what is in use (Intel SDM, volume 1, 13.4.2).
 * The guest has no AMX: a process must ask for it (arch_prctl(2)).
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Not on the stack, of which the guest's kernel has little. Only one of its
 * threads calls ptrace. */
static unsigned char area[1 << 16];
/* Of this CPU's registers, in bytes; 0: not known yet. */
static size_t area_size;

static long set_registers(pid_t pid, void *kind, const struct iovec *given)
{
	struct iovec whole = { area, sizeof(area) };

	if (area_size == 0) {
		if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, kind, &whole) < 0)
			return -1;
		area_size = whole.iov_len;
		memset(area, 0, sizeof(area));
	}
	if (given->iov_len >= area_size)
		return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, kind, given);
	memcpy(area, given->iov_base, given->iov_len);
	whole.iov_len = area_size;
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, kind, &whole);
}

/* In the place of the C library's. A caller that wants a word back by PEEK,
 * which user-mode-linux uses for debugging only, gets it in the same way. */
long ptrace(enum __ptrace_request request, ...)
{
	va_list list;
	pid_t pid;
	void *address, *data;
	long word, result;

	va_start(list, request);
	pid = va_arg(list, pid_t);
	address = va_arg(list, void *);
	data = va_arg(list, void *);
	va_end(list);
	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
		return set_registers(pid, address, data);
	if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER) {
		result = syscall(SYS_ptrace, request, pid, address, &word);
		return result < 0 ? result : word;
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}
