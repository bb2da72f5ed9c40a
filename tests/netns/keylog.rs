//! `--key-log`, and what Wireshark makes of a capture with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tund_lab::rights::require;
use tund_lab::{Host, wait_until};

use super::decoder::capture;
use super::support::*;

const WARNING: &str = "warning: --key-log writes the keys of this link to ";

/// Every field that tshark shows of the datagrams in a capture, and of what is inside of them.
fn shown(host: &Host, file: &Path, logs: Option<&str>) -> String {
    require("tshark").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/wireshark/tund.lua");
    let logs = logs.map(|logs| format!("-o tund.keylog:{logs}")).unwrap_or_default();
    let command = format!(
        "tshark -n -r {} -X lua_script:{} -o tund.port:1417 {logs} -O tund,icmp",
        file.display(),
        script.display()
    );
    let text = host.run(&command).unwrap();
    assert!(!text.contains("traceback"), "{text}");
    text
}

/// A link with a key log at each end, the logs as the dissector wants them, and what crossed the wire.
fn logged(fri: &Toml, mon: &Toml, pings: &[&str]) -> (Pair, PathBuf, String) {
    let (wire, pair) = wired();
    wire.record();
    let start = |host: &Host, name: &str, toml: &Toml| {
        let log = host.dir().join("keys").display().to_string();
        let end = start_with(host, name, &toml.text(), &["--key-log", &log, "--verb", "1"]);
        end.wait_line(WARNING, SOON).unwrap();
        (end, log)
    };
    let (mon, mon_log) = start(&pair.mon, "mon", mon);
    let (fri, fri_log) = start(&pair.fri, "fri", fri);
    for end in [&fri, &mon] {
        end.wait_line(UP, SOON).unwrap();
    }
    for ping in pings {
        assert_pings(&pair.fri, ping);
    }
    let file = capture(&pair.fri, &wire.take());
    (pair, file, format!("{fri_log},{mon_log}"))
}

#[test]
fn a_key_log_is_loud_private_and_holds_no_secret() {
    let pair = pair();
    let _mon = pair.start_mon(&Toml::tun_mon().handshake());
    let log = pair.fri.dir().join("keys");
    let text = Toml::tun_fri().handshake().text();
    let arguments = ["--key-log", log.to_str().unwrap(), "--verb", "1"];
    let mut fri = start_with(&pair.fri, "fri", &text, &arguments);
    fri.wait_line(WARNING, SOON).unwrap();
    fri.wait_line(UP, SOON).unwrap();
    let keys = || fs::read_to_string(&log).unwrap();
    let count = |start: &str| keys().lines().filter(|line| line.starts_with(start)).count();
    wait_until("keys", SOON, || count("key out ") >= 1 && count("key in ") >= 1).unwrap();
    assert_eq!(count("link handshake tun "), 1, "{}", keys());
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(pair.fri.dir().join("static.key")).unwrap();
    let secret = secret.lines().find(|line| !line.starts_with('#')).unwrap().trim().to_owned();
    assert!(secret.len() >= 32 && !keys().contains(&secret), "{}", keys());

    let directory = pair.fri.dir().join("run");
    let ask = |what: &str| {
        pair.fri.run(&format!("env RUNTIME_DIRECTORY={} {TUND} {what}", directory.display())).unwrap()
    };
    let told = format!("key log   {}: whoever has it reads this link", log.display());
    assert!(ask("status fri").contains(&told), "{}", ask("status fri"));
    assert!(ask("status").contains(&log.display().to_string()), "{}", ask("status"));

    // New keys follow, and a link that starts again goes on in the same file.
    let before = count("key ");
    ask("rekey fri");
    wait_until("new keys", SOON, || count("key ") >= before + 2).unwrap();
    fri.terminate(SOON).unwrap();
    let fri = start_with(&pair.fri, "fri", &text, &arguments);
    fri.wait_line(WARNING, SOON).unwrap();
    wait_until("another start", SOON, || count("link handshake tun ") == 2).unwrap();
    drop(fri);

    fs::set_permissions(&log, fs::Permissions::from_mode(0o644)).unwrap();
    let mut fri = start_with(&pair.fri, "fri", &text, &arguments);
    fri.wait_line("(mode 644): chmod 600", SOON).unwrap();
    assert_eq!(exit_code(&mut fri), 78);
}

