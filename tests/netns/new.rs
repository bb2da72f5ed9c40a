//! `tund new`: its files run unchanged, and its printed commands start the link.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon, mon.tn
//! ```

use std::fs;
use std::path::Path;
use std::process::Command;

use tund_lab::{Host, Process};

use super::superserver::wait_listening;
use super::support::*;
use super::systemd;

const README: &str = include_str!("../../README.md");

/// Runs a shell script in the host's directory, with tund on the PATH; its daemons survive it.
fn shell(host: &Host, script: &str) -> (i32, String) {
    let mut command = Command::new("nsenter");
    for kind in ["net", "mount"] {
        let letters = if kind == "net" { "net" } else { "mnt" };
        command.arg(format!("--{kind}=/proc/{}/ns/{letters}", host.pid()));
    }
    let run = host.dir().join("run");
    fs::create_dir_all(&run).unwrap();
    let programs = Path::new(TUND).parent().unwrap().display();
    let path = format!("{}:{programs}:{}", host.dir().display(), std::env::var("PATH").unwrap());
    let script = format!("cd {} && {script}", host.dir().display());
    command.args(["--", "sh", "-euc", &script]).env("PATH", path).env("RUNTIME_DIRECTORY", run);
    let mut process = Process::spawn("a script", command).unwrap();
    let code = process.code(SOON).unwrap();
    (code, process.text())
}

fn done(host: &Host, script: &str) -> String {
    let (code, text) = shell(host, script);
    assert_eq!(code, 0, "{script}\n{text}");
    text
}

/// Two hosts, with replacements on fri for scp and ssh to mon.
fn hosts() -> Pair {
    let pair = pair();
    pair.fri.add_name("10.0.0.2", "mon.tn").unwrap();
    let mon = pair.mon.dir().display().to_string();
    script(
        &pair.fri,
        "scp",
        &format!(
            "for last; do :; done\n[ \"$last\" = root@mon.tn: ]\nwhile [ $# -gt 1 ]; do cp \"$1\" {mon}/; shift; done"
        ),
    );
    let enter = format!("nsenter --net=/proc/{0}/ns/net --mount=/proc/{0}/ns/mnt", pair.mon.pid());
    script(
        &pair.fri,
        "ssh",
        &format!(
            "[ \"$1\" = root@mon.tn ]\nshift\ncd {mon}\nRUNTIME_DIRECTORY={mon}/run exec {enter} --wdns={mon} -- \"$@\""
        ),
    );
    fs::create_dir_all(pair.mon.dir().join("run")).unwrap();
    pair
}

/// The commands of the README section, up to the next text.
fn readmes_commands() -> Vec<String> {
    let section = README.split("\n## Two hosts").nth(1).unwrap();
    let block = section.lines().skip_while(|line| !line.starts_with("    "));
    block
        .take_while(|line| line.starts_with("    "))
        .map(|line| line.split(" # ").next().unwrap().trim().to_owned())
        .collect()
}

#[test]
fn the_readmes_five_commands_lead_from_nothing_to_a_ping() {
    let pair = hosts();
    let commands = readmes_commands();
    assert_eq!(commands.len(), 5, "{commands:?}");
    let mut last = String::new();
    for command in &commands {
        // Ping until ten are answered: the ends may not have found each other yet.
        let command = command.replace("ping ", "ping -n -c 10 -i 0.03 -w 20 ");
        last = done(&pair.fri, &command);
    }
    assert!(answered(&last) >= 9, "{last}");
    done(&pair.fri, "tund down tun-fri-mon && ssh root@mon.tn tund down tun-mon-fri");
    // The other commands are those that `tund new` printed.
    let again = done(&pair.fri, &format!("mkdir again && cd again && {}", commands[0]));
    for command in &commands[1..] {
        let words = command.trim_start_matches("ssh root@mon.tn ");
        assert!(again.lines().any(|line| line.trim() == words), "{words} is not in:\n{again}");
    }
}

