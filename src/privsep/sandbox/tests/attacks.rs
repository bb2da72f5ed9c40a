//! The attacks, and how a confined child process tries one.

use super::*;

/// What a test's child process does: the name of an attack and of a lock.
pub(super) const ROLE: &str = "TUND_TEST_ATTACK";
/// Signal of a forbidden system call.
pub(super) const SIGSYS: i32 = libc::SIGSYS;

/// How the child is confined.
pub(super) const LOCKS: [(&str, fn()); 5] = [
    ("none", || {}),
    ("landlock", || drop(landlock::restrict(Role::Engine, false).unwrap())),
    ("kept", || engine(Identity::Keep)),
    ("nobody", || engine(Identity::Switch { uid: 65534, gid: 65534 })),
    ("resolver", || drop(lock(Role::Resolver, &confinement(Identity::Keep)).unwrap())),
];

pub(super) type Attack = (&'static str, fn() -> Result<()>);

pub(super) const ATTACKS: [Attack; 19] = [
    ("read a file", || File::open("/etc/hostname").map(drop)),
    ("read a key", || File::open("/etc/shadow").map(drop)),
    ("write a file", || File::create("/mnt/tund-test").map(drop)),
    ("list a directory", || std::fs::read_dir("/").map(drop)),
    ("read the parent's memory", || File::open(format!("/proc/{}/mem", parent())).map(drop)),
    ("read the parent's memory at once", || raw(libc::SYS_process_vm_readv, [parent(), 0, 0, 0, 0, 0])),
    ("trace the parent", || raw(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, parent(), 0, 0, 0, 0])),
    ("signal the parent", || raw(libc::SYS_kill, [parent(), libc::SIGCONT as usize, 0, 0, 0, 0])),
    ("signal the parent's thread", || {
        raw(libc::SYS_tgkill, [parent(), parent(), libc::SIGCONT as usize, 0, 0, 0])
    }),
    ("have the parent signalled", || raw(libc::SYS_fcntl, [0, libc::F_SETOWN as usize, parent(), 0, 0, 0])),
    ("change an interface", || {
        let (index, name) = (1, "lo".to_owned());
        let up = Step::SetLink { index, name, mtu: None, mac: None, txqueuelen: None, up: Some(true) };
        Netlink::open()?.apply(&up).map(drop)
    }),
    ("open a UDP socket", || UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("open a TCP socket", || TcpListener::bind("127.0.0.1:0").map(drop)),
    ("run a program", || Err(Command::new("true").exec())),
    ("start a process", || Command::new("true").status().map(drop)),
    ("mount", || {
        let (source, target, kind) = (c"none".as_ptr(), c"/mnt".as_ptr(), c"tmpfs".as_ptr());
        raw(libc::SYS_mount, [source as usize, target as usize, kind as usize, 0, 0, 0])
    }),
    ("enter a namespace", || raw(libc::SYS_unshare, [libc::CLONE_NEWUTS as usize, 0, 0, 0, 0, 0])),
    ("become root", || raw(libc::SYS_setresuid, [0; 6])),
    ("make code", || {
        let (rights, kind) = (libc::PROT_EXEC | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        raw(libc::SYS_mmap, [0, 4096, rights as usize, kind as usize, usize::MAX, 0])
    }),
];

pub(super) fn raw(number: i64, arguments: [usize; 6]) -> Result<()> {
    sys::attempt(number, arguments).map(drop)
}

pub(super) fn parent() -> usize {
    rustix::process::getppid().unwrap().as_raw_pid() as usize
}

pub(super) fn confinement(identity: Identity) -> Confinement {
    Confinement { identity, sandbox: Sandbox::Require, root: None, nice: None }
}

pub(super) fn engine(identity: Identity) {
    // Any empty directory will do.
    std::fs::create_dir("/mnt/empty").unwrap();
    let confinement = Confinement { root: Some("/mnt/empty".into()), ..confinement(identity) };
    lock(Role::Engine, &confinement).unwrap();
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Succeeded,
    Refused,
    Killed,
}

/// Runs this test again in its own namespaces, where /mnt is empty; [`told`] gives it `what`.
pub(super) fn in_child(test: &str, what: &str) -> (Outcome, String) {
    assert!(rustix::process::geteuid().is_root(), "this test makes namespaces: run it as root");
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--", "sh", "-c", "mount -t tmpfs none /mnt && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("privsep::sandbox::tests::{test}"), "--nocapture"])
        .env(ROLE, what)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let outcome = if output.status.signal() == Some(SIGSYS) {
        Outcome::Killed
    } else if text.contains("refused: ") {
        Outcome::Refused
    } else {
        assert!(output.status.success(), "{what}: {}: {text}", output.status);
        Outcome::Succeeded
    };
    (outcome, text.into_owned())
}

pub(super) fn told() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// The child's part: lock, then attack. It exits here, since the harness cannot go on in a confined process.
pub(super) fn play(told: &str) -> ! {
    let (lock, attack) = told.split_once(':').unwrap();
    LOCKS.iter().find(|(name, _)| *name == lock).unwrap().1();
    let attack = ATTACKS.iter().find(|(name, _)| *name == attack).unwrap().1;
    let code = attack().map_or_else(refusal, |()| 0);
    std::process::exit(code)
}

pub(super) fn refusal(error: Error) -> i32 {
    writeln!(std::io::stderr(), "refused: {error}").unwrap();
    1
}

pub(super) fn outcomes(test: &str, lock: &str) -> Vec<(&'static str, Outcome)> {
    let outcome = |(name, _): &(&'static str, _)| (*name, in_child(test, &format!("{lock}:{name}")).0);
    ATTACKS.iter().map(outcome).collect()
}
