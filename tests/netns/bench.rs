//! The benchmark: that it measures, not its results.

use std::process::Command;

use serde_json::Value;
use tund_lab::Process;

use super::browser::assert_readable;
use super::demo::{LONG, lab};
use super::support::*;

const FIGURES: [&str; 17] = [
    "tcp-1",
    "tcp-4",
    "tcp-reverse",
    "tcp-both",
    "cpu-machine",
    "udp-64",
    "udp-1300",
    "ping-p50",
    "ping-p99",
    "loaded-p50",
    "loaded-p99",
    "memory-rss",
    "memory-pss",
    "first-ping",
    "wire-bytes",
    "wire-packets",
    "largest-whole",
];

fn bench(line: &str, file: &std::path::Path) -> (i32, String, Value) {
    bench_words(&line.split_whitespace().collect::<Vec<_>>(), file)
}

fn bench_words(words: &[&str], file: &std::path::Path) -> (i32, String, Value) {
    let mut command = Command::new(lab());
    command.args(words).arg("--json").arg(file);
    let mut process = Process::spawn("bench", command).unwrap();
    let code = process.code(4 * LONG).unwrap();
    let text = process.text();
    let json = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}: {text}"));
    (code, text, serde_json::from_str(&json).unwrap())
}

#[test]
fn the_quick_benchmark_measures_every_figure_of_every_peer() {
    let world = Pair::unplugged();
    let file = world.fri.dir().join("bench.json");
    let (code, text, json) =
        bench("bench --quick --only veth,tund-tun-aes,tund-tap-chacha,tund-static-aes", &file);
    assert_eq!(code, 0, "{text}");
    assert_eq!(json["peers"].as_array().unwrap().len(), 4);
    for peer in json["peers"].as_array().unwrap() {
        assert_eq!(peer["failure"], Value::Null, "{text}");
        let is_tunnel = peer["name"] != "veth";
        for figure in FIGURES {
            let median = peer["figures"][figure]["median"].as_f64();
            let median = median.unwrap_or_else(|| panic!("{} has no {figure}: {text}", peer["name"]));
            assert!(median > 0.0 || !is_tunnel, "{} {figure}: {text}", peer["name"]);
        }
        // A link may also send a message of its own.
        let packets = peer["figures"]["wire-packets"]["median"].as_f64().unwrap();
        let least = if is_tunnel { 2.0 } else { 1.0 };
        assert!((least..least + 1.0).contains(&packets), "{} {packets} packets: {text}", peer["name"]);
        let bytes = peer["figures"]["wire-bytes"]["median"].as_f64().unwrap();
        assert!((1514.0..3000.0).contains(&bytes), "{} {bytes} bytes: {text}", peer["name"]);
    }
}

/// Memory is the only target independent of load on the machine.
#[test]
fn a_strict_benchmark_passes_where_every_judged_target_is_reached() {
    let world = Pair::unplugged();
    let file = world.fri.dir().join("bench.json");
    let (code, text, json) = bench("bench --quick --strict --task wire --only tund-tun-aes", &file);
    assert_eq!(code, 0, "{text}");
    assert_eq!(json["targets"].as_array().unwrap().len(), 1, "{text}");
    assert_eq!(json["targets"][0]["pass"], true, "{text}");
}

#[test]
fn a_comparison_plots_what_is_there_and_tells_headers_from_random_bytes() {
    let world = Pair::unplugged();
    let (file, page) = (world.fri.dir().join("compare.json"), world.fri.dir().join("compare.html"));
    let line = format!(
        "compare --quick --task tcp,random --only vxlan,geneve,tund-tun-aes,tund-static-chacha --html {}",
        page.display()
    );
    let (code, text, json) = bench(&line, &file);
    assert_eq!(code, 0, "{text}");
    assert!(json["targets"].as_array().unwrap().is_empty());
    let path = page;
    let page = std::fs::read_to_string(&path).unwrap();
    assert_readable(&world, &path, page.matches("<figure>").count());
    for peer in json["peers"].as_array().unwrap() {
        let (name, figures) = (peer["name"].as_str().unwrap(), &peer["figures"]);
        assert!(page.contains(name), "{page}");
        let absent = peer["failure"].as_str().is_some_and(|why| why.contains("Unknown device type"));
        // Not every kernel has these two.
        if absent && ["vxlan", "geneve"].contains(&name) {
            continue;
        }
        assert_eq!(peer["failure"], Value::Null, "{text}");
        let telling = figures["not-random"]["median"].as_f64().unwrap();
        assert!(if name.starts_with("tund") { telling == 0.0 } else { telling > 8.0 }, "{name}: {telling}");
        assert!(figures["tcp-1"]["median"].as_f64().unwrap() > 0.0, "{text}");
    }
}