/// The options for each kind of link, and what fri then pings.
#[test]
fn what_is_written_passes_check_and_runs_unchanged() {
    for (options, prepare, target) in [
        ("--tun fd86::81,fd86::18 --route fri=fd76::/64", "", "fd86::18"),
        (
            "--tap 10.5.0.1/24,br0",
            "ip link add br0 type bridge && ip addr add 10.5.0.2/24 dev br0 && ip link set br0 up",
            "10.5.0.2",
        ),
        (
            "--tun 192.168.86.81,192.168.86.18 --full-tunnel",
            "ip addr add 203.0.113.9/32 dev lo",
            "203.0.113.9",
        ),
    ] {
        let pair = hosts();
        if !prepare.is_empty() {
            pair.mon.shell(prepare).unwrap();
        }
        // With addresses at both ends, either may call.
        done(&pair.fri, &format!("tund new fri=10.0.0.1:1418 mon=10.0.0.2:1417 {options} -o there"));
        let names =
            done(&pair.fri, "cp there/*-mon-fri.toml there/*.key . && cd there && tund check *.toml && ls");
        assert_eq!(names.matches("configuration is good").count(), 2, "{names}");
        let mode = options.get(2..5).unwrap();
        let (own, peer) = (format!("{mode}-fri-mon"), format!("{mode}-mon-fri"));
        for file in [format!("{peer}.toml"), format!("{own}.key")] {
            fs::copy(pair.fri.dir().join("there").join(&file), pair.mon.dir().join(&file)).unwrap();
        }
        done(&pair.mon, &format!("tund --config {peer}.toml --daemon"));
        done(&pair.fri, &format!("tund --config there/{own}.toml --daemon"));
        let ping = format!("ping -n -c 3 -i 0.1 -W 1 {target}");
        pair.fri.wait_output(&ping, SOON, |text| text.contains("3 received")).unwrap();
        done(&pair.fri, &format!("tund down {own}"));
        done(&pair.mon, &format!("tund down {peer}"));
    }
}

/// The lines between `Copy ...` and the next text that `tund new` prints for a host.
fn commands_for(host: &str, printed: &str) -> String {
    let after = printed.split(&format!("On {host}, as root:\n\n")).nth(1).unwrap();
    let lines = after.lines().take_while(|line| !line.is_empty());
    lines.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect()
}

#[test]
fn the_lines_for_a_superserver_are_what_it_reads() {
    for kind in ["xinetd", "inetd"] {
        let pair = hosts();
        let line =
            format!("tund new fri mon=mon.tn:1417 --tun 192.168.86.81,192.168.86.18 --service {kind} -o .");
        let printed = done(&pair.fri, &line);
        done(&pair.fri, "scp tun-mon-fri.toml tun-fri-mon.key root@mon.tn:");
        let directory = pair.mon.dir().display().to_string();
        let lines = commands_for("mon", &printed);
        assert!(lines.contains("/usr/sbin/tund") && lines.contains("systemctl reload"), "{lines}");
        let lines = lines.replace("/usr/sbin/tund", &format!("{TUND} ")).replace("/etc/tund", &directory);
        let lines = lines.replace("/etc/xinetd.d/tun-mon-fri", "file").replace("/etc/inetd.conf", "file");
        // The test's superserver reads its file at start.
        done(&pair.mon, lines.split("systemctl").next().unwrap());
        let _server = match kind {
            "xinetd" => pair.mon.spawn(&[
                "xinetd",
                "-dontfork",
                "-f",
                &format!("{directory}/file"),
                "-pidfile",
                &format!("{directory}/pid"),
            ]),
            _ => pair.mon.spawn(&["inetd", "-i", &format!("{directory}/file")]),
        }
        .unwrap();
        wait_listening(&pair.mon, 1417);
        let fri = fs::read_to_string(pair.fri.dir().join("tun-fri-mon.toml")).unwrap();
        let fri = start(&pair.fri, "tun-fri-mon", &fri);
        fri.wait_line(UP, SOON).unwrap();
        assert_pings(&pair.fri, "192.168.86.18");
    }
}

#[test]
fn the_commands_for_systemd_start_the_units_with_their_credential() {
    for kind in ["systemd", "socket"] {
        let pair = hosts();
        let machine = systemd::boot(&pair, &Toml::tun_mon());
        let line =
            format!("tund new fri mon=mon.tn:1417 --tun 192.168.86.81,192.168.86.18 --service {kind} -o .");
        let printed = done(&pair.fri, &line);
        for (from, to) in [("tun-mon-fri.toml", "tun-mon-fri.toml"), ("tun-fri-mon.key", "tun-mon-fri.key")] {
            assert!(printed.contains(&format!("scp {from} root@mon.tn:/etc/tund/")), "{printed}");
            let text = fs::read_to_string(pair.fri.dir().join(from)).unwrap();
            machine.shell(&format!("cat >/etc/tund/{to} <<'WHOLE'\n{text}WHOLE")).unwrap();
        }
        machine.shell(&commands_for("mon", &printed)).unwrap();
        let fri = fs::read_to_string(pair.fri.dir().join("tun-fri-mon.toml")).unwrap();
        let fri = match kind {
            "systemd" => fri.replace("credential = \"key\"", "file = \"tun-fri-mon.key\""),
            _ => fri,
        };
        let fri = start(&pair.fri, "tun-fri-mon", &fri);
        fri.wait_line(UP, SOON).unwrap_or_else(|error| panic!("{error}\n{}", machine.journal().unwrap()));
        assert_pings(&pair.fri, "192.168.86.18");
    }
}
