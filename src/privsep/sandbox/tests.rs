//! A hostile engine: a process that is confined like the engine, then tries an intruder's attacks. Each attack is also tried unconfined, where it
//! must succeed: otherwise its refusal would prove nothing.

mod attacks;

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use seccompiler::SeccompAction;

use super::*;
use crate::control::api;
use crate::control::server::Server;
use crate::device;
use crate::packet::layer::Mode;
use crate::privsep::message::Identity;
use crate::route::netlink::Netlink;
use crate::route::plan::Step;
use crate::sys;
use crate::testing::Scratch;
use attacks::*;

#[test]
fn every_attack_succeeds_without_the_lock() {
    if let Some(told) = told() {
        play(&told);
    }
    for (name, outcome) in outcomes("every_attack_succeeds_without_the_lock", "none") {
        assert_eq!(outcome, Outcome::Succeeded, "{name}");
    }
}

#[test]
fn a_hostile_engine_is_refused_every_attack() {
    if let Some(told) = told() {
        play(&told);
    }
    // Even with its parent's uid.
    for identity in ["nobody", "kept"] {
        for (name, outcome) in outcomes("a_hostile_engine_is_refused_every_attack", identity) {
            let deadly = [
                "read the parent's memory at once",
                "trace the parent",
                "run a program",
                "mount",
                "enter a namespace",
            ];
            let expected = if deadly.contains(&name) { Outcome::Killed } else { Outcome::Refused };
            assert_eq!(outcome, expected, "{name} as {identity}");
        }
    }
}

#[test]
fn landlock_alone_keeps_files_and_other_processes_out_of_reach() {
    const TEST: &str = "landlock_alone_keeps_files_and_other_processes_out_of_reach";
    if let Some(told) = told() {
        play(&told);
    }
    let refused: Vec<_> = outcomes(TEST, "landlock")
        .into_iter()
        .filter_map(|(name, outcome)| (outcome != Outcome::Succeeded).then_some(name))
        .collect();
    for name in [
        "read a file",
        "write a file",
        "list a directory",
        "read the parent's memory",
        "trace the parent",
        "signal the parent",
        "signal the parent's thread",
        "open a TCP socket",
        "run a program",
    ] {
        assert!(refused.contains(&name), "{name}");
    }
}

#[test]
fn a_locked_engine_does_its_work() {
    const TEST: &str = "a_locked_engine_does_its_work";
    if told().is_some() {
        std::process::exit(work().map_or_else(refusal, |()| 0));
    }
    let (outcome, text) = in_child(TEST, "work");
    assert_eq!(outcome, Outcome::Succeeded, "{text}");
}

