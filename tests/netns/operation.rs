//! Queries and commands to a running link.

use std::os::unix::fs::PermissionsExt;

use tund_lab::{Host, Process, wait_until};

use super::support::*;

/// Runs tund's other commands, which find running links in the host's runtime directory.
pub fn ask(host: &Host, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = host.command(TUND);
    command.args(arguments).env("RUNTIME_DIRECTORY", host.dir().join("run"));
    let mut process = Process::spawn("tund", command).unwrap();
    let status = process.wait(SOON).unwrap();
    (status.code(), process.text())
}

/// The control socket of a host's link `name`.
fn socket(host: &Host, name: &str) -> std::path::PathBuf {
    let mut entries = std::fs::read_dir(host.dir().join("run")).unwrap().flatten();
    let own = entries.find(|entry| entry.file_name().to_str().unwrap().starts_with(&format!("{name}-")));
    own.unwrap().path().join("control.sock")
}

/// Runs Debian's Python in a host.
fn python(host: &Host, script: &str) -> String {
    host.output(&["/usr/bin/python3", "-c", script]).unwrap()
}

pub fn status(host: &Host, name: &str) -> serde_json::Value {
    let (_, text) = ask(host, &["status", name, "--json"]);
    serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"))[0]
        .take()
}

#[test]
fn status_tells_what_a_link_waits_for_and_what_it_carries() {
    let pair = pair();
    let (code, text) = ask(&pair.fri, &["status"]);
    assert_eq!((code, text.as_str()), (Some(1), "no link is running"));
    let fri = Toml::tun_fri().handshake().with("[[route]]\nto = '192.168.66.0/24'");
    let mut fri = pair.start_fri(&fri);
    let line = fri.wait_line("[no-answer]", SOON).unwrap();
    assert!(line.contains("10.0.0.2:1417"), "{line}");
    let (code, text) = ask(&pair.fri, &["status"]);
    assert_eq!(code, Some(1));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[1].starts_with("fri   waiting") && lines[1].contains("10.0.0.2:1417"), "{text}");
    let problem = status(&pair.fri, "fri")["problem_code"].clone();
    assert!(lines.len() == 3 && (problem == "no-answer" || problem == "port-refused"), "{problem}: {text}");

    let mon = pair.start_mon(&Toml::tun_mon().handshake());
    mon.wait_line(UP, SOON).unwrap();
    fri.wait_line(UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    let carried = || {
        let status = status(&pair.fri, "fri");
        status["counters"]["frames_received"].as_u64().unwrap() >= 9 && status["rtt"].as_f64().is_some()
    };
    wait_until("frames in the status", SOON, carried).unwrap();
    let (code, text) = ask(&pair.fri, &["status", "fri"]);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "fri: up for",
        "10.0.0.2:1417, its \"mon\"",
        "tun0: tun, MTU 1420, 192.168.86.81/32",
        "handshake by X25519 + ML-KEM-768, ",
        "ip route add 192.168.66.0/24",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let told = status(&pair.fri, "fri");
    assert_eq!((&told["pid"], &told["cipher"]), (&fri.pid().into(), &"AES-256-GCM".into()));
    let library = told["library"].as_str().unwrap();
    assert!(text.contains(&format!("AES-256-GCM by {library}")), "{library} is not in\n{text}");
    let (code, text) = ask(&pair.mon, &["status", "fri"]);
    assert!(code == Some(1) && text.contains("doctor"), "{text}");
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert_eq!(ask(&pair.fri, &["status"]).1, "no link is running");
}

