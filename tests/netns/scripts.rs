//! The environment of scripts, as OpenVPN provides it.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon
//! ```

use std::collections::BTreeMap;
use std::fs;

use tund_lab::wait_until;

use super::support::*;

/// A script that writes its arguments and environment to `NAME.args` and `NAME.env`.
fn recorder(pair: &Pair, name: &str) -> String {
    let base = pair.fri.dir().join(name).display().to_string();
    let body = format!(
        "printf '%s\\n' \"$@\" > {base}.args\ncat /proc/$$/environ > {base}.new; mv {base}.new {base}.env"
    );
    script(&pair.fri, &format!("{name}.sh"), &body).display().to_string()
}

fn arguments(pair: &Pair, name: &str) -> Vec<String> {
    let text = fs::read_to_string(pair.fri.dir().join(format!("{name}.args"))).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn environment(pair: &Pair, name: &str) -> BTreeMap<String, String> {
    let path = pair.fri.dir().join(format!("{name}.env"));
    wait_until(&format!("{name} script"), SOON, || path.exists()).unwrap();
    let bytes = fs::read(path).unwrap();
    let texts = bytes.split(|byte| *byte == 0).filter(|text| !text.is_empty());
    let pair = |text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap()
    };
    texts.map(pair).collect()
}

#[test]
fn every_script_runs_at_its_time_with_openvpns_names() {
    let pair = pair();
    let hooks = ["up", "route-up", "link-up", "link-down", "route-down", "down"];
    let lines: String = hooks.iter().map(|hook| format!("{hook} = '{}'\n", recorder(&pair, hook))).collect();
    let tables = format!("[scripts]\nsecurity = 2\n{lines}[[route]]\nto = '192.168.66.0/24'");
    let (mut fri, _mon) = pair.link(&Toml::tun_fri().with(&tables), &Toml::tun_mon());

    let expected = ["tun0", "1400", "1437", "192.168.86.81", "192.168.86.18", "init"];
    assert_eq!(arguments(&pair, "up"), expected);
    let up = environment(&pair, "up");
    let parent = fri.pid().to_string();
    let config = pair.fri.dir().join("fri.toml").display().to_string();
    for (name, value) in [
        ("dev", "tun0"),
        ("dev_type", "tun"),
        ("script_type", "up"),
        ("tun_mtu", "1400"),
        ("link_mtu", "1437"),
        ("ifconfig_local", "192.168.86.81"),
        ("ifconfig_remote", "192.168.86.18"),
        ("route_network_1", "192.168.66.0"),
        ("route_netmask_1", "255.255.255.0"),
        ("route_gateway_1", "192.168.86.18"),
        ("route_vpn_gateway", "192.168.86.18"),
        ("config", &config),
        ("daemon_pid", &parent),
        ("TUND_DEV", "tun0"),
    ] {
        assert_eq!(up.get(name).map(String::as_str), Some(value), "{name}");
    }
    let unwanted = ["HOME", "USER", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET", "LISTEN_FDS"];
    assert!(unwanted.iter().all(|name| !up.contains_key(*name)), "not a clean environment: {up:?}");

    let link_up = environment(&pair, "link-up");
    assert_eq!(link_up["trusted_ip"], "10.0.0.2");
    assert_eq!(link_up["trusted_port"], "1417");
    environment(&pair, "route-up");
    assert_pings(&pair.fri, "192.168.86.18");

    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    let down = environment(&pair, "down");
    assert_eq!((down["script_type"].as_str(), down["signal"].as_str()), ("down", "sigterm"));
    for name in ["bytes_sent", "bytes_received"] {
        assert!(down[name].parse::<u64>().unwrap() >= 5 * 84, "{name} = {}", down[name]);
    }
    assert_eq!(environment(&pair, "route-down")["script_type"], "route-pre-down");
}

#[test]
fn the_device_exists_when_up_runs_and_still_when_down_runs() {
    let pair = pair();
    let see = script(&pair.fri, "see", "echo $script_type sees $(ip -brief link show $1)");
    let table = format!("[scripts]\nsecurity = 2\nup = '{0}'\ndown = '{0}'", see.display());
    let (mut fri, _mon) = pair.link(&Toml::tun_fri().with(&table), &Toml::tun_mon());
    fri.wait_line("up sees tun0", SOON).unwrap();
    fri.terminate(SOON).unwrap();
    assert!(fri.text().contains("down sees tun0"), "{}", fri.text());
}

#[test]
fn the_arguments_of_the_file_come_first_and_no_shell_reads_them() {
    let pair = pair();
    let up = recorder(&pair, "up");
    let table = format!("[scripts]\nsecurity = 2\nup = ['{up}', 'a b', '$(id); *']");
    let (_fri, _mon) = pair.link(&Toml::tun_fri().with(&table), &Toml::tun_mon());
    assert_eq!(arguments(&pair, "up")[..3], ["a b", "$(id); *", "tun0"]);
}

#[test]
fn scripts_run_with_the_parents_rights_though_the_engine_has_none() {
    let pair = pair();
    let down = script(&pair.fri, "down", "ip link set dev $1 alias late && echo could still change $1");
    let table = format!("[scripts]\nsecurity = 2\ndown = '{}'", down.display());
    let (mut fri, _mon) = pair.link(&Toml::tun_fri().with(&table), &Toml::tun_mon());
    fri.terminate(SOON).unwrap();
    assert!(fri.text().contains("could still change tun0"), "{}", fri.text());
}

#[test]
fn a_script_without_security_2_is_refused() {
    let pair = pair();
    let up = recorder(&pair, "up");
    let mut fri = pair.start_fri(&Toml::tun_fri().with(&format!("[scripts]\nup = '{up}'")));
    assert_eq!(exit_code(&mut fri), 78);
    assert!(fri.text().contains("security"), "{}", fri.text());
}