/// What engine and workers do once confined: threads, a runtime, memory, clocks, datagrams, a panic.
fn work() -> Result<()> {
    std::fs::create_dir("/mnt/empty")?;
    let lo = Step::SetLink {
        index: 1,
        name: "lo".to_owned(),
        mtu: None,
        mac: None,
        txqueuelen: None,
        up: Some(true),
    };
    Netlink::open()?.apply(&lo)?;
    let (one, two) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut caller = std::net::TcpStream::connect(listener.local_addr()?)?;
    std::io::Write::write_all(&mut caller, b"by a stream")?;
    let device = device::open(Mode::Tun, None, 2)?;
    let confinement = Confinement {
        root: Some("/mnt/empty".into()),
        ..confinement(Identity::Switch { uid: 65534, gid: 65534 })
    };
    let protections = lock(Role::Engine, &confinement).map_err(Error::other)?;
    let expected =
        "uid 65534, gid 65534, no capabilities, no new privileges, no core dumps, empty root, Landlock ";
    assert!(protections.in_force.starts_with(expected), "{protections:?}");
    let port = two.local_addr()?;
    one.set_nonblocking(true)?;
    let worker = std::thread::Builder::new().name("lane0".into()).spawn(move || -> Result<()> {
        let mut buffer = [0; 16];
        let (length, from) = two.recv_from(&mut buffer)?;
        two.send_to(&buffer[..length], from).map(drop)
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async move {
        let one = tokio::net::UdpSocket::from_std(one)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        one.send_to(b"through", port).await?;
        let mut buffer = vec![0; 1 << 22];
        let (length, _) = one.recv_from(&mut buffer).await?;
        buffer.truncate(length);
        std::io::Result::Ok(buffer)
    })?;
    assert_eq!(answer, b"through");
    let (stream, path) = crate::transport::stream::accept(&listener)?;
    assert_eq!((path.remote, path.stream), (caller.local_addr()?, true));
    assert_eq!(rustix::io::read(&stream, &mut [0; 16])?, 11);
    worker.join().unwrap()?;
    for attached in [true, false] {
        sys::attach_queue(&device.queues[1], attached)?;
    }
    sys::set_offload(&device.queues[0], sys::Offload::Tcp)?;
    rustix::rand::getrandom(&mut [0; 32][..], rustix::rand::GetRandomFlags::empty())?;
    assert!(std::panic::catch_unwind(|| panic!("caught")).is_err());
    Ok(())
}

#[test]
fn what_the_kernel_lacks_is_named_and_refused_where_it_is_required() {
    const TEST: &str = "what_the_kernel_lacks_is_named_and_refused_where_it_is_required";
    if told().is_some() {
        let hidden = [(libc::SYS_landlock_create_ruleset, seccomp::Use::Any)];
        let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        seccomp::install(&hidden, absent, SeccompAction::Allow).unwrap();
        let require = Confinement { root: Some("/mnt/absent".into()), ..confinement(Identity::Keep) };
        let error = lock(Role::Engine, &require).unwrap_err();
        let lacking = [
            "an empty root (/mnt/absent: No such file",
            "Landlock (not built into this kernel, or blocked by the seccomp filter",
        ];
        assert!(lacking.iter().all(|part| error.to_string().contains(part)), "{error}");
        std::process::exit(0);
    }
    let (outcome, text) = in_child(TEST, "require");
    assert_eq!(outcome, Outcome::Succeeded, "{text}");
}

#[test]
fn a_locked_engine_starts_no_thread_once_all_have_started() {
    const TEST: &str = "a_locked_engine_starts_no_thread_once_all_have_started";
    if told().is_some() {
        engine(Identity::Switch { uid: 65534, gid: 65534 });
        start_no_more(Sandbox::Require).unwrap();
        let thread = std::thread::Builder::new().spawn(|| {});
        std::process::exit(thread.map_or_else(refusal, |_| 0));
    }
    assert_eq!(in_child(TEST, "thread").0, Outcome::Refused);
}

#[test]
fn a_locked_engine_sets_what_it_must_on_its_socket_and_nothing_once_it_runs() {
    const TEST: &str = "a_locked_engine_sets_what_it_must_on_its_socket_and_nothing_once_it_runs";
    // One that it sets, and one of each level that would serve an intruder.
    let options = [
        (true, libc::IPPROTO_IP, libc::IP_PKTINFO),
        (false, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP),
        (false, libc::SOL_SOCKET, libc::SO_REUSEPORT),
        (false, libc::SOL_UDP, libc::UDP_CORK),
    ];
    if let Some(told) = told() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        // A running thread must be refused, not only one started later.
        let (ask, asked) = std::sync::mpsc::channel::<(i32, i32)>();
        let (tell, answer) = std::sync::mpsc::channel();
        let lock = |now: &str| match now {
            "before" if told != "none" => engine(Identity::Switch { uid: 65534, gid: 65534 }),
            "after" if told == "running" => start_no_more(Sandbox::Require).unwrap(),
            _ => {}
        };
        lock("before");
        std::thread::spawn(move || {
            for (level, name) in asked {
                let (fd, one) = (socket.as_raw_fd() as usize, (&raw const ON) as usize);
                let set =
                    raw(libc::SYS_setsockopt, [fd, level as usize, name as usize, one, size_of::<i32>(), 0]);
                tell.send(set.is_ok()).unwrap();
            }
        });
        lock("after");
        let set = options.map(|(_, level, name)| {
            ask.send((level, name)).unwrap();
            answer.recv().unwrap()
        });
        let expected = options.map(|(needed, ..)| told == "none" || told == "starting" && needed);
        assert_eq!(set, expected, "{told}");
        std::process::exit(0);
    }
    for told in ["none", "starting", "running"] {
        assert_eq!(in_child(TEST, told).0, Outcome::Succeeded, "{told}");
    }
}