#[test]
fn a_link_is_ended_reconnected_and_rekeyed_over_its_socket() {
    let pair = pair();
    for keys in [|toml| toml, Toml::handshake as fn(Toml) -> Toml] {
        let (mut fri, mon) = pair.link(&keys(Toml::tun_fri()), &keys(Toml::tun_mon()));
        let born = status(&pair.fri, "fri")["keys_since"].as_u64().unwrap();
        wait_until("keys with an age", SOON, || {
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
            now > born + 2
        })
        .unwrap();
        assert_eq!(ask(&pair.fri, &["rekey", "fri"]), (Some(0), String::new()));
        let younger = || status(&pair.fri, "fri")["keys_since"].as_u64().unwrap_or(0) > born + 1;
        wait_until("new keys", SOON, younger).unwrap();
        assert_pings(&pair.fri, "192.168.86.18");

        let mark = fri.mark();
        assert_eq!(ask(&pair.mon, &["reconnect", "mon"]), (Some(0), String::new()));
        fri.wait_line_after(mark, "[peer-goodbye]", SOON).unwrap();
        fri.wait_line_after(mark, UP, SOON).unwrap();
        assert_pings(&pair.fri, "192.168.86.18");

        let mark = fri.mark();
        fri.signal(rustix::process::Signal::USR1).unwrap();
        fri.wait_line_after(mark, "[reconnecting]", SOON).unwrap();
        fri.wait_line_after(mark, UP, SOON).unwrap();
        assert_pings(&pair.fri, "192.168.86.18");

        assert_eq!(ask(&pair.fri, &["down", "fri"]), (Some(0), String::new()));
        assert_eq!(exit_code(&mut fri), 0);
        assert!(!pair.fri.interfaces().unwrap().contains(&"tun0".to_owned()));
        drop(mon);
        wait_gone(&pair.mon);
    }
}

