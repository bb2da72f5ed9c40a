//! A parent whose engine is a function of the test, and what tests ask of the host.

use super::*;

pub(super) struct Rig<'a> {
    pub(super) config: Config,
    pub(super) scratch: &'a Scratch,
    pub(super) device_later: bool,
}

impl<'a> Rig<'a> {
    pub(super) fn new(config: Config, scratch: &'a Scratch) -> Self {
        Self { config, scratch, device_later: false }
    }

    /// Runs a parent with `act` as the engine, which ends when `act` returns. Returns the exit code.
    pub(super) fn run(self, act: impl FnOnce(&Fake) + Send + 'static) -> u8 {
        let launch = Launch {
            start: Box::new(Start {
                kept: Kept::default(),
                keys: Box::new(Keys { secret: [7; 32], statics: None, openvpn: None }),
                link: LinkSettings::from(&config()),
                data_path: DataPath {
                    offload: true,
                    copy_dscp: false,
                    lanes: Lanes::Count(1),
                    threads: 1,
                    busy_poll: 0,
                },
                confinement: confinement(),
                key_log: false,
            }),
            socket: std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            listener: None,
        };
        let link = Link {
            starts: None,
            config: self.config,
            file: self.scratch.path().join("tun-fri-mon.toml"),
            directory: self.scratch.path().to_owned(),
            confinement: confinement(),
            runtime: Some(self.scratch.directory()),
            options: Options::default(),
            key_log: None,
            fingerprint: [1; 8],
            hardware_address: [0xfe, 1, 2, 3, 4, 5],
            activated: self.device_later,
        };
        let changes = Changes::new(Netlink::open().unwrap(), Some(&self.scratch.directory()));
        let mut parent = Parent::new(link, changes, Signals::watch().unwrap());
        let (done, result) = mpsc::channel();
        let mut act = Some((act, done));
        parent.spawn = Box::new(move || {
            let (act, done) = act.take().expect("one engine");
            let (channel, fd) = Channel::pair()?;
            std::thread::spawn(move || {
                let engine = Fake::from_fd(fd);
                let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&engine)));
                // Descriptors that were never read go with it, as when a process ends.
                drop(engine);
                done.send(acted.is_ok()).unwrap();
            });
            Ok((std::process::Command::new("sleep").arg("1000").spawn()?, channel))
        });
        let code = parent.run(launch);
        assert_ne!(result.recv(), Ok(false), "the engine's part failed");
        code
    }
}

/// The route of the host's packets to the address, for the link's own socket or all others.
pub(super) fn way_to(address: &str, mark: Option<u32>) -> String {
    let mark = mark.map_or_else(String::new, |mark| format!(" mark {mark}"));
    let text = ip(&format!("route get {address}{mark}")).1;
    text.split(" dev ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("none").to_owned()
}

pub(super) fn nets(text: &str) -> Vec<IpNet> {
    text.split_whitespace().map(|net| net.parse().unwrap()).collect()
}

pub(super) fn route(to: &str, via: Via) -> Route {
    Route { to: to.parse().unwrap(), via, metric: None, table: None }
}

pub(super) fn with_routes(mut config: Config) -> Config {
    config.routes =
        vec![route("192.168.66.0/24", Via::VpnGateway), route("192.168.56.0/24", Via::NetGateway)];
    config
}

/// Each script records its hook and what it sees of the host.
pub(super) fn record_every_hook(config: &mut Config, scratch: &Scratch) {
    let script = "#!/bin/sh\n\
        ip link show dev \"$1\" > /dev/null && d=device || d=gone\n\
        ip route show | grep -q 192.168.66.0/24 && r=route-yes || r=route-no\n\
        echo \"$TUND_HOOK $1 $d $r peer=$trusted_ip signal=$signal sent=$bytes_sent\" >> hooks\n";
    let command: Option<Command> = Some(scratch.script("record", script));
    config.scripts.up = command.clone();
    config.scripts.down = command.clone();
    config.scripts.route_up = command.clone();
    config.scripts.route_down = command.clone();
    config.scripts.link_up = command.clone();
    config.scripts.link_down = command;
}

pub(super) fn tell(engine: &Fake, message: ToParent) {
    engine.send(&message, &[]).unwrap();
}

/// The next message, other than the configuration's inner sources.
pub(super) fn receive(engine: &Fake) -> (ToEngine, Vec<OwnedFd>) {
    let next = || engine.receive().unwrap().unwrap();
    let message = next();
    if message.0 == ToEngine::Sources { next() } else { message }
}

/// Ends as an engine does when its parent is told to end.
pub(super) fn stop(engine: &Fake) {
    raise(signal_hook::consts::SIGTERM);
    while receive(engine).0 != ToEngine::Stop {}
    tell(engine, ToParent::Exit { end: End::Done, reason: String::new() });
}

pub(super) fn raise(signal: i32) {
    signal_hook::low_level::raise(signal).unwrap();
}

pub(super) fn assert_nothing_left() {
    wait_until(|| !ip("link show dev tun0").0);
    let routes = ip("route show").1;
    assert!(!routes.contains("192.168.") && !routes.contains("203.0.113"), "{routes}");
}
