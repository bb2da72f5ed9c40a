//! The processes' privileges.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use tund_lab::rights::has_nobody;
use tund_lab::{Host, Process, wait_until};

use super::ending::engine;
use super::support::*;

fn status(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |line: &str| {
        line.split_once(':')
            .map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    text.lines().filter_map(field).collect()
}

#[test]
fn the_engine_has_another_user_and_no_capability() {
    let pair = pair();
    let user = if has_nobody() { "[run]\nuser = 'nobody'" } else { "" };
    let (fri, _mon) = pair.link(&Toml::tun_fri().with(user), &Toml::tun_mon());
    let engine = status(engine(&pair.fri, &fri));
    let parent = status(fri.pid());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(engine[set], "0000000000000000", "{set} of the engine");
    }
    assert_eq!(engine["NoNewPrivs"], "1");
    assert_ne!(parent["CapEff"], "0000000000000000");
    if has_nobody() {
        assert_eq!(engine["Uid"], "65534 65534 65534 65534");
        assert_eq!(engine["Gid"], "65534 65534 65534 65534");
        assert_eq!(engine["Groups"], "");
    } else {
        assert_eq!(engine["Uid"], parent["Uid"], "no other user exists here");
    }
}

#[test]
fn the_engine_is_locked_in_and_the_log_says_how() {
    let pair = pair();
    let (fri, mon) =
        pair.link(&Toml::tun_fri().with("[run]\nsandbox = 'require'\nverb = 3"), &Toml::tun_mon());
    let engine = engine(&pair.fri, &fri);
    assert_eq!(status(engine)["Seccomp"], "2");
    assert_eq!(fs::read_dir(format!("/proc/{engine}/root")).unwrap().count(), 0, "the root is not empty");
    let line = fri.wait_line("engine: ", SOON).unwrap();
    for part in ["no capabilities", "empty root", "Landlock", "files", "system calls"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!mon.text().contains("lacks"), "{}", mon.text());
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn without_a_sandbox_the_privileges_are_dropped_all_the_same() {
    let pair = pair();
    let (fri, _mon) = pair.link(&Toml::tun_fri().with("[run]\nsandbox = 'off'"), &Toml::tun_mon());
    let engine = status(engine(&pair.fri, &fri));
    assert_eq!((&*engine["Seccomp"], &*engine["CapEff"]), ("0", "0000000000000000"));
}

#[test]
fn a_host_without_landlock_is_said_and_refused_where_it_is_required() {
    let pair = pair();
    let _mon = pair.start_mon(&Toml::tun_mon());
    // The children of this thread inherit filters, so they must not outlive it.
    let on_old_kernel = || {
        let hidden = [(libc::SYS_landlock_create_ruleset, Vec::new())].into();
        let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(hidden, SeccompAction::Allow, absent, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        let mut refused = pair.start_fri(&Toml::tun_fri().with("[run]\nsandbox = 'require'"));
        assert_eq!(exit_code(&mut refused), 69, "{}", refused.text());
        assert!(refused.text().contains("run.sandbox") && refused.text().contains("Landlock"));
        assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
        let fri = pair.start_fri(&Toml::tun_fri());
        fri.wait_line("lacks Landlock", SOON).unwrap();
        fri.wait_line(UP, SOON).unwrap();
    };
    thread::scope(|scope| scope.spawn(on_old_kernel).join().unwrap());
}

#[test]
fn a_root_directory_that_is_not_empty_is_a_mistake() {
    let pair = pair();
    let mut fri = pair.start_fri(&Toml::tun_fri().with("[run]\nchroot = '/'"));
    assert_eq!(exit_code(&mut fri), 78, "{}", fri.text());
    assert!(fri.text().contains("run.chroot: /"), "{}", fri.text());
}

/// The targets of a process's descriptors, without socket numbers.
fn open_on(pid: u32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let name = |link: fs::DirEntry| {
        let target = fs::read_link(link.path()).ok()?.display().to_string();
        Some(target.trim_end_matches(']').trim_end_matches(|c: char| c.is_ascii_digit()).to_owned())
    };
    let mut names: Vec<_> = links.filter_map(name).collect();
    names.sort();
    names
}

#[test]
fn the_engine_holds_what_it_needs_and_the_parent_one_socket_that_it_never_reads() {
    let pair = pair();
    let _mon = pair.start_mon(&Toml::tun_mon());
    // Like a careless program: with a pipe as standard error, and a file left open.
    let file = pair.fri.file("fri.toml", &Toml::tun_fri().text()).unwrap();
    let start = format!("exec 7< /etc/passwd; exec {TUND} --config {}", file.display());
    let fri = pair.fri.spawn(&["sh", "-c", &start]).unwrap();
    fri.wait_line(UP, SOON).unwrap();
    let engine = engine(&pair.fri, &fri);
    let mut expected = vec!["/dev/net/tun"];
    expected.extend(["/dev/null"; 3]);
    // Wake-ups for the worker, at both ends, and for the runtime. Event polls: each one's own, the runtime's copy, and the stream
    // worker's for the peer and for strangers.
    expected.extend(["anon_inode:[eventfd"; 3]);
    expected.extend(["anon_inode:[eventpoll"; 5]);
    // The UDP socket, the peer's, and the channel to the parent, of which the runtime has a copy.
    expected.extend(["socket:["; 4]);
    wait_until("the peer's socket", SOON, || open_on(engine).len() == expected.len()).unwrap();
    assert_eq!(open_on(engine), expected);
    // The parent keeps the UDP socket, to bind others beside it, and never reads it.
    let sockets = pair.fri.run("ss -unpa").unwrap();
    let of_parent = |line: &&str| line.contains(&format!("pid={},", fri.pid()));
    assert_eq!(sockets.lines().filter(of_parent).count(), 1, "{sockets}");
}

/// Starts fri as an ordinary user, if there is another than root here, with this capability set only.
fn start_with_capabilities(host: &Host, toml: &Toml, set: &str) -> Process {
    // Where it can read everything it needs, and nobody else its key.
    let dir = host.dir().join("own");
    fs::create_dir(&dir).unwrap();
    fs::copy(host.dir().join("static.key"), dir.join("static.key")).unwrap();
    tund_lab::install(TUND.as_ref(), &dir.join("tund")).unwrap();
    let toml = toml.clone().with("[run]\nruntime-dir = 'run'\nverb = 3");
    fs::write(dir.join("fri.toml"), toml.text()).unwrap();
    let dir = dir.display();
    let bounding = format!("--bounding-set=-all{set}");
    let inheritable = format!("--inh-caps=-all{set}");
    let [program, file] = ["tund", "fri.toml"].map(|name| format!("{dir}/{name}"));
    let mut words = vec!["setpriv", &bounding, &inheritable];
    let ambient = format!("--ambient-caps=-all{set}");
    if has_nobody() {
        host.run(&format!("chown -R 65534:65534 {dir}")).unwrap();
        // Debian's /dev/net/tun is open to everybody, but not every container's.
        host.shell(&format!("mknod -m 666 {dir}/node c 10 200 && mount --bind {dir}/node /dev/net/tun"))
            .unwrap();
        words.extend(["--reuid=65534", "--regid=65534", "--clear-groups", &ambient]);
    }
    words.extend(["--", &program, "--config", &file]);
    host.spawn(&words).unwrap()
}

/// Rebinding a socket takes CAP_NET_RAW, which the units do not have.
#[test]
fn with_net_admin_alone_a_link_takes_a_new_socket_for_an_interface_that_came_back() {
    let pair = pair();
    let _mon = pair.start_mon(&Toml::tun_mon());
    let toml = Toml::tun_fri().top("remote = '10.0.0.2:1417'\nlisten = 1417\nbind-device = 'eth0'");
    let fri = start_with_capabilities(&pair.fri, &toml, ",+net_admin");
    fri.wait_line(UP, SOON).unwrap();
    let mark = fri.mark();
    pair.fri.run("ip link del eth0").unwrap();
    fri.wait_line_after(mark, "[bind-device-missing]", SOON).unwrap();
    pair.net.cable(&pair.fri, "eth0", &pair.mon, "eth0").unwrap();
    pair.address();
    fri.wait_line_after(mark, "the link gets a new socket", SOON).unwrap();
    fri.wait_line_after(mark, UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn with_net_admin_alone_the_engine_is_split_off_all_the_same() {
    let pair = pair();
    let _mon = pair.start_mon(&Toml::tun_mon());
    let toml = Toml::tun_fri().with("[[route]]\nto = '192.168.66.0/24'");
    let mut fri = start_with_capabilities(&pair.fri, &toml, ",+net_admin");
    fri.wait_line(UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    let (parent, engine) = (status(fri.pid()), status(engine(&pair.fri, &fri)));
    assert_eq!(parent["CapEff"], "0000000000001000", "the parent has CAP_NET_ADMIN alone");
    assert_eq!((&*engine["CapEff"], &*engine["CapAmb"]), ("0000000000000000", "0000000000000000"));
    assert_eq!((&*engine["NoNewPrivs"], &*engine["Seccomp"]), ("1", "2"));
    assert_eq!(engine["Uid"], parent["Uid"]);
    assert_eq!(fri.terminate(SOON).unwrap(), 0, "{}", fri.text());
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
}

#[test]
fn without_any_capability_a_device_of_somebody_else_is_used_and_left() {
    let pair = pair();
    let _mon = pair.start_mon(&Toml::tun_mon());
    // As systemd-networkd does, with User=.
    let user = if has_nobody() { "65534" } else { "0" };
    for command in [
        &format!("ip tuntap add dev tun7 mode tun user {user}"),
        "ip link set dev tun7 mtu 1400 up",
        "ip addr add 192.168.86.81 peer 192.168.86.18 dev tun7",
    ] {
        pair.fri.run(command).unwrap();
    }
    let device =
        "mode = 'tun'\nname = 'tun7'\nconfigure = false\naddress = '192.168.86.81'\npeer = '192.168.86.18'";
    let toml = Toml::tun_fri().device(device);
    let mut fri = start_with_capabilities(&pair.fri, &toml, "");
    fri.wait_line(UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    assert_eq!(status(fri.pid())["CapEff"], "0000000000000000");
    assert_eq!(status(engine(&pair.fri, &fri))["Seccomp"], "2");
    assert_eq!(fri.terminate(SOON).unwrap(), 0, "{}", fri.text());
    assert!(pair.fri.run("ip addr show dev tun7").unwrap().contains("192.168.86.81"));
}

#[test]
fn without_any_capability_what_needs_one_is_named_at_the_start() {
    let pair = pair();
    let script = script(&pair.fri, "up", "true");
    let tables =
        format!("[[route]]\nto = '192.168.66.0/24'\n[scripts]\nsecurity = 2\nup = '{}'", script.display());
    let mut fri = start_with_capabilities(&pair.fri, &Toml::tun_fri().with(&tables), "");
    assert_eq!(exit_code(&mut fri), 77, "{}", fri.text());
    let line = fri.wait_line("without CAP_NET_ADMIN", SOON).unwrap();
    for part in ["device.configure", "[[route]]", "[scripts]"] {
        assert!(line.contains(part), "{line}");
    }
}

/// The digits of a key file, and the same key in the other usual notations.
fn writings(path: &std::path::Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let digits = text.lines().last().unwrap().trim().to_owned();
    let script = format!(
        "import base64, binascii\ntext = '{digits}'\nhexadecimal = len(text) == 64\n\
         key = bytes.fromhex(text) if hexadecimal else base64.b64decode(text)\n\
         print(key.hex(), base64.b64encode(key).decode(), list(key), sep='\\n')"
    );
    let output = std::process::Command::new(tund_lab::rights::PYTHON).args(["-c", &script]).output().unwrap();
    let mut writings: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(writings.len(), 3);
    writings.push(digits);
    writings
}

#[test]
fn keys_are_in_no_log_at_any_level_and_in_no_argument_or_environment() {
    for config in [|toml: Toml| toml, Toml::handshake] {
        let pair = pair();
        let verbose = "[run]\nverb = 9";
        let (mut fri, mon) =
            pair.link(&config(Toml::tun_fri()).with(verbose), &config(Toml::tun_mon()).with(verbose));
        assert_pings(&pair.fri, "192.168.86.18");
        let shown: String = ["cmdline", "environ"]
            .iter()
            .flat_map(|file| [fri.pid(), engine(&pair.fri, &fri)].map(|pid| format!("/proc/{pid}/{file}")))
            .map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
            .collect();
        assert_eq!(fri.terminate(SOON).unwrap(), 0);
        for writing in writings(&pair.fri.dir().join("static.key")) {
            assert!(
                !fri.text().contains(&writing) && !mon.text().contains(&writing) && !shown.contains(&writing)
            );
        }
    }
}