/// The bytes follow varlink's documentation, without tund's code.
#[test]
fn a_varlink_client_that_knows_nothing_of_tund_can_ask() {
    let pair = pair();
    let (_fri, _mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    let script = format!(
        "import socket, json\n\
         s = socket.socket(socket.AF_UNIX)\n\
         s.settimeout(20)\n\
         s.connect('{}')\n\
         def call(method, **parameters):\n\
         \x20 s.sendall(json.dumps(dict(method=method, parameters=parameters)).encode() + b'\\0')\n\
         \x20 answer = b''\n\
         \x20 while not answer.endswith(b'\\0'): answer += s.recv(65536)\n\
         \x20 return json.loads(answer[:-1])\n\
         for interface in call('org.varlink.service.GetInfo')['parameters']['interfaces']:\n\
         \x20 text = call('org.varlink.service.GetInterfaceDescription', interface=interface)\n\
         \x20 print('interface ' + interface in text['parameters']['description'])\n\
         print(call('tund.link.Status')['parameters']['status']['state'])\n\
         print(call('tund.link.Stats')['parameters']['text'].splitlines()[-1])\n\
         print(call('tund.link.Rekey'))\n\
         print(call('tund.link.Fly')['error'])\n",
        socket(&pair.fri, "fri").display()
    );
    let text = python(&pair.fri, &script);
    let expected =
        ["True", "True", "up", "# EOF", "{'parameters': {}}", "org.varlink.service.MethodNotFound"];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

/// Prometheus's own Python parser decides.
#[test]
fn the_metrics_of_two_links_are_taken_by_prometheus() {
    let pair = pair();
    let (_fri, _mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    let other = Toml::tun_fri().top("remote = '10.0.0.2:1500'\nlisten = 0");
    let other = other.device("mode = 'tun'\nname = 'tun1'\naddress = '10.77.0.1'\npeer = '10.77.0.2'");
    let other = start(&pair.fri, "other", &other.text());
    other.wait_line("[no-answer]", SOON).unwrap();
    let (code, text) = ask(&pair.fri, &["stats"]);
    assert_eq!(code, Some(0), "{text}");
    let file = pair.fri.file("metrics", &format!("{text}\n")).unwrap();
    let script = format!(
        "from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
         for family in parse(open('{}').read()):\n\
         \x20 for sample in family.samples:\n\
         \x20   print(sample.name, sample.labels['link'], float(sample.value))\n",
        file.display()
    );
    let parsed = python(&pair.fri, &script);
    for line in ["tund_link_up fri 1.0", "tund_link_up other 0.0", "tund_dropped_total fri 0.0"] {
        assert!(parsed.lines().any(|found| found == line), "{line}: {parsed}");
    }
}

#[test]
fn status_says_what_is_wrong_and_what_to_do() {
    let pair = pair();
    let problem = |expected: &str| {
        let shown = || {
            ask(&pair.fri, &["status"])
                .1
                .lines()
                .any(|line| line.starts_with("  ") && line.contains(expected))
        };
        let found = wait_until("the problem", SOON, shown);
        assert!(found.is_ok(), "{expected} is not in\n{}", ask(&pair.fri, &["status"]).1);
    };
    let remote = |remote: &str| Toml::tun_fri().handshake().top(&format!("remote = '{remote}'"));
    for (remote_text, expected) in [
        ("nowhere.invalid:1417", "cannot resolve nowhere.invalid"),
        ("203.0.113.9:1417", "this host has no route to 203.0.113.9"),
        ("10.0.0.2:1417", "is tund running there?"),
    ] {
        let mut fri = pair.start_fri(&remote(remote_text));
        problem(expected);
        assert_eq!(fri.terminate(SOON).unwrap(), 0);
    }
    // A port that accepts everything silently, like an end with another key.
    let deaf = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 1417))\n\
                print('there', flush=True)\nwhile True: s.recv(99)";
    let deaf = pair.mon.spawn(&["/usr/bin/python3", "-c", deaf]).unwrap();
    deaf.wait_line("there", SOON).unwrap();
    let hook = script(&pair.fri, "hook", "exit 3");
    let hook = format!("[scripts]\nsecurity = 2\nlink-up = '{}'", hook.display());
    let mut fri = pair.start_fri(&remote("10.0.0.2:1417").with(&hook));
    problem("calling 10.0.0.2:1417: no answer yet");
    drop(deaf);
    let _mon = pair.start_mon(&Toml::tun_mon().handshake());
    fri.wait_line(UP, SOON).unwrap();
    // Up, but not without problems.
    problem("link-up script");
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    let text = ask(&pair.fri, &["status", "fri"]).1;
    assert!(text.contains("doctor"), "{text}");
}

#[test]
fn status_shows_a_link_again_and_again_until_nobody_reads() {
    let pair = pair();
    let (_fri, mut mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    let watch = |form: &[&str]| {
        let mut command = pair.fri.command(TUND);
        command
            .args(["status", "fri", "--watch"])
            .args(form)
            .env("RUNTIME_DIRECTORY", pair.fri.dir().join("run"));
        Process::spawn("watch", command).unwrap()
    };
    let (mut text, mut json) = (watch(&[]), watch(&["--json"]));
    text.wait_line("fri: up ", SOON).unwrap();
    json.wait_line("\"state\":\"up\"", SOON).unwrap();
    let marks = [text.mark(), json.mark()];
    text.wait_line_after(marks[0], "fri: up ", SOON).unwrap();
    assert!(!text.text().contains('\u{1b}'), "no escape sequences where no terminal is");
    assert_eq!(mon.terminate(SOON).unwrap(), 0);
    // The output shows the link's present state.
    text.wait_line_after(marks[0], "fri: waiting ", SOON).unwrap();
    json.wait_line_after(marks[1], "\"state\":\"waiting\"", SOON).unwrap();
    for watcher in [&mut text, &mut json] {
        watcher.signal(rustix::process::Signal::TERM).unwrap();
        watcher.wait(SOON).unwrap();
    }
    // A reader that has seen enough closes it.
    let host = &pair.fri;
    let run = host.dir().join("run");
    let piped = format!("RUNTIME_DIRECTORY={} {TUND} status --watch | head -n 1", run.display());
    assert!(host.shell(&piped).unwrap().starts_with("LINK"));
}

#[test]
fn each_line_of_the_log_may_be_an_object() {
    let pair = pair();
    let (mut fri, mut mon) = pair.link(&Toml::tun_fri().with("[run]\nlog = 'json'"), &Toml::tun_mon());
    assert_eq!(mon.terminate(SOON).unwrap(), 0);
    fri.wait_line("\"code\":\"peer-goodbye\"", SOON).unwrap();
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    for line in fri.text().lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(
            object["link"] == "fri" && object["message"].is_string() && object["time"].is_string(),
            "{line}"
        );
    }
    assert!(fri.text().lines().count() >= 3, "{}", fri.text());
}

/// From before the link's start until after its end.
#[test]
fn events_tell_what_happens_to_a_link_once_each() {
    let pair = pair();
    let follow = |form: &[&str]| {
        let mut command = pair.fri.command(TUND);
        let runtime = pair.fri.dir().join("run");
        command.args(["events", "fri"]).args(form).env("RUNTIME_DIRECTORY", runtime);
        Process::spawn("events", command).unwrap()
    };
    let [mut text, mut json] = [follow(&[]), follow(&["--json"])];
    let (mut fri, mut mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    json.wait_line("\"state\":\"up\"", SOON).unwrap();
    let (mark, text_mark) = (json.mark(), text.mark());
    assert_eq!(mon.terminate(SOON).unwrap(), 0);
    json.wait_line_after(mark, "\"before\":\"up\",\"state\":\"waiting\"", SOON).unwrap();
    // Problems are checked once a second: the goodbye, or the next call's result.
    let begun = json.wait_line_after(mark, "\"event\":\"begins\"", SOON).unwrap();
    let begun = begun.split("\"code\":\"").nth(1).unwrap();
    let code = begun.split('"').next().unwrap();
    let [begins, ends] = ["begins", "ends"].map(|event| format!("\"event\":\"{event}\",\"code\":\"{code}\""));
    // The other one checks at other moments.
    text.wait_line_after(text_mark, "fri: begins [", SOON).unwrap();
    let mon = pair.start_mon(&Toml::tun_mon());
    json.wait_line_after(mark, &ends, SOON).unwrap();
    json.wait_line_after(mark, "\"before\":\"waiting\",\"state\":\"up\"", SOON).unwrap();
    text.wait_line_after(text_mark, "fri: ends [", SOON).unwrap();
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    json.wait_line("\"event\":\"gone\"", SOON).unwrap();
    let lines = json.text();
    let count = |event: &str| lines.matches(event).count();
    for once in ["\"event\":\"runs\"", "\"event\":\"gone\""] {
        assert_eq!(count(once), 1, "{once}: {lines}");
    }
    assert_eq!(count(&begins), count(&ends), "{lines}");
    for follower in [&mut text, &mut json] {
        follower.signal(rustix::process::Signal::TERM).unwrap();
        follower.wait(SOON).unwrap();
    }
    drop(mon);
}

#[test]
fn the_socket_the_metrics_and_the_priority_are_where_the_file_says() {
    let pair = pair();
    let place = pair.fri.dir().join("elsewhere.sock");
    let status = format!("[status]\nsocket = '{}'\nmetrics = '127.0.0.1:9586'", place.display());
    let fri = Toml::tun_fri().with(&status).with("[run]\nnice = 7");
    let (mut fri, _mon) = pair.link(&fri, &Toml::tun_mon());
    assert!(ask(&pair.fri, &["status"]).1.contains("fri   up"));
    assert_eq!(std::fs::read_link(socket(&pair.fri, "fri")).unwrap(), place);
    let page = pair.fri.output(&["curl", "-sS", "-i", "http://127.0.0.1:9586/metrics"]).unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("openmetrics-text"), "{page}");
    assert!(page.contains("tund_link_up{link=\"fri\"} 1") && page.trim_end().ends_with("# EOF"), "{page}");
    // A silent client delays nobody.
    let silent = "import socket\ns = socket.create_connection(('127.0.0.1', 9586))\nprint('there', flush=True)\ns.recv(1)";
    let silent = pair.fri.spawn(&["/usr/bin/python3", "-c", silent]).unwrap();
    silent.wait_line("there", SOON).unwrap();
    let page = pair.fri.output(&["curl", "-sS", "http://127.0.0.1:9586/"]).unwrap();
    assert!(page.contains("tund_link_up"), "{page}");
    let nice = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
    };
    assert_eq!(nice(super::ending::engine(&pair.fri, &fri)), 7);
    drop(silent);
    assert_eq!(fri.terminate(SOON).unwrap(), 0, "{}", fri.text());
    assert!(!place.exists());
    assert_eq!(std::fs::read_dir(pair.fri.dir().join("run")).unwrap().count(), 0);
}

