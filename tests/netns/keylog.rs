//! `--key-log`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tund_lab::wait_until;

use super::support::*;

const WARNING: &str = "warning: --key-log writes the keys of this link to ";

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
    assert!(ask("status").contains("warning: its keys are written to "), "{}", ask("status"));

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
    fri.wait_line("may be read or written by others (mode 644): chmod 600", SOON).unwrap();
    assert_eq!(exit_code(&mut fri), 78);
}