#[test]
fn wireshark_shows_what_is_inside_with_the_key_log_and_nothing_without() {
    let cipher = |mut toml: Toml, cipher: &str| {
        toml.key.push_str(&format!("\ncipher = '{cipher}'"));
        toml
    };
    for (suite, handshake) in [
        ("aes-256-gcm", true),
        ("chacha20-poly1305", true),
        ("aes-256-gcm", false),
        ("chacha20-poly1305", false),
    ] {
        let end = |toml: Toml| cipher(if handshake { toml.handshake() } else { toml }, suite);
        // So that full-size frames come as stream blocks.
        let narrow = |toml: Toml| end(toml).with("[tuning]\npath-mtu = 800");
        let pings = ["192.168.86.18", "-s 1372 192.168.86.18"];
        let (pair, file, logs) = logged(&narrow(Toml::tun_fri()), &narrow(Toml::tun_mon()), &pings);
        let text = shown(&pair.fri, &file, Some(&logs));
        for part in [
            "Control message: hello",
            "Field: name: \"fri\"",
            "Field: addresses: 192.168.86.81",
            "Type: 8 (Echo (ping) request)",
            "Type: 0 (Echo (ping) reply)",
            "Sequence Number (BE): 1 ",
            "Sequence Number (BE): 10 ",
            "Part: a frame of 1400 bytes",
            "Part: part of a frame: ",
            "Tag verified: True",
            &format!("Suite: {suite}"),
            if handshake { "Datagram: handshake" } else { "Key id: 00" },
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(!text.contains("cannot be verified"), "{text}");
        let hidden = shown(&pair.fri, &file, None);
        assert!(hidden.contains("unknown") && hidden.contains("cannot be verified"), "{hidden}");
        for inner in ["Echo", "hello", "192.168.86", "Tag verified"] {
            assert!(!hidden.contains(inner), "{inner:?} in {hidden}");
        }
    }
}

#[test]
fn wireshark_shows_what_is_inside_of_a_link_over_tcp() {
    for handshake in [true, false] {
        let end = |toml: Toml| if handshake { toml.handshake() } else { toml };
        let fri = end(Toml::tun_fri().top("remote = 'tcp:10.0.0.2:5630'"));
        let mon = end(Toml::tun_mon().top("listen = 'tcp:5630'"));
        // Longer than a segment, too.
        let (pair, file, logs) = logged(&fri, &mon, &["192.168.86.18", "-s 1392 192.168.86.18"]);
        let text = shown(&pair.fri, &file, Some(&logs));
        for part in [
            "Control message: hello",
            "Field: name: \"mon\"",
            "Type: 8 (Echo (ping) request)",
            "Type: 0 (Echo (ping) reply)",
            "Sequence Number (BE): 10 ",
            "[Length: 1392]",
            "Tag verified: True",
            if handshake { "Datagram: handshake" } else { "Key id: 00" },
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(!text.contains("cannot be verified"), "{text}");
        let hidden = shown(&pair.fri, &file, None);
        assert!(hidden.contains("Transmission Control Protocol") || !hidden.contains("tund"), "{hidden}");
        assert!(!hidden.contains("Echo") && !hidden.contains("hello"), "{hidden}");
    }
}

#[test]
fn wireshark_shows_the_frames_of_a_bridged_link() {
    let end = |mut toml: Toml, address: &str| {
        toml.device = toml.device.replace("bridge = 'br0'", &format!("address = '{address}/24'"));
        toml.handshake()
    };
    let (fri, mon) = (end(Toml::tap_fri(), "192.168.86.81"), end(Toml::tap_mon(), "192.168.86.18"));
    let (pair, file, logs) = logged(&fri, &mon, &["192.168.86.18"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/wireshark/tund.lua");
    // Without a port: the keys tell which datagrams are tund's.
    let command = format!(
        "tshark -n -r {} -X lua_script:{} -o tund.port:9 -o tund.keylog:{} -Y 'tund && arp || tund && icmp'",
        file.display(),
        script.display(),
        logs
    );
    let text = pair.fri.shell(&command).unwrap();
    for part in ["ARP Announcement for 192.168.86.18", "Echo (ping) request", "seq=10/"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}
