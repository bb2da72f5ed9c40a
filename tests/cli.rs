//! The program as users meet it: output, exit codes, and what it leaves behind.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, also in helpers")]
#![allow(clippy::disallowed_methods, reason = "real processes run in real time")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tund::crypto::aead::LIBRARIES;
use tund::crypto::suite::Cipher;
use tund_lab::{Scratch, leave_dead_socket, wait_until};

const TUND: &str = env!("CARGO_BIN_EXE_tund");
/// Longer than anything here takes on a busy machine; nothing waits for it to elapse.
const SOON: Duration = Duration::from_secs(20);

/// A link that waits for its peer.
const WAITING: &str = r#"listen = 1417
[key]
mode = "static"
file = "static.key"
[device]
address = "192.168.86.81"
peer = "192.168.86.18"
[run]
runtime-dir = "run"
verb = 3
"#;

#[test]
fn a_good_file_passes_and_a_bad_one_shows_every_mistake() {
    let place = Place::new();
    place.link("good", WAITING);
    let output = place.tund(&["check", "good.toml"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(text(&output.stdout), "good.toml: configuration is good\n");

    place.write("bad.toml", &WAITING.replace("listen", "lisen").replace(".86.18\"", ".86.81\""));
    let output = place.tund(&["check", "good.toml", "bad.toml"]);
    assert_eq!(code(&output), 78);
    let shown = text(&output.stderr);
    for part in ["bad.toml:1:1", "did you mean `listen`?", "bad.toml:7:8", "device.peer"] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
}

#[test]
fn a_file_of_somebody_else_moves_nothing_on_the_terminal() {
    let place = Place::new();
    let obeyed: String = ('\u{80}'..='\u{9f}').chain(['\u{1b}', '\u{7f}', '\u{202e}']).collect();
    place.write("bad.toml", &format!("'a{obeyed}' = 1\nlisten = b{obeyed} # c{obeyed}\n"));
    place.write("bad.conf", &format!("dev 'tun{obeyed}\nauth d{obeyed}\n"));
    for arguments in [&["check", "bad.toml"][..], &["import", "bad.conf"]] {
        let output = place.tund(arguments);
        assert_eq!(code(&output), 78, "{output:?}");
        let shown = text(&output.stderr);
        let moves = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!shown.contains(moves) && shown.contains("error["), "{shown:?}");
    }
}

#[test]
fn findings_as_json_have_their_places() {
    let place = Place::new();
    place.write("bad.toml", &WAITING.replace("listen", "lisen"));
    let output = place.tund(&["check", "--json", "bad.toml"]);
    assert_eq!(code(&output), 78);
    let json = text(&output.stdout);
    let finding = "{\"file\":\"bad.toml\",\"line\":1,\"column\":1,\"severity\":\"error\",\"code\":\"unknown-key\",\"message\":\"unknown key \\\"lisen\\\"";
    assert!(json.contains(finding), "{json}");
    assert!(json.starts_with('[') && json.ends_with("]\n"), "{json}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn keys_are_made_once_and_for_their_owner_only() {
    let place = Place::new();
    assert_eq!(code(&place.tund(&["genkey", "-o", "static.key"])), 0);
    let mode = fs::metadata(place.path("static.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(code(&place.tund(&["genkey", "-o", "static.key"])), 1);

    let pair = place.tund(&["keypair", "-o", "fri.key"]);
    let public = place.tund(&["pubkey", "fri.key"]);
    assert_eq!((code(&pair), code(&public)), (0, 0));
    assert_eq!(pair.stdout, public.stdout);
    let digits = text(&public.stdout);
    assert_eq!(digits.len(), 65, "one line, ready for key.peer-public: {digits}");
    assert!(digits.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[test]
fn a_new_link_overwrites_nothing_and_leaves_nothing_of_what_is_none() {
    let place = Place::new();
    let new = |more: &[&str]| {
        place.tund(&[&["new", "fri", "mon=mon.tn:1417", "--tun", "10.9.0.1,10.9.0.2"], more].concat())
    };
    assert_eq!(code(&new(&["-o", "here"])), 0);
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("here/tun-fri-mon.key"), mode("here/tun-mon-fri.toml")], [0o600, 0o644]);
    // Each of the three suffices to stop it.
    for name in ["tun-fri-mon.toml", "tun-mon-fri.toml", "tun-fri-mon.key"] {
        fs::create_dir(place.path(name)).unwrap();
        let output = new(&[]);
        assert_eq!(code(&output), 1, "{output:?}");
        let message = format!("tund: {name} already exists and is never overwritten");
        assert!(text(&output.stderr).starts_with(&message), "{output:?}");
        fs::remove_dir(place.path(name)).unwrap();
    }
    for (arguments, status, part) in [
        (
            &["fri", "mon", "--tun", "10.9.0.1,10.9.0.2"][..],
            2,
            "say where a host is, such as mon=198.51.100.2:8863",
        ),
        (&["fri", "mon=mon.tn"], 2, "--tap br0 for a bridged one"),
        (&["fri", "mon=mon.tn", "--tap", "br0", "--route", "mon=10.0.0.0/8"], 2, "use --tun"),
        (&["fri", "mon=192.0.2.300", "--tun", "10.9.0.1,10.9.0.2"], 78, "nothing was written"),
        (&["fri", "mon=192.0.2.1", "--tun", "10.9.0.1,192.0.2.1"], 78, "routing loop"),
        (&[], 2, "on a terminal it asks"),
        (&["fri", "mon=mon.tn", "--tap", "br0", "-o", "missing/there"], 1, "cannot write missing/there"),
    ] {
        let output = place.tund(&[&["new"], arguments].concat());
        assert_eq!(code(&output), status, "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains(part), "{arguments:?}: {output:?}");
    }
    let left: Vec<_> = fs::read_dir(&place.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["here"]);
}

#[test]
fn a_new_link_in_a_directory_that_others_may_change_is_said() {
    let place = Place::new();
    fs::create_dir(place.path("open")).unwrap();
    fs::set_permissions(place.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let output = place.tund(&["new", "fri", "mon=mon.tn", "--tap", "br0", "-o", "open"]);
    assert_eq!(code(&output), 78);
    assert!(text(&output.stderr).contains("is done with tund's rights"), "{output:?}");
}

/// script(1) provides the terminal.
#[test]
fn on_a_terminal_a_new_link_is_asked_for() {
    let place = Place::new();
    place.write("answers", "fri\nmon\nmon.tn:1417\n\n\n\n\n");
    let line = format!("script --quiet --return --command '{TUND} new' /dev/null <answers");
    let output = Command::new("sh").args(["-c", &line]).current_dir(&place.0).output().unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(text(&output.stdout).contains("Where fri finds mon"), "{output:?}");
    assert_eq!(code(&place.tund(&["check", "tun-fri-mon.toml", "tun-mon-fri.toml"])), 0);
    assert!(fs::read_to_string(place.path("tun-fri-mon.toml")).unwrap().contains("remote = \"mon.tn:1417\""));
}

/// Both ends of an OpenVPN link, one with its key in a file and one inline.
#[test]
fn both_ends_of_an_openvpn_link_are_imported_with_one_key() {
    let place = Place::new();
    let key = format!(
        "-----BEGIN OpenVPN Static key V1-----\n{}\n-----END OpenVPN Static key V1-----\n",
        "0123456789abcdef".repeat(32)
    );
    place.write("static.key", &key);
    place.write(
        "fri.conf",
        "remote 192.0.2.1\ndev tun\nifconfig 10.9.0.1 10.9.0.2\nsecret static.key 0\ncomp-lzo\n",
    );
    place.write(
        "mon.conf",
        &format!("dev tun\nifconfig 10.9.0.2 10.9.0.1\nkey-direction 1\n<secret>\n{key}</secret>\n"),
    );
    for (name, noted) in [
        ("fri", "fri.conf: line 5: comp-lzo: tund does not compress"),
        ("mon", "mon.conf: line 3: key-direction 1"),
    ] {
        let output = place.tund(&["import", "--key", &format!("{name}.key"), &format!("{name}.conf")]);
        assert_eq!(code(&output), 0, "{output:?}");
        assert!(text(&output.stderr).contains(noted), "{output:?}");
        place.write(&format!("{name}.toml"), &text(&output.stdout));
        let output = place.tund(&["check", &format!("{name}.toml")]);
        assert_eq!(code(&output), 0, "{output:?}");
    }
    let converted = fs::read(place.path("fri.key")).unwrap();
    assert_eq!(converted, fs::read(place.path("mon.key")).unwrap());
    let mode = fs::metadata(place.path("fri.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    let output = place.tund(&["import", "fri.conf"]);
    assert!(text(&output.stderr).contains("add --key fri.key"), "{output:?}");

    // For a peer that stays OpenVPN: the same key, under its own name or a new one.
    let output = place.tund(&["import", "--wire", "openvpn", "fri.conf"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(
        text(&output.stderr).starts_with("fri.conf: cipher: ")
            && text(&output.stdout).contains("\nfile = \"static.key\"\n")
    );
    let output = place.tund(&["import", "--wire", "openvpn", "--key", "kept.key", "mon.conf"]);
    assert_eq!(fs::read_to_string(place.path("kept.key")).unwrap(), key);
    place.write("kept.toml", &text(&output.stdout));
    let output = place.tund(&["check", "kept.toml"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(text(&output.stderr).contains("[weak-cipher]"), "{output:?}");
    place.write("tls.conf", "client\ndev tun\nremote a\n");
    let output = place.tund(&["import", "tls.conf"]);
    assert_eq!(code(&output), 78);
    assert!(text(&output.stderr).contains("tls.conf:1:1") && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_long_openvpn_file_is_imported_to_its_end_and_one_without_an_end_is_refused() {
    let place = Place::new();
    let routes: Vec<_> = (0..50_000).map(|n| format!("10.{}.{}.0", n / 256, n % 256)).collect();
    let lines: String = routes.iter().map(|net| format!("route {net} 255.255.255.0\n")).collect();
    assert!(lines.len() > 1 << 20);
    place.write(
        "long.conf",
        &format!("{lines}remote 192.0.2.1\ndev tun\nifconfig 10.9.0.1 10.9.0.2\nsecret k\n"),
    );
    let output = place.tund(&["import", "long.conf"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let toml: toml::Table = text(&output.stdout).parse().unwrap();
    let taken: Vec<_> =
        toml["route"].as_array().unwrap().iter().map(|route| route["to"].as_str().unwrap()).collect();
    assert!(
        taken.iter().eq(&routes.iter().map(|net| format!("{net}/24")).collect::<Vec<_>>()),
        "{}",
        taken.len()
    );

    fs::File::create(place.path("endless.conf")).unwrap().set_len((64 << 20) + 1).unwrap();
    let output = place.tund(&["import", "endless.conf"]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("64 MiB"), "{output:?}");
}

#[test]
fn a_configuration_that_somebody_else_may_change_is_an_error_with_place_and_remedy() {
    let place = Place::new();
    let plain = WAITING.replace("mode = \"static\"\n", "") + "[accept]\nsources = \"routes\"\n";
    place.link("fri", &plain);
    let path = place.path("fri.toml");
    let check = |sudo: Option<&str>| {
        let mut command = Command::new(TUND);
        command.args(["check", "fri.toml"]).current_dir(place.path("")).env_remove("SUDO_UID");
        let output = command.envs(sudo.map(|uid| ("SUDO_UID", uid))).output().unwrap();
        (code(&output), text(&output.stderr))
    };
    let mode =
        |path: &PathBuf, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(check(None), (0, String::new()));
    mode(&path, 0o666);
    let (refused, said) = check(None);
    assert_eq!(refused, 78, "{said}");
    assert!(said.contains("[untrusted]") && said.contains("(uid 0, mode 0666)"), "{said}");
    assert!(said.contains(&format!("`chmod go-w {}`", path.display())), "{said}");
    mode(&path, 0o644);
    mode(&place.path(""), 0o777);
    let (refused, said) = check(None);
    assert_eq!(refused, 78, "{said}");
    assert!(said.contains("[untrusted]") && said.contains("(uid 0, mode 0777)"), "{said}");
    // As in /tmp: the file is safe if only its owner can change it.
    mode(&place.path(""), 0o1777);
    assert_eq!(check(None), (0, String::new()));

    std::os::unix::fs::chown(&path, Some(65534), Some(65534))
        .expect("run this test as root: it gives files away");
    let (refused, said) = check(None);
    assert_eq!(refused, 78, "{said}");
    assert!(
        said.contains("[untrusted]") && said.contains("(uid 65534") && said.contains("`chown root "),
        "{said}"
    );
    // The start says the same.
    let output = place.tund(&["--config", "fri.toml"]);
    assert_eq!(code(&output), 78, "{output:?}");
    assert!(text(&output.stderr).contains("(uid 65534"), "{output:?}");
    assert_eq!(check(Some("65534")), (0, String::new()), "the caller of sudo");
}

/// The full tunnel's hook, with a program in place of resolvectl that records its arguments.
#[test]
fn the_hook_for_resolved_sets_and_reverts_the_name_server_of_the_device() {
    let place = Place::new();
    let hook = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/resolved.hook");
    tund_lab::write_script(&place.path("resolvectl"), "#!/bin/sh\necho \"$@\"\n").unwrap();
    let path = format!("{}:/usr/bin:/bin", place.path("").display());
    let run = |moment: &str, arguments: &[&str]| {
        let mut command = Command::new(&hook);
        // As tund calls it: its own arguments, then OpenVPN's.
        command.args(arguments).args(["tun7", "1420", "1441", "10.0.0.1", "10.0.0.2", "init"]);
        let output =
            command.env_clear().envs([("PATH", path.as_str()), ("TUND_HOOK", moment), ("dev", "tun7")]);
        let output = output.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    };
    assert_eq!(
        run("link-up", &["192.168.86.18"]),
        "dns tun7 192.168.86.18\ndomain tun7 ~.\ndefault-route tun7 yes\n"
    );
    assert_eq!(run("link-down", &[]), "revert tun7\n");
}

#[test]
fn completions_and_the_manual_page_know_every_command() {
    let place = Place::new();
    let man = place.tund(&["man"]);
    for shell in ["bash", "zsh", "fish"] {
        let output = place.tund(&["completions", shell]);
        assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""));
        for word in ["check", "genkey", "import", "allow-open-keys"] {
            assert!(text(&output.stdout).contains(word), "{shell}: {word}");
            assert!(text(&man.stdout).to_lowercase().replace('\\', "").contains(word), "man: {word}");
        }
    }
}

#[test]
fn the_schema_is_printed_as_json() {
    let output = Place::new().tund(&["schema"]);
    assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""));
    let printed: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!(printed, tund::config::schema::json_schema());
}

/// What was asked for is printed whole, or the failure is told; a reader that has enough is no failure to tell.
#[test]
fn output_that_cannot_be_written_is_no_success() {
    let asked: [&[&str]; 6] =
        [&["--help"], &["--version"], &["check", "--help"], &["schema"], &["man"], &["completions", "bash"]];
    for words in asked {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(TUND).args(words).stdout(full).output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{words:?}: {error}");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(TUND).args(words).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), ""), "{words:?}");
    }
}

#[test]
fn each_cipher_is_measured_with_each_library_and_one_of_them_used() {
    let output = Place::new().tund(&["bench-ciphers"]);
    assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""));
    let table = text(&output.stdout);
    for cipher in Cipher::ALL {
        let name = cipher.to_string();
        let lines: Vec<_> = table.lines().filter(|line| line.starts_with(&name)).collect();
        assert_eq!(lines.len(), LIBRARIES.len(), "{table}");
        assert_eq!(lines.iter().filter(|line| line.ends_with("used")).count(), 1, "{table}");
        assert!(lines.iter().all(|line| !line.contains(" 0 ns")), "{table}");
    }
}

/// AWS-LC takes its word for what the processor lacks: bit 57 is AES-NI.
#[test]
#[cfg(all(feature = "aws-lc", feature = "ring", target_arch = "x86_64"))]
fn a_library_that_is_slow_on_this_processor_is_not_used() {
    let mut command = Command::new(TUND);
    command.arg("bench-ciphers").env("OPENSSL_ia32cap", "~0x200000000000000");
    let table = text(&command.output().unwrap().stdout);
    let slow = table.lines().find(|line| line.starts_with("AES-256-GCM         AWS-LC")).unwrap();
    assert!(!slow.ends_with("used"), "{table}");
}

#[test]
fn wrong_usage_is_2() {
    let place = Place::new();
    for arguments in [
        &[][..],
        &["--config"],
        &["--colour"],
        &["check"],
        &["--daemon", "--inetd", "--config", "x.toml"],
        &["--verb", "3"],
    ] {
        assert_eq!(code(&place.tund(arguments)), 2, "{arguments:?}");
    }
}

#[test]
fn without_the_right_to_make_devices_the_remedy_is_named() {
    let place = Place::new();
    place.link("fri", WAITING);
    // Without capabilities, but as the owner of the key.
    let output = Command::new("setpriv")
        .args([
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--securebits=+noroot",
            TUND,
            "--config",
            "fri.toml",
        ])
        .current_dir(&place.0)
        .output()
        .unwrap();
    assert_eq!(code(&output), 77, "{output:?}");
    let said = text(&output.stderr);
    // root is not told to become root.
    assert!(said.contains("--cap-add NET_ADMIN") && !said.contains("sudo tund"), "{output:?}");
}

#[test]
fn a_missing_or_open_key_is_a_configuration_error() {
    let place = Place::new();
    place.write("fri.toml", WAITING);
    let output = place.tund(&["--config", "fri.toml"]);
    assert_eq!(code(&output), 78);
    assert!(text(&output.stderr).contains("static.key"), "{output:?}");
    assert_eq!(code(&place.tund(&["genkey", "-o", "static.key"])), 0);
    fs::set_permissions(place.path("static.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(code(&place.tund(&["check", "fri.toml"])), 78);
    assert_eq!(code(&place.tund(&["check", "--allow-open-keys", "fri.toml"])), 0);
}

#[test]
fn the_engine_runs_as_another_user_and_a_signal_ends_everything() {
    let place = Place::new();
    place.link("fri", WAITING);
    let mut link = place.run("fri.toml", &["--net"]);
    link.wait_for("[no-remote]");
    link.wait_for("engine: ");
    let engine = link.engine();
    let status = fs::read_to_string(format!("/proc/{engine}/status")).unwrap();
    assert!(!status.contains("\nUid:\t0\t"), "{status}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("\n{set}:\t0000000000000000\n")), "{status}");
    }
    let points_to = |link: &str| fs::read_link(format!("/proc/{engine}/{link}")).unwrap();
    assert!(points_to("root").ends_with("empty"), "{}", points_to("root").display());
    assert_eq!(points_to("cwd"), points_to("root"));
    let second = link.command(TUND).args(["--config", "fri.toml"]).current_dir(&place.0).output().unwrap();
    assert_eq!(code(&second), 69);
    let pid = link.tund();
    assert!(text(&second.stderr).contains(&format!("fri is already running as pid {pid}")), "{second:?}");
    link.signal("TERM");
    assert_eq!(link.end(), 0);
    wait_until("the engine ends", SOON, || is_gone(engine)).unwrap();
    assert!(link.log().contains("removing tun0"), "{}", link.log());
}

#[test]
fn in_a_user_namespace_the_engine_keeps_its_uid_and_drops_its_capabilities() {
    let place = Place::new();
    place.link("fri", WAITING);
    let mut link = place.run("fri.toml", &["--net", "--map-root-user"]);
    link.wait_for("engine: uid 0 ");
    link.signal("INT");
    assert_eq!(link.end(), 0);
}

/// The kernel ends a socket wait that has a timeout if the process was suspended meanwhile (signal(7)).
#[test]
fn a_command_that_was_suspended_while_it_waits_for_its_answer_goes_on_waiting() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path("socket")).unwrap();
    // Another link of that name was killed.
    fs::create_dir_all(place.path("run/fri-1")).unwrap();
    leave_dead_socket(&place.path("run/fri-1/control.sock")).unwrap();
    let socket = format!("{WAITING}[status]\nsocket = \"{}\"\n", place.path("socket").display());
    place.link("fri", &socket);
    let mut command = Command::new(TUND);
    command.args(["reload", "fri.toml"]).current_dir(&place.0).stderr(Stdio::piped());
    let mut asking = command.spawn().unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    let mut is_asked = || {
        accepted = listener.accept().ok();
        accepted.is_some() || asking.try_wait().unwrap().is_some()
    };
    wait_until("a request", SOON, &mut is_asked).unwrap();
    let (mut link, _) = accepted.unwrap();
    link.set_nonblocking(false).unwrap();
    assert!(link.read(&mut [0; 999]).unwrap() > 0);
    let state = || fs::read_to_string(format!("/proc/{}/stat", asking.id())).unwrap();
    for _ in 0..10 {
        for (signal, reached) in [("STOP", ") T "), ("CONT", ") S ")] {
            kill(asking.id(), signal);
            wait_until(signal, SOON, || state().contains(reached)).unwrap();
        }
    }
    link.write_all(b"{\"error\":\"tund.link.Refused\",\"parameters\":{\"reason\":\"unchanged\"}}\0").unwrap();
    let output = asking.wait_with_output().unwrap();
    assert!(text(&output.stderr).contains("unchanged"), "{output:?}");
}

/// As in a container with only CAP_NET_ADMIN.
#[test]
fn root_with_the_right_to_make_devices_alone_runs_a_link_and_says_what_it_keeps() {
    const ALONE: [&str; 6] = [
        "--net",
        "setpriv",
        "--bounding-set=-all,+net_admin",
        "--inh-caps=-all,+net_admin",
        "--no-new-privs",
        "--",
    ];
    let place = Place::new();
    place.link("fri", WAITING);
    let mut link = place.run("fri.toml", &ALONE);
    link.wait_for("warning: CAP_SETUID and CAP_SETGID");
    link.wait_for("engine: uid 0 ");
    // A link of that name in another namespace was killed.
    let killed = place.path("run/fri-1");
    fs::create_dir(&killed).unwrap();
    leave_dead_socket(&killed.join("control.sock")).unwrap();
    let asked = link.command(TUND).args(["status", "fri.toml"]).current_dir(&place.0).output().unwrap();
    assert!(text(&asked.stdout).contains("fri: waiting"), "{asked:?}");
    link.signal("TERM");
    assert_eq!(link.end(), 0, "{}", link.log());
    assert!(link.log().contains("removing tun0"), "{}", link.log());

    place.write("strict.toml", &WAITING.replace("verb = 3", "verb = 3\nsandbox = \"require\""));
    let mut strict = place.run("strict.toml", &ALONE);
    assert_eq!(strict.end(), 69, "{}", strict.log());
    assert!(
        strict.log().contains("run.sandbox") && strict.log().contains("CAP_SETUID and CAP_SETGID"),
        "{}",
        strict.log()
    );
}

#[test]
fn a_killed_engine_ends_the_parent_and_a_killed_parent_the_engine() {
    let place = Place::new();
    place.link("fri", WAITING);
    let mut link = place.run("fri.toml", &["--net"]);
    link.wait_for("[no-remote]");
    kill(link.engine(), "KILL");
    assert_eq!(link.end(), 70);
    assert!(link.log().contains("(signal: 9"), "{}", link.log());

    let mut link = place.run("fri.toml", &["--net"]);
    link.wait_for("[no-remote]");
    let engine = link.engine();
    link.signal("KILL");
    link.end();
    wait_until("the engine follows", SOON, || is_gone(engine)).unwrap();
}

#[test]
fn whoever_follows_a_link_that_does_not_run_is_told_at_once_what_is_waited_for() {
    let place = Place::new();
    let killed = place.path("fri-1");
    fs::create_dir(&killed).unwrap();
    for (link, named) in [(Some("mon"), "mon"), (Some("fri"), "fri"), (None, "link")] {
        if link == Some("fri") {
            leave_dead_socket(&killed.join("control.sock")).unwrap();
        }
        let mut command = Command::new(TUND);
        command.arg("events").args(link).env("RUNTIME_DIRECTORY", place.path(""));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            sender.send(said.read_line(&mut line).map(|_| line).unwrap())
        });
        let line = told.recv_timeout(SOON);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(line.as_ref().is_ok_and(|line| line.contains(named)), "{named}: {line:?}");
    }
}

/// Before its start message it cannot report: its parent learns the exit code and reports that.
#[test]
fn an_engine_that_is_told_nonsense_before_its_start_ends_with_70() {
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
    for nonsense in [None, Some([].as_slice()), Some(&[0xff; 100]), Some(&[0; 100]), Some(&[7; 70_000])] {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        if let Some(nonsense) = nonsense {
            assert_eq!(send(&ours, nonsense, SendFlags::empty()), Ok(nonsense.len()));
        }
        drop(ours);
        let output = Command::new(TUND).arg("--engine").env_clear().stdin(theirs).output().unwrap();
        assert_eq!(code(&output), 70, "{nonsense:?}: {output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    }
    let output = Command::new(TUND).arg("--engine").env_clear().stdin(Stdio::null()).output().unwrap();
    assert_eq!(code(&output), 70, "without a channel: {output:?}");
}

#[test]
fn names_are_resolved_without_privileges_and_asked_for_again() {
    let place = Place::new();
    let named = format!("remote = \"localhost:1999\"\n{WAITING}");
    place.link("local", &named);
    let mut link = place.run("local.toml", &["--net"]);
    link.wait_for("[no-answer]");
    assert!(link.log().contains(":1999"), "{}", link.log());
    link.signal("TERM");
    assert_eq!(link.end(), 0);

    place.link("lost", &named.replace("localhost", "no.such.name.invalid"));
    let mut link = place.run("lost.toml", &["--net"]);
    link.wait_for("[no-address]");
    link.signal("TERM");
    assert_eq!(link.end(), 0);
}

#[test]
fn a_taken_port_is_unavailable() {
    let place = Place::new();
    place.link("fri", WAITING);
    place.link("mon", &WAITING.replace("192.168.86.81", "192.168.87.81").replace("86.18", "87.18"));
    let mut link = place.run("fri.toml", &["--net"]);
    link.wait_for("[no-remote]");
    let second = link.command(TUND).args(["--config", "mon.toml"]).current_dir(&place.0).output().unwrap();
    assert_eq!(code(&second), 69, "{second:?}");
    assert!(text(&second.stderr).contains("1417"), "{second:?}");
    link.signal("TERM");
    assert_eq!(link.end(), 0);
}

#[test]
fn a_limit_on_open_files_is_named_by_whatever_it_stops() {
    let place = Place::new();
    place.link("fri", WAITING);
    for (limit, arguments) in [("6", ["check", "fri.toml"]), ("16", ["--config", "fri.toml"])] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}")).arg(TUND).args(arguments).current_dir(&place.0);
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert!(said.contains("LimitNOFILE=") && said.contains("ulimit -n"), "{limit}: {output:?}");
        assert!(!said.contains("--allow-open-keys"), "{limit}: {output:?}");
    }
    // With one lane 27 were enough: what is refused at once is not what a link could have started with.
    let mut link = place.run("fri.toml", &["--net", "prlimit", "--nofile=32"]);
    wait_until("a start, or a limit", SOON, || {
        ["[no-remote]", "ulimit -n"].iter().any(|part| link.log().contains(part))
    })
    .unwrap();
    assert!(link.log().contains("UDP"), "{}", link.log());
    link.signal("TERM");
    link.end();
}

struct Place(Scratch);

impl Place {
    fn new() -> Self {
        Self(Scratch::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        self.0.file(name, text).unwrap();
    }

    /// Writes a configuration and, once, its key.
    fn link(&self, name: &str, text: &str) {
        self.write(&format!("{name}.toml"), text);
        if !self.path("static.key").exists() {
            assert_eq!(code(&self.tund(&["genkey", "-o", "static.key"])), 0);
        }
    }

    fn tund(&self, arguments: &[&str]) -> Output {
        Command::new(TUND).args(arguments).current_dir(&self.0).env_remove("NO_COLOR").output().unwrap()
    }

    /// Runs the link of `file` in new namespaces, which unshare(1) makes before it becomes tund.
    fn run(&self, file: &str, namespaces: &[&str]) -> Link {
        assert!(rustix::process::geteuid().is_root(), "this test makes a network namespace: run it as root");
        let log = self.path("log");
        let child = Command::new("unshare")
            .args(namespaces)
            .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh", TUND, "--config", file])
            .current_dir(&self.0)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Link { child, log }
    }
}

struct Link {
    child: Child,
    log: PathBuf,
}

impl Link {
    fn tund(&self) -> u32 {
        self.child.id()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for(&self, part: &str) {
        let said = wait_until(part, SOON, || self.log().contains(part));
        said.unwrap_or_else(|error| panic!("{error}:\n{}", self.log()));
    }

    /// The engine's pid.
    fn engine(&self) -> u32 {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.tund())).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Prepares a command in the link's network namespace.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.tund().to_string(), "--net", program]);
        command
    }

    fn signal(&self, signal: &str) {
        kill(self.tund(), signal);
    }

    /// Returns the exit code; -1 after a signal.
    fn end(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(pid: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