static ON: i32 = 1;

/// Confined processes of one user cannot reach each other; unconfined, they could.
#[test]
fn engines_with_one_uid_cannot_reach_each_other() {
    const TEST: &str = "engines_with_one_uid_cannot_reach_each_other";
    const NOBODY: Identity = Identity::Switch { uid: 65534, gid: 65534 };
    type OnOther = (&'static str, Outcome, fn(usize) -> Result<()>);
    let attacks: [OnOther; 5] = [
        ("signal", Outcome::Refused, |it| raw(libc::SYS_kill, [it, libc::SIGCONT as usize, 0, 0, 0, 0])),
        ("signal its thread", Outcome::Refused, |it| {
            raw(libc::SYS_tgkill, [it, it, libc::SIGCONT as usize, 0, 0, 0])
        }),
        ("open its memory", Outcome::Refused, |it| File::open(format!("/proc/{it}/mem")).map(drop)),
        ("read its memory", Outcome::Killed, |it| raw(libc::SYS_process_vm_readv, [it, 0, 0, 0, 0, 0])),
        ("trace", Outcome::Killed, |it| raw(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, it, 0, 0, 0, 0])),
    ];
    if let Some(told) = told() {
        let (locked, attack) = told.split_once(':').unwrap();
        let mut other = Command::new("sleep");
        let other = other.arg("9").uid(65534).gid(65534).stdout(Stdio::null()).stderr(Stdio::null());
        let mut other = other.spawn().unwrap();
        match locked {
            "locked" => engine(NOBODY),
            _ => identity::take_on(NOBODY).unwrap(),
        }
        let attack = attacks.iter().find(|(name, ..)| *name == attack).unwrap().2;
        let code = attack(other.id() as usize).map_or_else(refusal, |()| 0);
        // A confined one cannot kill it; it ends by itself.
        let _ = other.kill();
        std::process::exit(code);
    }
    for (name, expected, _) in attacks {
        assert_eq!(in_child(TEST, &format!("user alone:{name}")).0, Outcome::Succeeded, "{name}");
        assert_eq!(in_child(TEST, &format!("locked:{name}")).0, expected, "{name}");
    }
}

#[test]
fn a_locked_resolver_looks_names_up_and_nothing_else() {
    const TEST: &str = "a_locked_resolver_looks_names_up_and_nothing_else";
    match told().as_deref() {
        None => {}
        Some("resolver:look up") => {
            lock(Role::Resolver, &confinement(Identity::Keep)).unwrap();
            let found = ("localhost", 1417).to_socket_addrs().map(Vec::from_iter);
            let expected = SocketAddr::from(([127, 0, 0, 1], 1417));
            let code = found.map_or_else(refusal, |found| i32::from(!found.contains(&expected)));
            std::process::exit(code);
        }
        Some("resolver:call on") => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            lock(Role::Resolver, &confinement(Identity::Keep)).unwrap();
            let called = TcpStream::connect(listener.local_addr().unwrap());
            std::process::exit(called.map_or_else(refusal, |_| 0));
        }
        Some("resolver:call path") => {
            name_modules("files dns").unwrap();
            let _listener = UnixListener::bind("/mnt/socket").unwrap();
            lock(Role::Resolver, &confinement(Identity::Keep)).unwrap();
            std::process::exit(UnixStream::connect("/mnt/socket").map_or_else(refusal, |_| 0));
        }
        Some("resolver:call abstract") => {
            let address = UnixAddress::from_abstract_name("tund-test").unwrap();
            let _listener = UnixListener::bind_addr(&address).unwrap();
            lock(Role::Resolver, &confinement(Identity::Keep)).unwrap();
            std::process::exit(UnixStream::connect_addr(&address).map_or_else(refusal, |_| 0));
        }
        Some(told) => play(told),
    }
    let (outcome, text) = in_child(TEST, "resolver:look up");
    assert_eq!(outcome, Outcome::Succeeded, "{text}");
    for name in ["call on", "call path", "call abstract"] {
        assert_eq!(in_child(TEST, &format!("resolver:{name}")).0, Outcome::Refused, "{name}");
    }
    let allowed = ["open a UDP socket", "make code"];
    for (name, outcome) in outcomes(TEST, "resolver").into_iter().filter(|(name, _)| !allowed.contains(name))
    {
        assert_ne!(outcome, Outcome::Succeeded, "{name}");
    }
}

