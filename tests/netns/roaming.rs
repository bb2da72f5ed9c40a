//! Ends whose addresses change under the link.
//!
//! ```text
//!  fri 10.0.0.1, fd99::1 ==== wire or cable ==== 10.0.0.2, fd99::2 mon
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tund_lab::frame::Datagram;
use tund_lab::{Side, Wire};

use super::support::*;

const MODES: [fn(Toml) -> Toml; 2] = [|toml| toml, Toml::handshake];
/// Time in which two ends with one key are detected.
const WITHIN: Duration = Duration::from_secs(60);
/// A list of remotes is tried from its start, each for up to half a minute.
const LIST: Duration = Duration::from_secs(90);

/// Shows fri's port 1417 to mon as another, like a NAT that may lose its state.
fn translate(wire: &Wire, port: &Arc<AtomicU16>) {
    let port = port.clone();
    wire.set_filter(move |frame| {
        let Some(mut datagram) = Datagram::parse(&frame.bytes) else { return vec![frame.bytes.clone()] };
        let shown = port.load(Ordering::Relaxed);
        match frame.from {
            Side::A => datagram.from.set_port(shown),
            Side::B if datagram.to.port() == shown => datagram.to.set_port(1417),
            Side::B => return Vec::new(),
        }
        vec![datagram.to_frame()]
    });
}

#[test]
fn a_peer_that_is_translated_anew_is_followed() {
    for keys in MODES {
        let (wire, pair) = wired();
        let port = Arc::new(AtomicU16::new(40_001));
        translate(&wire, &port);
        let (fri, mon) = pair.link(&keys(Toml::tun_fri()), &keys(Toml::tun_mon()));
        assert_pings(&pair.fri, "192.168.86.18");
        for shown in [40_002, 40_003] {
            let mark = mon.mark();
            port.store(shown, Ordering::Relaxed);
            // Only traffic from fri can show it; here a ping.
            pair.fri
                .wait_output("ping -n -c 1 -W 1 192.168.86.18", SOON, |text| text.contains("1 received"))
                .unwrap_or_else(|error| panic!("{error}\nfri:\n{}\nmon:\n{}", fri.text(), mon.text()));
            let line = mon.wait_line_after(mark, "[peer-moved]", SOON).unwrap();
            assert!(line.contains(&format!("10.0.0.1:{shown}")), "{line}");
            assert_pings(&pair.mon, "192.168.86.81");
        }
        assert!(!fri.text().contains(DOWN) && !mon.text().contains(DOWN));
    }
}

#[test]
fn a_peer_that_moves_is_followed() {
    for keys in MODES {
        let pair = pair();
        let (_fri, mon) = pair.link(&keys(Toml::tun_fri()), &keys(Toml::tun_mon()));
        let mark = mon.mark();
        pair.fri.run("ip addr add 10.0.0.7/24 dev eth0").unwrap();
        pair.fri.run("ip addr del 10.0.0.1/24 dev eth0").unwrap();
        // It may have gone with the first one of its network.
        pair.fri.run("ip addr add 10.0.0.7/24 dev eth0").err();
        pair.fri
            .wait_output("ping -n -c 1 -W 1 192.168.86.18", SOON, |text| text.contains("1 received"))
            .unwrap();
        let line = mon.wait_line_after(mark, "[peer-moved]", SOON).unwrap();
        assert!(line.contains("10.0.0.7:1417"), "{line}");
    }
}

#[test]
fn routes_that_choose_another_own_address_are_followed_where_the_old_one_leads_nowhere() {
    for keys in MODES {
        let pair = pair();
        pair.fri.run("ip addr add 10.0.0.11/24 dev eth0").unwrap();
        let (fri, mon) = pair.link(&keys(Toml::tun_fri()), &keys(Toml::tun_mon()));
        let mark = mon.mark();
        // Like a provider that filters another's addresses. What mon sends still arrives.
        let drop = "nft add table ip f; nft 'add chain ip f i { type filter hook input priority 0; }'; \
                    nft add rule ip f i ip saddr 10.0.0.1 drop";
        pair.mon.shell(drop).unwrap();
        pair.fri.run("ip route add 10.0.0.2 dev eth0 src 10.0.0.11").unwrap();
        let line = mon.wait_line_after(mark, "[peer-moved]", SOON).unwrap();
        assert!(line.contains("10.0.0.11:1417"), "{line}");
        assert_pings(&pair.fri, "192.168.86.18");
        assert!(!fri.text().contains(DOWN) && !mon.text().contains(DOWN));
    }
}

#[test]
fn a_peer_that_loses_a_family_is_found_by_the_other_and_the_link_goes_on() {
    for keys in MODES {
        let pair = pair();
        let quick = "[keepalive]\ninterval = '1s'\ntimeout = '4s'";
        let fri = keys(Toml::tun_fri()).top("remote = ['10.0.0.2:1417', '[fd99::2]:1417']").with(quick);
        let (fri, mon) = pair.link(&fri, &keys(Toml::tun_mon()).with(quick));
        fri.wait_line(&format!("{UP} 10.0.0.2:1417"), SOON).unwrap();
        let mark = fri.mark();
        pair.mon.run("ip addr del 10.0.0.2/24 dev eth0").unwrap();
        fri.wait_line_after(mark, &format!("{UP} [fd99::2]:1417"), LIST)
            .unwrap_or_else(|error| panic!("{error}\nfri:\n{}\nmon:\n{}", fri.text(), mon.text()));
        assert_pings(&pair.fri, "192.168.86.18");
        // And back.
        let mark = fri.mark();
        pair.mon.run("ip addr add 10.0.0.2/24 dev eth0").unwrap();
        pair.mon.run("ip addr del fd99::2/64 dev eth0").unwrap();
        fri.wait_line_after(mark, &format!("{UP} 10.0.0.2:1417"), LIST)
            .unwrap_or_else(|error| panic!("{error}\nfri:\n{}\nmon:\n{}", fri.text(), mon.text()));
        assert_pings(&pair.fri, "192.168.86.18");
    }
}

/// ```text
///  fri 10.0.0.1 ---- 10.0.0.2 mon 10.0.1.2 ---- 10.0.1.1 two, which has fri's file
/// ```
#[test]
fn one_file_on_two_hosts_is_said_by_all_three() {
    for keys in MODES {
        let pair = pair();
        let two = pair.net.host("two").unwrap();
        pair.net.cable(&two, "eth0", &pair.mon, "eth1").unwrap();
        two.run("ip addr add 10.0.1.1/24 dev eth0").unwrap();
        pair.mon.run("ip addr add 10.0.1.2/24 dev eth1").unwrap();
        two.run("ip route add 10.0.0.2 via 10.0.1.2").unwrap();
        std::fs::copy(pair.fri.dir().join("static.key"), two.dir().join("static.key")).unwrap();
        let config = keys(Toml::tun_fri()).with("[keepalive]\ninterval = '3s'");
        let (fri, mon) = pair.link(&config, &keys(Toml::tun_mon()));
        let copy = start(&two, "fri", &config.text());
        for process in [&mon, &fri, &copy] {
            let line = process.wait_line("[cloned-end]", WITHIN).unwrap();
            assert!(line.contains("10.0.0.1:") && line.contains("10.0.1.1:"), "{line}");
        }
        for (host, name) in [(&pair.mon, "mon"), (&pair.fri, "fri"), (&two, "fri")] {
            assert_eq!(super::operation::status(host, name)["problem_code"], "cloned-end", "{name}");
        }
    }
}
