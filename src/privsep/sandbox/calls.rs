//! The system calls that each role needs, and those that no role ever makes.

use libc::*;

use super::seccomp::{Call, Use};
use Use::{Among, Any, Bits, Pairs, Self_};

/// `PR_SET_VMA`, with which the C library names its memory.
const PR_SET_VMA: u32 = 0x5356_4d41;
/// `TUNSETOFFLOAD`, `TUNSETVNETHDRSZ` and `TUNSETQUEUE` of linux/if_tun.h.
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const TUNSETVNETHDRSZ: u32 = 0x4004_54d8;
const TUNSETQUEUE: u32 = 0x4004_54d9;
/// Flags that no thread of this process may have.
const NAMESPACES: c_int =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

/// What every program of the standard library needs.
pub(super) const EVERYONE: &[Call] = &[
    // Memory, in the engine never executable.
    (SYS_brk, Any),
    (SYS_munmap, Any),
    (SYS_mremap, Any),
    (SYS_madvise, Any),
    // Locks, and thread bookkeeping.
    (SYS_futex, Any),
    (SYS_rseq, Any),
    (SYS_set_robust_list, Any),
    (SYS_gettid, Any),
    (SYS_sched_yield, Any),
    (SYS_sched_getaffinity, Any),
    // Its own ids: these calls cannot fail, and libraries panic if they do.
    (SYS_getpid, Any),
    (SYS_getppid, Any),
    (SYS_getuid, Any),
    (SYS_geteuid, Any),
    (SYS_getgid, Any),
    (SYS_getegid, Any),
    // Its own signals: handlers, and abort(3).
    (SYS_rt_sigaction, Any),
    (SYS_rt_sigprocmask, Any),
    (SYS_rt_sigreturn, Any),
    (SYS_sigaltstack, Any),
    (SYS_restart_syscall, Any),
    (SYS_tgkill, Self_),
    (SYS_exit, Any),
    (SYS_exit_group, Any),
    // Clocks, if the vDSO cannot read them, and waiting.
    (SYS_clock_gettime, Any),
    (SYS_clock_getres, Any),
    (SYS_clock_nanosleep, Any),
    (SYS_nanosleep, Any),
    (SYS_gettimeofday, Any),
    #[cfg(target_arch = "x86_64")]
    (SYS_time, Any),
    (SYS_ppoll, Any),
    #[cfg(target_arch = "x86_64")]
    (SYS_poll, Any),
    (SYS_getrandom, Any),
    // Open descriptors. fcntl(2) and ioctl(2) could send signals to other processes (F_SETOWN, FIOSETOWN) and type on a terminal (TIOCSTI).
    (SYS_read, Any),
    (SYS_readv, Any),
    (SYS_write, Any),
    (SYS_writev, Any),
    (SYS_close, Any),
    (
        SYS_fcntl,
        Among(1, &[F_GETFD as u32, F_SETFD as u32, F_GETFL as u32, F_SETFL as u32, F_DUPFD_CLOEXEC as u32]),
    ),
    (SYS_ioctl, Among(1, &[FIONBIO as u32, FIONREAD as u32])),
    (SYS_recvmsg, Any),
    (SYS_recvmmsg, Any),
    (SYS_recvfrom, Any),
    (SYS_sendmsg, Any),
    (SYS_sendmmsg, Any),
    (SYS_sendto, Any),
    (SYS_getsockopt, Any),
    (SYS_getsockname, Any),
    (SYS_prctl, Among(0, &[PR_SET_NAME as u32, PR_SET_VMA])),
    // Only its own limits, and only to lower them.
    (SYS_prlimit64, Among(0, &[0])),
];

