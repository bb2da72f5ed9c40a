//! What the processes may do.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon
//! ```

use std::collections::BTreeMap;
use std::fs;

use tund_lab::rights::has_nobody;

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
fn the_engine_holds_no_descriptor_of_the_key_file_and_the_parent_none_of_the_network() {
    let pair = pair();
    let (fri, _mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    let targets = |pid: u32| -> Vec<String> {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        links.filter_map(|link| Some(fs::read_link(link.path()).ok()?.display().to_string())).collect()
    };
    let engine = targets(engine(&pair.fri, &fri));
    assert!(engine.iter().all(|target| !target.contains("static.key")), "{engine:?}");
    assert!(engine.iter().any(|target| target == "/dev/net/tun"), "{engine:?}");
    let sockets = pair.fri.run("ss -lunp").unwrap();
    assert!(!sockets.contains(&format!("pid={},", fri.pid())), "the parent holds the UDP socket: {sockets}");
}