#[test]
fn only_root_and_the_links_own_user_may_ask() {
    let pair = pair();
    let _fri = pair.start_fri(&Toml::tun_fri());
    pair.fri.wait_output("ip -brief link", SOON, |text| text.contains("tun0")).unwrap();
    wait_until("the socket", SOON, || {
        pair.fri.dir().join("run").read_dir().is_ok_and(|mut d| d.next().is_some())
    })
    .unwrap();
    let socket = socket(&pair.fri, "fri");
    let connect = format!(
        "import socket,os\nos.setgid(65534)\nos.setuid(65534)\ns=socket.socket(socket.AF_UNIX)\ns.settimeout(10)\n\
         try:\n  s.connect('{}')\n  s.sendall(b'{{\"method\":\"tund.link.Status\"}}\\0')\n  print(s.recv(999).decode())\n\
         except OSError as error: print('refused')\n",
        socket.display()
    );
    assert_eq!(python(&pair.fri, &connect), "refused");
    // Even if everybody can reach the socket, the peer's user decides.
    let mut directory = socket.as_path();
    while let Some(parent) = directory.parent().filter(|parent| parent.starts_with(pair.net.dir())) {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        directory = parent;
    }
    std::fs::set_permissions(pair.net.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = python(&pair.fri, &connect);
    // It may read the refusal, or find the socket closed before it has asked.
    let is_refused = text == "refused" || text.contains("tund.link.Refused");
    assert!(is_refused && !text.contains("\"status\""), "{text}");
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up_and_tells_what_it_has_missed() {
    let pair = pair();
    let mut mon = pair.start_mon(&Toml::tun_mon());
    let (mut reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let file = pair.fri.file("fri.toml", &Toml::tun_fri().text()).unwrap();
    let run = pair.fri.dir().join("run");
    std::fs::create_dir_all(&run).unwrap();
    let mut command = pair.fri.command(TUND);
    command.arg("--config").arg(file).args(["--verb", "6"]).env("RUNTIME_DIRECTORY", run);
    let mut fri = command.stderr(writer).spawn().unwrap();
    // The command still holds the pipe's other end.
    drop(command);
    let pid = rustix::process::Pid::from_child(&fri);
    let up = || ask(&pair.fri, &["status", "fri"]).0 == Some(0);
    tund_lab::wait_until("fri up", SOON, up).unwrap();
    // Each of these logs more than the pipe holds.
    for _ in 0..20 {
        rustix::process::kill_process(pid, rustix::process::Signal::USR2).unwrap();
        assert!(up());
    }
    assert_pings(&pair.fri, "192.168.86.18");
    assert_eq!(mon.terminate(SOON).unwrap(), 0);
    let _mon = pair.start_mon(&Toml::tun_mon());
    tund_lab::wait_until("fri up again", SOON, up).unwrap();
    // From now on it is read, and its end is there.
    let text = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).map(|_| text)
    });
    assert_eq!(ask(&pair.fri, &["down", "fri"]).0, Some(0));
    assert_eq!(fri.wait().unwrap().code(), Some(0));
    let text = text.join().unwrap().unwrap();
    assert!(text.contains(" lines of the log could not be written\n"), "{text}");
}
