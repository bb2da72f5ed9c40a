/* Debian's kernel gives a process its registers back in 2696 bytes, which is all that processors had when it was made.
 * Linux takes them only as large as they are on this machine, and the registers of matrices made that 11008. Loaded
 * before that kernel's C library, this adds the rest, as it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long trace(int request, pid_t pid, void *address, void *data);

static trace *library;
static char all[1 << 16];

__attribute__((constructor)) static void find(void) {
    library = (trace *)dlsym(RTLD_NEXT, "ptrace");
}

long ptrace(enum __ptrace_request request, ...) {
    va_list rest;
    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *address = va_arg(rest, void *);
    void *data = va_arg(rest, void *);
    va_end(rest);
    if (request == PTRACE_SETREGSET && (unsigned long)address == NT_X86_XSTATE) {
        struct iovec *given = data;
        struct iovec whole = {all, sizeof all};
        if (library(PTRACE_GETREGSET, pid, address, &whole) == 0 && whole.iov_len > given->iov_len) {
            memcpy(all, given->iov_base, given->iov_len);
            return library(request, pid, address, &whole);
        }
    }
    return library(request, pid, address, data);
}