/// The data path and the control side's runtime.
pub(super) const ENGINE: &[Call] = &[
    (SYS_mmap, Bits(2, PROT_EXEC as u32, 0)),
    (SYS_mprotect, Bits(2, PROT_EXEC as u32, 0)),
    // Threads. clone3(2) passes its flags in memory, and libraries fall back to this.
    (SYS_clone, Bits(0, (CLONE_THREAD | NAMESPACES).cast_unsigned(), CLONE_THREAD.cast_unsigned())),
    #[cfg(target_arch = "x86_64")]
    (SYS_epoll_wait, Any),
    (SYS_epoll_create1, Any),
    (SYS_epoll_ctl, Any),
    (SYS_epoll_pwait, Any),
    (SYS_epoll_pwait2, Any),
    // Streams from the listening socket, whose address the parent has bound.
    (SYS_accept4, Any),
    (SYS_eventfd2, Any),
    (SYS_timerfd_create, Any),
    (SYS_timerfd_settime, Any),
    (SYS_timerfd_gettime, Any),
    (SYS_ioctl, Among(1, &[TUNSETOFFLOAD, TUNSETVNETHDRSZ, TUNSETQUEUE])),
    // What transport::udp sets, and the caller's timeout.
    (
        SYS_setsockopt,
        Pairs(
            1,
            &[
                (IPPROTO_IP as u32, IP_RECVERR as u32),
                (IPPROTO_IP as u32, IP_PKTINFO as u32),
                (IPPROTO_IP as u32, IP_RECVTOS as u32),
                (IPPROTO_IPV6 as u32, IPV6_RECVERR as u32),
                (IPPROTO_IPV6 as u32, IPV6_RECVPKTINFO as u32),
                (IPPROTO_IPV6 as u32, IPV6_RECVTCLASS as u32),
                (SOL_UDP as u32, UDP_GRO as u32),
                (SOL_SOCKET as u32, SO_RCVTIMEO as u32),
            ],
        ),
    ),
    // The second filter, which STARTING forbids again.
    (SYS_prctl, Among(0, &[PR_SET_NO_NEW_PRIVS as u32])),
    (SYS_seccomp, Pairs(0, &[(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC as u32)])),
];

/// What is forbidden once an engine's threads run: the calls that made and set them up.
pub(super) const STARTING: &[c_long] = &[
    SYS_clone,
    SYS_seccomp,
    SYS_prlimit64,
    SYS_rt_sigaction,
    SYS_epoll_create1,
    SYS_eventfd2,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
    SYS_setsockopt,
    SYS_getsockname,
    SYS_readv,
    SYS_recvfrom,
    SYS_recvmmsg,
    SYS_sendto,
    SYS_sendmmsg,
];

/// What getaddrinfo(3) needs in addition: sockets, files, and modules to load. Landlock restricts files and ports.
pub(super) const RESOLVER: &[Call] = &[
    (SYS_mmap, Any),
    (SYS_mprotect, Any),
    (SYS_socket, Among(0, &[AF_INET as u32, AF_INET6 as u32, AF_NETLINK as u32])),
    (SYS_connect, Any),
    (SYS_setsockopt, Among(1, &[SOL_SOCKET as u32, IPPROTO_IP as u32, IPPROTO_IPV6 as u32])),
    (SYS_bind, Any),
    (SYS_getpeername, Any),
    (SYS_shutdown, Any),
    (SYS_openat, Any),
    (SYS_fstat, Any),
    (SYS_newfstatat, Any),
    (SYS_statx, Any),
    (SYS_lseek, Any),
    (SYS_pread64, Any),
    (SYS_faccessat, Any),
    (SYS_readlinkat, Any),
    (SYS_getdents64, Any),
    (SYS_uname, Any),
    // Modules that wait for a service, such as systemd-resolved.
    (SYS_epoll_create1, Any),
    (SYS_epoll_ctl, Any),
    (SYS_epoll_pwait, Any),
    (SYS_timerfd_create, Any),
    (SYS_timerfd_settime, Any),
    (SYS_eventfd2, Any),
    #[cfg(target_arch = "x86_64")]
    (SYS_epoll_wait, Any),
    #[cfg(target_arch = "x86_64")]
    (SYS_open, Any),
    #[cfg(target_arch = "x86_64")]
    (SYS_stat, Any),
    #[cfg(target_arch = "x86_64")]
    (SYS_access, Any),
    #[cfg(target_arch = "x86_64")]
    (SYS_readlink, Any),
];

/// What a module needs in addition that asks a service of this host.
pub(super) const SERVICES: &[Call] = &[(SYS_socket, Among(0, &[AF_UNIX as u32]))];

/// Calls that these processes never make: running a program, touching another process, changing the file system or the kernel.
pub(super) const HOSTILE: &[c_long] = &[
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_getfd,
    SYS_mount,
    SYS_umount2,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsmount,
    SYS_pivot_root,
    SYS_chroot,
    SYS_unshare,
    SYS_setns,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    #[cfg(target_arch = "x86_64")]
    SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    SYS_ioperm,
];