/// Makes this child's nsswitch.conf name these modules for hosts.
fn name_modules(modules: &str) -> Result<()> {
    std::fs::write("/mnt/nsswitch.conf", format!("hosts: {modules}\n"))?;
    let bind = ["--bind", "/mnt/nsswitch.conf", "/etc/nsswitch.conf"];
    assert!(Command::new("mount").args(bind).status()?.success());
    Ok(())
}

/// Asks a link to end, over the socket at `path`: confined as `told` says, and waiting for an answer or not.
fn command(told: &str) -> Result<()> {
    let [lock_name, waits, path] = told.splitn(3, ':').collect::<Vec<_>>()[..] else { panic!("{told}") };
    // One that asks a service, so that the resolver may have sockets in the file system.
    name_modules("mdns4 dns")?;
    LOCKS.iter().find(|(name, _)| *name == lock_name).unwrap().1();
    let mut stream = UnixStream::connect(path)?;
    match stream.write_all(&api::request(api::Method::Down)) {
        // It may be refused before it has asked.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
        Ok(()) | Err(_) => {}
    }
    if waits == "waits" {
        let mut answer = [0; 999];
        let length = stream.read(&mut answer)?;
        println!("answer: {}", String::from_utf8_lossy(&answer[..length]));
    }
    Ok(())
}

#[test]
fn whoever_is_locked_in_commands_no_link_also_with_the_uid_of_its_parent() {
    const TEST: &str = "whoever_is_locked_in_commands_no_link_also_with_the_uid_of_its_parent";
    if let Some(told) = told() {
        std::process::exit(command(&told).map_or_else(refusal, |()| 0));
    }
    let scratch = Scratch::new();
    let path = scratch.path().join("control.sock");
    let mut server = Server::bind(&path).unwrap();
    let tell = |lock: &str, waits: &str| format!("{lock}:{waits}:{}", path.display());
    // Serves the socket meanwhile.
    let mut serve = |lock: &str| {
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let child = scope.spawn(|| {
                let result = in_child(TEST, &tell(lock, "waits"));
                ended.store(true, std::sync::atomic::Ordering::SeqCst);
                result
            });
            let mut taken = Vec::new();
            while !ended.load(std::sync::atomic::Ordering::SeqCst) {
                for (client, method) in server.take() {
                    taken.push(method);
                    server.answer(client, &api::reply(&serde_json::json!({})));
                }
                let mut polled: Vec<_> =
                    server.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
                let soon = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                let _ = poll(&mut polled, Some(&soon));
            }
            (taken, child.join().unwrap().1)
        })
    };
    let (taken, text) = serve("none");
    assert_eq!(taken, [api::Method::Down], "{text}");
    assert!(text.contains(r#"answer: {"parameters":{}}"#), "{text}");
    let (taken, text) = serve("resolver");
    assert_eq!(taken, [], "{text}");
    assert!(text.contains("answer: ") && text.contains("has given up all rights"), "{text}");
    // Nor does one that exits before anybody looks, as its pid may then be reused.
    assert_eq!(in_child(TEST, &tell("resolver", "leaves")).0, Outcome::Succeeded);
    assert_eq!(server.take(), []);
    // The engine has no sockets at all.
    for lock in ["kept", "nobody"] {
        assert_eq!(in_child(TEST, &tell(lock, "leaves")).0, Outcome::Refused, "{lock}");
    }
}
