//! An engine's unrequested, too frequent or unfounded messages.

use super::*;

fn full(closed: bool) -> Config {
    let mut config = config();
    config.remotes[0].host = "10.0.0.9".to_owned();
    config.full_tunnel = Some(FullTunnel { closed, local_networks: true });
    config
}

/// Whether all but the link's own traffic is blocked.
fn is_closed() -> bool {
    way_to("8.8.8.8", None) == "none" && ip("rule").1.contains("fwmark")
}

/// A compromised engine wants what is closed to be open.
#[test]
fn only_an_end_that_was_asked_for_opens_a_closed_tunnel() {
    if !in_own_network("parent::tests::door::only_an_end_that_was_asked_for_opens_a_closed_tunnel") {
        return;
    }
    let scratch = Scratch::new();
    let unasked: [(Act, u8); 5] = [
        (|engine| tell(engine, ToParent::Exit { end: End::Done, reason: "done".to_owned() }), FAILED),
        (|engine| tell(engine, ToParent::Exit { end: End::Failed, reason: String::new() }), FAILED),
        (|engine| tell(engine, ToParent::Exit { end: End::Unavailable, reason: String::new() }), 69),
        (|engine| tell(engine, ToParent::Exit { end: End::Bug, reason: String::new() }), BUG),
        (|_| {}, BUG),
    ];
    for (number, (act, expected)) in unasked.into_iter().enumerate() {
        let code = Rig::new(full(true), &scratch).run(move |engine| {
            receive(engine);
            act(engine);
        });
        assert_eq!(code, expected, "{number}");
        assert!(is_closed(), "{number}: the tunnel was opened");
    }
    assert_eq!(logged("the engine ended without being asked to (done)").len(), 1);
    // No message of the engine causes an exit code after which systemd does not restart the link.
    let mut config = with_routes(config());
    config.remotes.clear();
    let other = Scratch::new();
    let code = Rig { device_later: true, ..Rig::new(config, &other) }.run(|engine| {
        receive(engine);
        tell(engine, ToParent::Endpoint("192.168.66.1:1".parse().unwrap()));
        tell(engine, ToParent::OpenDevice);
        while engine.receive().unwrap().is_some() {}
    });
    assert_eq!(code, 69, "an address within the link's own routes");
    assert!(is_closed(), "another link opened it");
    let code = Rig::new(full(true), &scratch).run(|engine| {
        receive(engine);
        stop(engine);
    });
    assert_eq!((code, is_closed()), (0, false), "asked by a signal");
    // A link that a superserver started may end when idle.
    let code = Rig { device_later: true, ..Rig::new(full(true), &scratch) }.run(|engine| {
        receive(engine);
        tell(engine, ToParent::OpenDevice);
        assert_eq!(receive(engine).0, ToEngine::Device);
        assert_eq!(way_to("8.8.8.8", None), "tun0");
        tell(engine, ToParent::Exit { end: End::Done, reason: "no frame passed".to_owned() });
    });
    assert_eq!((code, is_closed()), (0, false), "idle");
}

#[test]
fn a_link_that_goes_up_and_down_costs_a_few_turns_and_its_last_state_counts() {
    let name =
        "parent::tests::door::a_link_that_goes_up_and_down_costs_a_few_turns_and_its_last_state_counts";
    if !in_own_network(name) {
        return;
    }
    let scratch = Scratch::new();
    let mut config = full(false);
    record_every_hook(&mut config, &scratch);
    let hooks = scratch.path().join("hooks");
    let code = Rig::new(config, &scratch).run(move |engine| {
        receive(engine);
        engine.set_nonblocking(true).unwrap();
        let endpoint = SocketAddr::from(ENDPOINT);
        let up = ToParent::LinkUp { endpoint: endpoint.into(), name: "mon".to_owned() };
        let down = ToParent::LinkDown { reason: Condition::Reconnecting, traffic: Traffic::default() };
        let until = Instant::now() + Duration::from_secs(120);
        let mut turns = 0;
        while turns < 600 && Instant::now() < until {
            turns += u32::from(engine.send(&up, &[]).is_ok() && engine.send(&down, &[]).is_ok());
            let _ = engine.send(&ToParent::Resolve, &[]);
            while engine.receive().is_ok_and(|message| message.is_some()) {}
        }
        assert_eq!(turns, 600, "the parent takes no requests");
        let lines = logged("link up with").len() + logged("[reconnecting]").len() + logged("ip route").len();
        assert!(lines < 200, "{lines} lines");
        // Thirty at once, and one every five seconds, on a machine that takes a minute for it.
        let count = |what| logged(what).len();
        assert!((1..=60).contains(&(count("link up with") + count("link down: why"))));
        // Under another name, since an earlier one may be reported only now.
        let up = ToParent::LinkUp { endpoint: endpoint.into(), name: "last".to_owned() };
        while engine.send(&up, &[]).is_err() {}
        wait_until(|| !logged("\"last\"").is_empty());
        let ran = || std::fs::read_to_string(&hooks).unwrap_or_default();
        wait_until(|| ran().lines().last().is_some_and(|line| line.starts_with("link-up")));
        wait_until(|| way_to("8.8.8.8", None) == "tun0");
        while engine.send(&down, &[]).is_err() {}
        wait_until(|| ran().lines().last().is_some_and(|line| line.starts_with("link-down")));
        assert_eq!(way_to("8.8.8.8", None), "eth0");
        engine.set_nonblocking(false).unwrap();
        stop(engine);
    });
    assert_eq!(code, 0);
}
