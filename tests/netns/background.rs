//! `--daemon`: the launcher and its result.

use std::fs;

use tund_lab::{Host, Process, wait_until};

use super::operation::ask;
use super::support::*;

/// Runs tund with `--daemon` and waits for the launcher; returns exit code and output.
fn launch(host: &Host, toml: &Toml, environment: &[(&str, &str)]) -> (i32, String) {
    let file = host.file("fri.toml", &toml.text()).unwrap();
    fs::create_dir_all(host.dir().join("run")).unwrap();
    // Without the parent death signal that a host's commands have: tund would die with the launcher.
    let mut command = std::process::Command::new("nsenter");
    command
        .arg(format!("--net=/proc/{}/ns/net", host.pid()))
        .arg(format!("--mount=/proc/{}/ns/mnt", host.pid()));
    command.args(["--", TUND, "--daemon", "--config"]).arg(file);
    command.env("RUNTIME_DIRECTORY", host.dir().join("run"));
    command.envs(environment.iter().copied());
    let mut process = Process::spawn("tund --daemon", command).unwrap();
    let code = process.code(SOON).unwrap();
    // The test host may have no system log, which tund reports.
    let lines = process.lines().into_iter().filter(|line| !line.contains("/dev/log"));
    (code, lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_launcher_returns_when_the_link_runs_and_the_link_stays() {
    let pair = pair();
    script(&pair.fri, "up", "sleep 1; echo \"$daemon $daemon_pid\" > up.says");
    let fri = Toml::tun_fri()
        .with("[scripts]\nsecurity = 2\nup = 'up'\n[run]\npid-file = 'tund.pid'")
        .with("[[route]]\nto = '192.168.66.0/24'");
    let (code, text) = launch(&pair.fri, &fri, &[]);
    assert_eq!((code, text.as_str()), (0, ""));
    // All of it is done when the launcher exits.
    assert!(routes(&pair.fri).contains("192.168.66.0/24"));
    let pid: u32 = fs::read_to_string(pair.fri.dir().join("tund.pid")).unwrap().trim().parse().unwrap();
    assert_eq!(fs::read_to_string(pair.fri.dir().join("up.says")).unwrap(), format!("1 {pid}\n"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string(), "a session of its own");
    for fd in [0, 1, 2] {
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap().to_str(), Some("/dev/null"));
    }
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    let mon = pair.start_mon(&Toml::tun_mon());
    mon.wait_line(UP, SOON).unwrap();
    wait_until("fri up too", SOON, || ask(&pair.fri, &["status", "fri"]).0 == Some(0)).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    let (code, text) = ask(&pair.fri, &["reload", "fri"]);
    assert_eq!((code, text.as_str()), (Some(0), "nothing has changed"));
    assert_eq!(ask(&pair.fri, &["down", "fri"]).0, Some(0));
    wait_gone(&pair.fri);
    assert!(!pair.fri.dir().join("tund.pid").exists());
}

#[test]
fn the_launcher_has_the_exit_code_and_the_reason_of_a_start_that_fails() {
    let pair = pair();
    let (code, text) = launch(&pair.fri, &Toml::tun_fri().top("remot = 'x'"), &[]);
    assert!(code == 78 && text.contains("[unknown-key]"), "{code}: {text}");
    script(&pair.fri, "up", "exit 7");
    let (code, _) = launch(&pair.fri, &Toml::tun_fri().with("[scripts]\nsecurity = 2\nup = 'up'"), &[]);
    assert_eq!(code, 1);
    let (code, text) = launch(&pair.fri, &Toml::tun_fri(), &[("NOTIFY_SOCKET", "/nowhere")]);
    assert!(code == 2 && text.contains("drop --daemon"), "{code}: {text}");
    let gone = || pair.fri.processes().is_empty() && pair.fri.interfaces().unwrap() == ["eth0", "lo"];
    wait_until("nothing left", SOON, gone).unwrap();
}
