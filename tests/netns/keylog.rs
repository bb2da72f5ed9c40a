//! `--key-log`, and Wireshark's view of a capture with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tund::core::keylog::{Entry, HEAD, Logged, Way};
use tund::crypto::keys::LinkKeys;
use tund::crypto::wrap;
use tund_lab::frame::Datagram;
use tund_lab::rights::require;
use tund_lab::wire::Crossed;
use tund_lab::{Host, Side, wait_until};
use tund_proto::testing::Dice;

use super::decoder::capture;
use super::support::*;

const WARNING: &str = "warning: --key-log writes the keys of this link to ";

/// Everything that tshark shows of a capture's datagrams and their contents.
fn shown(host: &Host, file: &Path, logs: Option<&str>) -> String {
    require("tshark").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/wireshark/tund.lua");
    let logs = logs.map(|logs| format!("-o tund.keylog:{logs}")).unwrap_or_default();
    let command = format!(
        "tshark -n -r {} -X lua_script:{} -o tund.port:1417 {logs} -O tund,icmp",
        file.display(),
        script.display()
    );
    run_tshark(host, &command.split_whitespace().collect::<Vec<_>>())
}

/// Its output. Its Lua is slow on a busy machine.
fn run_tshark(host: &Host, command: &[&str]) -> String {
    let mut tshark = host.spawn(command).unwrap();
    let code = tshark.code(5 * SOON).unwrap();
    let text = tshark.text();
    assert!(code == 0 && !text.contains("traceback"), "{text}");
    text
}

/// A link with a key log at each end, the logs for the dissector, and a capture of the wire.
fn logged(fri: &Toml, mon: &Toml, pings: &[&str]) -> (Pair, PathBuf, String) {
    logged_over(1500, fri, mon, pings)
}

