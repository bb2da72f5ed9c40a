//! Both ends prove to be tund and change to handshake keys.

use super::*;

/// Keeps handshakes off the path, but passes pings in OpenVPN's format.
const FILTER: &str = "table inet t {
    chain in {
        type filter hook input priority 0
        udp length 1000-65535 drop
    }
}
";

/// The other end of [`Case::tund`].
fn tund_at_mon(host: &Host) -> String {
    let text = Case { direction: Some(1), ..USUAL }.tund(host).replace("10.0.0.2:", "10.0.0.1:");
    text.replace("address = '10.1.0.1'\npeer = '10.1.0.2'", "address = '10.1.0.2'\npeer = '10.1.0.1'")
}

#[test]
fn two_ends_change_under_a_running_ping_and_go_back_for_an_openvpn() {
    let pair = pair();
    keyed(&pair);
    for host in [&pair.fri, &pair.mon] {
        let file = host.file("filter", FILTER).unwrap();
        host.run(&format!("nft -f {}", file.display())).unwrap();
    }
    let fri = start_tund(&pair, &USUAL);
    let mut mon = start(&pair.mon, "mon", &tund_at_mon(&pair.mon));
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(UP, SOON).unwrap();
    let ping = spawn(&pair.fri, "ping -n -i 0.01 -c 3000 10.1.0.2");
    ping.wait_line("icmp_seq=100 ", SOON).unwrap();
    assert!(!fri.text().contains("[openvpn-upgraded]"));
    for host in [&pair.fri, &pair.mon] {
        host.run("nft flush ruleset").unwrap();
    }
    fri.wait_line("[openvpn-upgraded]", SOON).unwrap();
    mon.wait_line("[openvpn-upgraded]", SOON).unwrap();
    assert!(!ping.text().contains("packet loss"), "it runs still");
    ping.wait_line(" 0% packet loss", 6 * SOON).unwrap();
    let (_, status) = ask(&pair.fri, &["status", "fri"]);
    assert!(!status.contains("CBC"), "{status}");
    assert_both_ways(&pair, "-s 1472");

    // Someone at the far end returns to OpenVPN.
    mon.terminate(SOON).unwrap();
    let openvpn = start_openvpn(&pair.mon, &USUAL, REMOTE);
    openvpn.wait_line(READY, SOON).unwrap();
    wait_until("frames pass again", SOON, || pair.fri.run("ping -c 1 -W 1 10.1.0.2").is_ok()).unwrap();
}

/// The message that identifies this end as tund means nothing to OpenVPN, which does not log it.
#[test]
fn openvpn_ignores_what_this_end_says_of_itself() {
    let pair = pair();
    keyed(&pair);
    let mon = start_openvpn(&pair.mon, &USUAL, "--remote 10.0.0.1 --verb 7");
    let fri = start_tund(&pair, &USUAL);
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(READY, SOON).unwrap();
    // Sent at once, and again after ten seconds.
    sleep(Duration::from_secs(12));
    let lines = mon.lines();
    let begun = lines.iter().position(|line| line.contains(READY)).unwrap();
    let odd = |line: &&String| {
        ["WARN", "rror", "unknown", "bad ", "invalid"].iter().any(|word| line.contains(word))
    };
    let complaints: Vec<_> = lines[begun..].iter().filter(odd).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert_both_ways(&pair, "");
}
