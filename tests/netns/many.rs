//! A link with very many routes.

use tund_lab::wait_until;

use super::operation::ask;
use super::support::*;

const MANY: u32 = 20_000;

fn net(number: u32) -> String {
    format!("{}/24", std::net::Ipv4Addr::from(0x1400_0000 + (number << 8)))
}

fn table(numbers: impl Iterator<Item = u32>, rest: &str) -> String {
    numbers.map(|number| format!("[[route]]\nto = '{}'\n{rest}", net(number))).collect()
}

/// The number of tund's routes on the host.
fn count(host: &tund_lab::Host) -> usize {
    host.run("ip route show proto 88").unwrap().lines().count()
}

#[test]
fn very_many_routes_are_set_changed_set_again_and_taken_back() {
    let pair = pair();
    let fri = |numbers: std::ops::Range<u32>| Toml::tun_fri().handshake().with(&table(numbers, ""));
    let (mut process, _mon) = pair.link(&fri(0..MANY), &Toml::tun_mon().handshake());
    assert_eq!(count(&pair.fri), MANY as usize);
    let shown = process.text().lines().filter(|line| line.contains("ip route add")).count();
    assert!(shown < 100, "{shown} of the routes are shown one by one");
    // Only sources behind a route are accepted.
    let last = net(MANY - 1).replace(".0/24", ".1");
    pair.mon.run(&format!("ip addr add {last}/32 dev tun0")).unwrap();
    assert_pings(&pair.fri, &last);
    pair.fri.file("fri.toml", &fri(1..MANY + 1).text()).unwrap();
    let (code, text) = ask(&pair.fri, &["reload", "fri"]);
    assert_eq!(code, Some(0), "{text}");
    let expected = [format!("route removed: {}", net(0)), format!("route added: {}", net(MANY))];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert_eq!(count(&pair.fri), MANY as usize);
    pair.fri.run("ip route flush proto 88").unwrap();
    wait_until("routes set again", SOON, || count(&pair.fri) == MANY as usize).unwrap();
    let (code, text) = ask(&pair.fri, &["status", "fri"]);
    assert!(code == Some(0) && text.lines().count() < 1100 && text.lines().count() > 10, "{code:?}");
    assert_eq!(process.terminate(SOON).unwrap(), 0);
    assert_eq!(count(&pair.fri), 0);
}

/// Routes through the link's own device vanish with it.
#[test]
fn very_many_routes_that_a_killed_link_left_are_taken_back_by_the_next() {
    let pair = pair();
    let left = Toml::tun_fri().with(&table(0..MANY, "via = '10.0.0.2'\n"));
    let (process, _mon) = pair.link(&left, &Toml::tun_mon());
    assert_eq!(count(&pair.fri), MANY as usize);
    process.signal(rustix::process::Signal::KILL).unwrap();
    wait_gone(&pair.fri);
    assert_eq!(count(&pair.fri), MANY as usize);
    let mut next = pair.start_fri(&Toml::tun_fri());
    next.wait_line(UP, SOON).unwrap();
    assert_eq!(count(&pair.fri), 0);
    assert_eq!(next.terminate(SOON).unwrap(), 0);
}

/// Each lists interfaces, addresses and routes while the others change them.
#[test]
fn a_hundred_links_start_at_once_and_all_of_them_run() {
    const LINKS: usize = 100;
    let pair = pair();
    let table = routes(&pair.fri);
    for round in 0..2 {
        let link = |number: usize| {
            let device = format!("address = '10.7.{number}.1'\npeer = '10.7.{number}.2'");
            let route = format!("[[route]]\nto = '10.8.{number}.0/24'");
            let toml =
                Toml::tun_fri().top(&format!("listen = {}", 2000 + number)).device(&device).with(&route);
            start(&pair.fri, &format!("link{number}"), &toml.text())
        };
        let links: Vec<_> = (0..LINKS).map(link).collect();
        for link in &links {
            link.wait_line("[no-remote]", 6 * SOON).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
        let set = routes(&pair.fri).lines().filter(|line| line.contains("10.8.")).count();
        assert_eq!((set, pair.fri.interfaces().unwrap().len()), (LINKS, LINKS + 2), "round {round}");
        links.iter().for_each(|link| link.signal(rustix::process::Signal::TERM).unwrap());
        for mut link in links {
            assert_eq!(link.code(6 * SOON).unwrap(), 0, "round {round}: {}", link.text());
        }
        assert_eq!(routes(&pair.fri), table);
    }
}