/// The headers of the kernel's tunnels determine their largest packets.
#[test]
fn a_comparison_in_a_guest_has_gre_and_geneve_beside_tund() {
    let world = Pair::unplugged();
    let file = world.fri.dir().join("guest.json");
    let page = world.fri.dir().join("guest.html");
    let line = format!("compare --guest --quick --task tcp,wire --html {}", page.display());
    let (code, text, json) = bench(&line, &file);
    assert_eq!(code, 0, "{text}");
    assert!(json["machine"].as_str().unwrap().contains("guest"), "{text}");
    let plain = [("veth", 1500), ("vxlan", 1450), ("gre", 1476), ("gretap", 1462), ("geneve", 1450)];
    let peers = json["peers"].as_array().unwrap();
    assert_eq!(peers.len(), plain.len() + 2, "{text}");
    for peer in peers {
        assert_eq!(peer["failure"], Value::Null, "{text}");
        let figure = |key: &str| peer["figures"][key]["median"].as_f64().unwrap();
        let name = peer["name"].as_str().unwrap();
        assert!(figure("tcp-1") > 0.0, "{name}: {text}");
        match plain.iter().find(|(plain, _)| *plain == name) {
            Some((_, whole)) => assert_eq!(figure("largest-whole"), f64::from(*whole), "{name}: {text}"),
            None => assert!((1400.0..1460.0).contains(&figure("largest-whole")), "{name}: {text}"),
        }
    }
    assert!(std::fs::read_to_string(page).unwrap().contains("gretap"));
}

#[test]
fn a_path_that_delays_packets_does_so_for_every_peer() {
    let world = Pair::unplugged();
    let words = [
        "compare",
        "--guest",
        "--quick",
        "--task",
        "ping",
        "--only",
        "vxlan,tund-tap-aes",
        "--path",
        "delay 10ms",
    ];
    let file = world.fri.dir().join("far.json");
    let (code, text, json) = bench_words(&words, &file);
    assert_eq!(code, 0, "{text}");
    for peer in json["peers"].as_array().unwrap() {
        let median = peer["figures"]["ping-p50"]["median"].as_f64().unwrap();
        assert!(median >= 20_000.0, "{} {median}: {text}", peer["name"]);
    }
}

#[test]
fn an_unknown_peer_is_a_usage_error_that_names_the_known_ones() {
    let mut command = Command::new(lab());
    command.args(["bench", "--only", "opnvpn"]);
    let mut process = Process::spawn("bench", command).unwrap();
    assert_eq!(process.code(LONG).unwrap(), 2, "{}", process.text());
    assert!(
        process.text().contains("tinc, tincr, tincr-tap, quincy, quicktun, tund-tun-aes"),
        "{}",
        process.text()
    );
}

/// The same as in the tests: the path with another MTU, and a program at each end that says when it is ready.
const OWN: &str = r##"about = "the path with an MTU of its own"
plain = true
[vars]
SIGN = ["fri", "mon"]
[end]
files.start = "#!/bin/sh\ntouch @DIR@/up-@SIGN@\nexec sleep 1000\n"
services = ["./start"]
up = "test -e up-@SIGN@"
device = "eth0"
address = "@INNER@ peer @PEER@"
mtu = 1400
"##;

#[test]
fn a_rival_of_ones_own_is_measured_from_its_file() {
    let world = Pair::unplugged();
    let own = world.fri.file("mine.toml", OWN).unwrap();
    let derived = "extends = 'mine.toml'\nabout = 'it ends'\n[end]\nservices = ['false']\nup = 'false'\n";
    let ending = world.fri.file("ending.toml", derived).unwrap();
    let line = format!(
        "bench --quick --task ping,wire --only veth --rival {} --rival {}",
        own.display(),
        ending.display()
    );
    let (code, text, json) = bench(&line, &world.fri.dir().join("bench.json"));
    assert_eq!(code, 0, "{text}");
    let [veth, mine, ending] = &json["peers"].as_array().unwrap()[..] else { panic!("{text}") };
    assert_eq!((&mine["name"], &mine["failure"]), (&"mine".into(), &Value::Null), "{text}");
    assert_eq!(mine["about"], "the path with an MTU of its own");
    let whole = |peer: &Value| peer["figures"]["largest-whole"]["median"].as_f64();
    assert_eq!((whole(veth), whole(mine)), (Some(1500.0), Some(1400.0)), "{text}");
    assert!(mine["figures"]["ping-p50"]["median"].as_f64().unwrap() > 0.0, "{text}");
    assert!(ending["failure"].as_str().unwrap().starts_with("false on mon has ended: "), "{text}");
}

#[test]
fn mistakes_of_a_rivals_file_are_shown_before_anything_is_measured() {
    let world = Pair::unplugged();
    let wrong =
        OWN.replace("up-@SIGN@\"", "up-@MARK@\"").replace("plain = true", "programs = { x = 'get x' }");
    let file = world.fri.file("mine.toml", &wrong).unwrap().display().to_string();
    let mut command = Command::new(lab());
    command.args(["bench", "--only", "veth", "--rival", &file]);
    let mut process = Process::spawn("bench", command).unwrap();
    assert_eq!(process.code(LONG).unwrap(), 1, "{}", process.text());
    let said = process.lines();
    assert_eq!(said.len(), 2, "{said:?}");
    for (line, place) in said.iter().zip([
        ":2:18: \"get x\" is not debian PACKAGE, unpacked PACKAGE, crate NAME VERSION or path",
        ":8:18: no variable MARK: give it a value in [vars]",
    ]) {
        assert!(line.ends_with(&format!("{file}{place}")), "no {place:?} in {line}");
    }
}

/// Those for which the tests have programs.
#[test]
fn rivals_come_up_as_their_files_say() {
    let world = Pair::unplugged();
    let line = "compare --quick --task ping --only openvpn,openvpn-tap,openvpn-tls,openvpn-tund";
    let (code, text, json) = bench(line, &world.fri.dir().join("bench.json"));
    assert_eq!(code, 0, "{text}");
    for peer in json["peers"].as_array().unwrap() {
        assert_eq!(peer["failure"], Value::Null, "{text}");
    }
}