/// The same over a path with that MTU.
fn logged_over(mtu: u16, fri: &Toml, mon: &Toml, pings: &[&str]) -> (Pair, PathBuf, String) {
    let (wire, pair) = wired();
    for host in [&pair.fri, &pair.mon] {
        host.run(&format!("ip link set eth0 mtu {mtu}")).unwrap();
    }
    wire.record();
    let start = |host: &Host, name: &str, toml: &Toml| {
        let log = host.dir().join("keys").display().to_string();
        let end = start_with(host, name, &toml.text(), &["--key-log", &log, "--verb", "1"]);
        end.wait_line(WARNING, SOON).unwrap();
        (end, log)
    };
    let (mon, mon_log) = start(&pair.mon, "mon", mon);
    mon.wait_line("waiting", SOON).unwrap();
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
    let told = format!("key log   {}: whoever has it can read this link", log.display());
    assert!(ask("status fri").contains(&told), "{}", ask("status fri"));
    assert!(ask("status").contains(&log.display().to_string()), "{}", ask("status"));

    // New keys follow, and a restarted link appends to the same file.
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
        // So that full-size frames are sent as stream blocks.
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
        // Also longer than a segment.
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
    // Without a port: the keys identify tund's datagrams.
    let command = format!(
        "tshark -n -r {} -X lua_script:{} -o tund.port:9 -o tund.keylog:{logs} -Y",
        file.display(),
        script.display(),
    );
    let words: Vec<&str> = command.split_whitespace().chain(["tund && arp || tund && icmp"]).collect();
    let text = run_tshark(&pair.fri, &words);
    for part in ["ARP Announcement for 192.168.86.18", "Echo (ping) request", "seq=10/"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// tshark shows all of these.
fn assert_shown(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn wireshark_shows_how_keys_are_agreed_on_from_the_log_of_either_end() {
    let whole: &[&str] = &[
        "Handshake: initiation\n",
        "Part of the message: all of it (0)",
        "Length of the Noise message: 1237",
        "ML-KEM-768: encapsulation key, 1184 bytes, sealed",
        "Length of the sealed payload: 5",
        "Handshake: answer\n",
        "Length of the Noise message: 1148",
        "ML-KEM-768: ciphertext, 1088 bytes, sealed",
        "Length of the sealed payload: 12",
    ];
    let in_parts: &[&str] = &[
        "Handshake: initiation, part 1 of 3",
        "Handshake: initiation, part 2 of 3",
        "Part of the message: third of three (3)",
        "Length: 413",
        "Length: 411",
        "Length of the Noise message: 1237",
        "ML-KEM-768: encapsulation key, 1184 bytes, sealed",
        "Handshake: answer, part 1 of 3",
        "Handshake: answer, part 3 of 3",
        "Length: 383",
        "Length: 382",
        "Length of the Noise message: 1148",
        "ML-KEM-768: ciphertext, 1088 bytes, sealed",
    ];
    let without: &[&str] = &[
        "Handshake: initiation\n",
        "Length of the Noise message: 53",
        "Handshake: answer\n",
        "Length of the Noise message: 60",
    ];
    for (quantum, mtu, parts) in
        [(true, 1500, whole), (true, 1280, in_parts), (true, 1000, in_parts), (false, 1500, without)]
    {
        let end = |toml: Toml| {
            let mut toml = toml.handshake();
            toml.key.push_str(&format!("\npost-quantum = {quantum}"));
            toml
        };
        let (pair, file, logs) =
            logged_over(mtu, &end(Toml::tun_fri()), &end(Toml::tun_mon()), &["192.168.86.18"]);
        let version = if quantum { "Version: X25519 and ML-KEM-768 (2)" } else { "Version: X25519 (1)" };
        for log in logs.split(',') {
            let text = shown(&pair.fri, &file, Some(log));
            assert_shown(&text, parts);
            assert_shown(&text, &[version, "Ephemeral key of X25519: ", "Way: out", "Way: in"]);
            assert!(!text.contains("cannot be verified"), "{text}");
            assert_eq!(text.contains("ML-KEM"), quantum, "{text}");
        }
        // The rest of the log, without the keys of handshakes.
        let log = logs.split(',').next().unwrap();
        let others = |line: &&str| !line.starts_with("handshake ");
        let less: String =
            fs::read_to_string(log).unwrap().lines().filter(others).map(|l| l.to_owned() + "\n").collect();
        let less = pair.fri.file("less", &less).unwrap();
        let hidden = shown(&pair.fri, &file, less.to_str());
        assert_shown(
            &hidden,
            &["handshake, cannot be verified, its key is missing", "Control message: hello"],
        );
        assert!(!hidden.contains("Instance") && !hidden.contains("Version: X"), "{hidden}");
    }
}

/// The values of a field in a test vector of PROTOCOL.md.
fn vector(name: &str, field: &str) -> Vec<Vec<u8>> {
    let block = include_str!("../../PROTOCOL.md").split(&format!("```vector {name}\n")).nth(1).unwrap();
    let mut values: Vec<String> = Vec::new();
    let mut is_wanted = false;
    for line in block.lines().take_while(|line| *line != "```") {
        let digits = match line.split_once(": ") {
            Some((key, digits)) => {
                is_wanted = key == field;
                values.extend(is_wanted.then(String::new));
                digits
            }
            None => line.trim(),
        };
        if is_wanted {
            values.last_mut().unwrap().push_str(digits);
        }
    }
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    values.iter().map(|value| value.as_bytes().chunks(2).map(byte).collect()).collect()
}

#[test]
fn wireshark_reads_the_handshakes_of_the_document() {
    let retry = [&[0x23][..], &[9; 8], &7_u64.to_be_bytes(), &[0xab; 16], &[0; 2 + 30]].concat();
    let malformed = [&[0x23][..], &[9; 8], &7_u64.to_be_bytes(), &[0xab; 16], &[0, 5, 1]].concat();
    for (name, own, parts) in [
        (
            "exchange/shared",
            vec![vec![0x14]],
            vec![
                "Handshake: sign",
                "Token: 00000000000000000000000000000000",
                "Length of the Noise message: 53",
            ],
        ),
        (
            "exchange/hybrid-shared",
            vec![retry, vec![0x24]],
            vec![
                "Handshake: retry",
                "Seq: 7",
                "Token: abababababababababababababababab",
                "Padding: 30",
                "Handshake: sign",
                "ML-KEM-768: encapsulation key, 1184 bytes, sealed",
                "ML-KEM-768: ciphertext, 1088 bytes, sealed",
            ],
        ),
        (
            "exchange/hybrid-pair-in-parts",
            vec![malformed],
            vec![
                "Token: 404142434445464748494a4b4c4d4e4f",
                "Handshake: answer, part 2 of 3",
                "ML-KEM-768: ciphertext, 1088 bytes, sealed",
                "Handshake: malformed",
            ],
        ),
    ] {
        let pair = Pair::unplugged();
        let host = &pair.fri;
        let secret: [u8; 32] = vector(name, "secret").remove(0).try_into().unwrap();
        let keys = LinkKeys::new(&secret);
        let mut datagrams = vector(name, "datagram");
        datagrams.extend(own.iter().map(|plaintext| wrap::seal(&keys, plaintext, &mut Dice(7))));
        let [probe, mask, stream] = keys.outside().map(Logged::from);
        let mut log =
            HEAD.to_owned() + &Entry::Link { tap: false, key_ids: false, probe, mask, stream }.line();
        let mut frames = Vec::new();
        for payload in datagrams {
            let (random, key) = wrap::key_of(&keys, &payload).unwrap();
            log.push_str(&Entry::Handshake { way: Way::Out, random, key: key.into() }.line());
            let [from, to] = ["10.0.0.1:1417", "10.0.0.2:1417"].map(|it| it.parse().unwrap());
            let bytes = Datagram { macs: ([2; 6], [4; 6]), from, to, payload }.to_frame();
            frames.push(Crossed { from: Side::A, bytes });
        }
        let log = host.file("keys", &log).unwrap();
        let text = shown(host, &capture(host, &frames), log.to_str());
        assert_shown(&text, &parts);
        assert_shown(&text, &["Instance: 0102030405060708", "Seq: 9"]);
        assert!(!text.contains("cannot be verified"), "{text}");
    }
}
