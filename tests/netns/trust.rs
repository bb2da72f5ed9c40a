//! Files that another user has put, or can put, where root's link keeps its own.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon
//! ```

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use tund_lab::Process;
use tund_lab::rights::has_nobody;

use super::operation::ask;
use super::support::*;

const NOBODY: u32 = 65534;
const CONFIGURATION: i32 = 78;

fn nobody(path: &Path) {
    assert!(has_nobody(), "this test gives files to another user: run it as root, not in a user namespace");
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

/// The future name of fri's directory below `run` or `state`.
fn leaf(pair: &Pair, base: &str) -> PathBuf {
    let inode = pair.fri.run("stat -L -c %i /proc/self/ns/net").unwrap();
    pair.fri.dir().join(base).join(format!("fri-{}", inode.trim()))
}

/// A ledger that adds an address and a route, valid for this boot.
fn plant_ledger(pair: &Pair, directory: &Path) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let shown = pair.fri.run("ip -o link show eth0").unwrap();
    let index = shown.split(':').next().unwrap().trim();
    let steps = [
        format!(
            r#"{{"AddAddress":{{"index":{index},"name":"eth0","address":"172.31.9.9/24","peer":null}}}}"#
        ),
        format!(
            r#"{{"AddRoute":{{"to":"172.30.0.0/16","gateway":"10.0.0.66","interface":{index},"interface_name":"eth0","metric":null,"table":254,"protocol":88}}}}"#
        ),
    ];
    fs::write(directory.join("ledger"), format!("{boot}{}\n{}\n", steps[0], steps[1])).unwrap();
}

fn assert_refused(pair: &Pair, mut fri: Process, place: &Path, remedy: &str) {
    assert_eq!(exit_code(&mut fri), CONFIGURATION, "{}", fri.text());
    for part in [place.to_str().unwrap(), remedy] {
        assert!(fri.text().contains(part), "no {part:?} in:\n{}", fri.text());
    }
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
}

fn shown(pair: &Pair) -> String {
    pair.fri.run("ip addr show dev eth0").unwrap() + &routes(&pair.fri)
}

#[test]
fn a_ledger_that_somebody_else_planted_is_not_read() {
    let pair = pair();
    let before = shown(&pair);
    let directory = leaf(&pair, "run");
    fs::create_dir_all(&directory).unwrap();
    plant_ledger(&pair, &directory);
    // All of it his, or only what is below root's, or root's but open to all.
    let run = pair.fri.dir().join("run");
    for path in [&run, &directory] {
        nobody(path);
        let fri = pair.start_fri(&Toml::tun_fri());
        assert_refused(&pair, fri, path, "chown root");
        chown(path, Some(0), Some(0)).unwrap();
    }
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    assert_refused(&pair, pair.start_fri(&Toml::tun_fri()), &directory, "chmod go-w");
    assert_eq!(shown(&pair), before);
    // A ledger made root's without a check still only undoes.
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    let mut fri = pair.start_fri(&Toml::tun_fri());
    fri.wait_line("undoes nothing of tund's", SOON).unwrap();
    fri.wait_line("[no-answer]", SOON).unwrap();
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert_eq!(shown(&pair), before);
}

#[test]
fn pid_file_key_log_and_control_socket_go_into_no_directory_of_somebody_else() {
    let pair = pair();
    let place = pair.fri.dir().join("place");
    fs::create_dir(&place).unwrap();
    nobody(&place);
    let precious = pair.fri.file("precious", "kept").unwrap();
    for name in ["pid", "keys", "control.sock"] {
        symlink(&precious, place.join(name)).unwrap();
    }
    let file = |name: &str| place.join(name).display().to_string();
    let pid = Toml::tun_fri().with(&format!("[run]\npid-file = '{}'", file("pid")));
    let mut fri = pair.start_fri(&pid);
    assert_eq!(exit_code(&mut fri), 69, "{}", fri.text());
    assert!(fri.text().contains(&place.display().to_string()), "{}", fri.text());
    let keys = start_with(&pair.fri, "fri", &Toml::tun_fri().text(), &["--key-log", &file("keys")]);
    assert_refused(&pair, keys, &place, "chown root");
    // The link runs without a socket.
    let socket = Toml::tun_fri().with(&format!("[status]\nsocket = '{}'", file("control.sock")));
    let mut fri = pair.start_fri(&socket);
    let line = fri.wait_line("control.sock", SOON).unwrap();
    assert!(line.contains(&format!("chown root {}", place.display())), "{line}");
    fri.wait_line("[no-answer]", SOON).unwrap();
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
    assert_eq!(fs::metadata(&precious).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 3);
}

#[test]
fn whoever_serves_a_socket_as_another_user_is_not_asked() {
    let pair = pair();
    let directory = leaf(&pair, "run");
    fs::create_dir_all(&directory).unwrap();
    let serve = |uid: u32| {
        // It owns its socket, in a directory of root's.
        let socket = directory.join("control.sock");
        let _ = fs::remove_file(&socket);
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        let script = format!(
            "import os, socket\nos.setuid({uid})\ns = socket.socket(socket.AF_UNIX)\ns.bind('{}')\ns.listen()\n\
             print('serving', flush=True)\nc, _ = s.accept()\nc.recv(999)\n\
             c.send(b'{{\"error\":\"tund.link.Refused\",\"parameters\":{{\"reason\":\"a\\\\u001b[31mb\"}}}}\\0')",
            socket.display()
        );
        let server = pair.fri.spawn(&["/usr/bin/python3", "-c", &script]).unwrap();
        server.wait_line("serving", SOON).unwrap();
        server
    };
    let server = serve(NOBODY);
    let (code, text) = ask(&pair.fri, &["status", "fri"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("(uid 65534)"), "{text}");
    drop(server);
    let _server = serve(0);
    let (_, text) = ask(&pair.fri, &["status", "fri"]);
    assert!(text.contains("a_[31mb") && !text.contains('\x1b'), "{text:?}");
    // Nor does it look for anyone where another user decides who is found.
    let run = pair.fri.dir().join("run");
    nobody(&run);
    let (code, text) = ask(&pair.fri, &["status"]);
    assert_eq!(code, Some(77), "{text}");
    assert!(text.contains(&run.display().to_string()) && text.contains("(uid 65534"), "{text}");
}
