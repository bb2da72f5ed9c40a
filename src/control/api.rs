//! The protocol of the control socket: JSON objects in varlink's form, each terminated by a zero byte.
//!
//! `varlinkctl call /run/tund/NAME-*/control.sock tund.link.Status` works, since the service describes itself.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::talker::Talker;
use crate::core::stats::{DropReason, Stats};

/// Longest request in bytes, including its zero byte.
pub const MAX_REQUEST: usize = 4096;
/// The interface's name.
pub const INTERFACE: &str = "tund.link";

const SERVICE: &str = "org.varlink.service";
const DESCRIPTION: &str = include_str!("tund.link.varlink");
const SERVICE_DESCRIPTION: &str = include_str!("org.varlink.service.varlink");

/// The methods of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Return the link's [`Status`].
    Status,
    /// Return the metrics as OpenMetrics text.
    Stats,
    /// Read configuration and keys again.
    Reload,
    /// Switch to new traffic keys now.
    Rekey,
    /// Resolve the peer and connect again, like SIGUSR1.
    Reconnect,
    /// End the link, like SIGTERM.
    Down,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 6] =
        [Method::Status, Method::Stats, Method::Reload, Method::Rekey, Method::Reconnect, Method::Down];

    /// Its name within the interface.
    pub fn name(self) -> &'static str {
        match self {
            Method::Status => "Status",
            Method::Stats => "Stats",
            Method::Reload => "Reload",
            Method::Rekey => "Rekey",
            Method::Reconnect => "Reconnect",
            Method::Down => "Down",
        }
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// For the link.
    Link(Method),
    /// Answered at once with these bytes, without asking the link.
    Ready(Vec<u8>),
}

#[derive(Deserialize)]
struct RawCall {
    method: String,
    #[serde(default)]
    parameters: Option<Value>,
    #[serde(default)]
    oneway: bool,
}

/// Parses a request, without its zero byte. `None`: the request is invalid or wants no answer; close the connection.
pub fn parse(request: &[u8]) -> Option<Call> {
    let call: RawCall = serde_json::from_slice(request).ok()?;
    if call.oneway {
        return None;
    }
    let Some((interface, method)) = call.method.rsplit_once('.') else {
        return Some(Call::Ready(error(SERVICE, "InterfaceNotFound", &json!({ "interface": call.method }))));
    };
    let answer = match (interface, method) {
        (SERVICE, "GetInfo") => reply(&json!({
            "vendor": "tund",
            "product": "tund",
            "version": env!("CARGO_PKG_VERSION"),
            "url": "",
            "interfaces": [SERVICE, INTERFACE],
        })),
        (SERVICE, "GetInterfaceDescription") => describe(call.parameters.as_ref()),
        (INTERFACE, name) => match Method::ALL.into_iter().find(|method| method.name() == name) {
            Some(method) => return Some(Call::Link(method)),
            None => error(SERVICE, "MethodNotFound", &json!({ "method": call.method })),
        },
        (SERVICE, _) => error(SERVICE, "MethodNotFound", &json!({ "method": call.method })),
        (other, _) => error(SERVICE, "InterfaceNotFound", &json!({ "interface": other })),
    };
    Some(Call::Ready(answer))
}

fn describe(parameters: Option<&Value>) -> Vec<u8> {
    let interface = parameters.and_then(|value| value.get("interface")).and_then(Value::as_str);
    let description = match interface {
        Some(INTERFACE) => DESCRIPTION,
        Some(SERVICE) => SERVICE_DESCRIPTION,
        Some(other) => return error(SERVICE, "InterfaceNotFound", &json!({ "interface": other })),
        None => return error(SERVICE, "InvalidParameter", &json!({ "parameter": "interface" })),
    };
    reply(&json!({ "description": description }))
}

/// A client's request for `method`.
pub fn request(method: Method) -> Vec<u8> {
    message(&json!({ "method": format!("{INTERFACE}.{}", method.name()), "parameters": {} }))
}

/// A successful answer.
pub fn reply(parameters: &Value) -> Vec<u8> {
    message(&json!({ "parameters": parameters }))
}

/// The answer to [`Method::Status`].
pub fn status_reply(status: &Status) -> Vec<u8> {
    reply(&json!({ "status": status }))
}

/// An answer that explains a refusal.
pub fn refusal(reason: &str) -> Vec<u8> {
    error(INTERFACE, "Refused", &json!({ "reason": reason }))
}

fn error(interface: &str, name: &str, parameters: &Value) -> Vec<u8> {
    message(&json!({ "error": format!("{interface}.{name}"), "parameters": parameters }))
}

/// A zero byte ends the message; JSON escapes zero bytes inside strings.
fn message(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(0);
    bytes
}

/// The link's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Its parameters.
    Done(Value),
    /// The reason, in one line.
    Refused(String),
}

/// Parses an answer, without its zero byte.
pub fn parse_answer(answer: &[u8]) -> Result<Answer, serde_json::Error> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(default)]
        error: Option<String>,
        #[serde(default)]
        parameters: Value,
    }
    let raw: Raw = serde_json::from_slice(answer)?;
    Ok(match raw.error {
        None => Answer::Done(raw.parameters),
        Some(error) => {
            let reason = raw.parameters.get("reason").and_then(Value::as_str);
            Answer::Refused(reason.map_or(error, str::to_owned))
        }
    })
}

/// State of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// tund is preparing the host.
    Starting,
    /// The peer does not answer.
    Waiting,
    /// The peer answers and frames flow.
    Up,
    /// The peer answers, but no frame passes, because of a problem on this host.
    Blocked,
    /// tund is undoing its changes to the host.
    Stopping,
}

impl State {
    /// Its name, as `status` prints it.
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Waiting => "waiting",
            State::Up => "up",
            State::Blocked => "blocked",
            State::Stopping => "stopping",
        }
    }
}

/// A condition that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Trouble {
    /// Its stable code: see tund(8), Conditions.
    pub code: String,
    /// One line with the remedy.
    pub text: String,
    /// When it began, in seconds since the Unix epoch.
    pub since: u64,
}

/// Status of a link. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// The link's name.
    pub name: String,
    /// tund's version.
    pub version: String,
    /// The process ID to signal.
    pub pid: u32,
    /// The configuration file.
    pub file: String,
    /// The link's state.
    pub state: State,
    /// When the link entered this state.
    pub since: u64,
    /// When tund started.
    pub started: u64,
    /// The main condition that holds, or why the link went down, in one line with the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The stable code of `problem`: see tund(8), Conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem_code: Option<String>,
    /// All conditions that hold; the first is the most significant, and is also `problem`.
    #[serde(default)]
    pub problems: Vec<Trouble>,
    /// `tun` or `tap`.
    pub mode: String,
    /// The name of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whether the device is up; absent while tund does not monitor it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_up: Option<bool>,
    /// The bridge that the device is a port of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// This end's addresses inside the tunnel, as they are on the device.
    pub addresses: Vec<String>,
    /// Actual MTU of the device, in bytes.
    pub mtu: u32,
    /// The peer's outer address, to which datagrams are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What carries the link (UDP or TCP), and why; absent if there is no choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
    /// The peer's name for the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// `handshake` or `static`.
    pub keys: String,
    /// The key exchange of handshake keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// When the keys that frames use were agreed on or generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_since: Option<u64>,
    /// The cipher of the keys that frames use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<String>,
    /// The library that computes the cipher: the fastest on this processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    /// Round-trip time in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt: Option<f64>,
    /// The largest UDP payload that passes to the peer, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u32>,
    /// How many lanes carry frames, if several are configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<u8>,
    /// How many of these lanes have their own path to the peer, besides the link's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane_ways: Option<u8>,
    /// What confines the process that reads the network; absent while it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protections: Option<String>,
    /// Routes and addresses that tund has set, as ip(8) commands. A very long list is cut; a comment has the number of the others.
    pub changes: Vec<String>,
    /// Those that tund has set or should have set, but that are missing.
    #[serde(default)]
    pub missing: Vec<String>,
    /// The file to which the keys in use are written. Anyone who has it can read the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_log: Option<String>,
    /// When the configuration was last read.
    pub loaded: u64,
    /// Whether the last reload succeeded.
    pub reload_ok: bool,
    /// The hosts that sent most into a bridged link in the last minute, at most ten of each segment, the busiest first.
    #[serde(default)]
    pub talkers: Vec<Talker>,
    /// The counters; `null` while no engine answers.
    pub counters: Option<Counters>,
}

/// Counters since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counters {
    /// Frames read from the device and sent.
    pub frames_sent: u64,
    /// Bytes of the frames sent.
    pub bytes_sent: u64,
    /// Frames written to the device.
    pub frames_received: u64,
    /// Bytes of the frames received.
    pub bytes_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Authentic datagrams received.
    pub datagrams_received: u64,
    /// Datagrams that the peer sent and that did not arrive.
    pub datagrams_lost: u64,
    /// Drops by reason; every reason is listed.
    pub dropped: Vec<Dropped>,
}

/// The number of drops for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Dropped {
    /// The reason.
    pub reason: String,
    /// The number of drops.
    pub count: u64,
}

impl From<&Stats> for Counters {
    fn from(stats: &Stats) -> Self {
        let dropped =
            |reason: DropReason| Dropped { reason: reason.label().to_owned(), count: stats.drops(reason) };
        Self {
            frames_sent: stats.frames_out,
            bytes_sent: stats.bytes_out,
            frames_received: stats.frames_in,
            bytes_received: stats.bytes_in,
            datagrams_sent: stats.datagrams_out,
            datagrams_received: stats.datagrams_in,
            datagrams_lost: stats.datagrams_lost,
            dropped: DropReason::ALL.map(dropped).into(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn status() -> Status {
        let mut stats = Stats::default();
        (stats.frames_out, stats.bytes_out, stats.bytes_in) = (3, 300, 7_000_000);
        stats.datagrams_lost = 4;
        stats.add(DropReason::Replayed, 9);
        Status {
            name: "tun-fri-mon".into(),
            version: "0.1.0".into(),
            pid: 7,
            file: "/etc/tund/tun-fri-mon.toml".into(),
            state: State::Up,
            since: 1_000_000,
            started: 999_000,
            problem: None,
            problem_code: None,
            problems: Vec::new(),
            mode: "tun".into(),
            device: Some("tun0".into()),
            device_up: Some(true),
            bridge: None,
            addresses: vec!["192.168.86.81/32".into()],
            mtu: 1420,
            endpoint: Some("203.0.113.2:1417".into()),
            way: None,
            peer: Some("tun-mon-fri".into()),
            keys: "handshake".into(),
            exchange: Some("X25519 + ML-KEM-768".into()),
            keys_since: Some(1_000_030),
            cipher: Some("AES-256-GCM".into()),
            library: Some("ring".into()),
            rtt: Some(0.0123),
            budget: Some(1472),
            lanes: Some(4),
            lane_ways: Some(3),
            protections: Some("uid 994, no capabilities".into()),
            changes: vec!["ip route add 192.168.66.0/24 dev tun0".into()],
            missing: Vec::new(),
            key_log: None,
            loaded: 999_000,
            reload_ok: true,
            talkers: Vec::new(),
            counters: Some(Counters::from(&stats)),
        }
    }

    pub(crate) fn trouble(code: &str, text: &str) -> Trouble {
        Trouble { code: code.into(), text: text.into(), since: 1_000_000 }
    }

    fn ready(request: &[u8]) -> Value {
        match parse(request) {
            Some(Call::Ready(mut answer)) => {
                assert_eq!(answer.pop(), Some(0));
                serde_json::from_slice(&answer).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_method_is_asked_for_as_the_client_writes_it_and_described() {
        for method in Method::ALL {
            let request = request(method);
            let (zero, request) = request.split_last().unwrap();
            assert_eq!((*zero, parse(request)), (0, Some(Call::Link(method))));
            assert!(DESCRIPTION.contains(&format!("\nmethod {}(", method.name())));
        }
    }

    /// Types, methods and errors of an interface share a namespace, and clients reject duplicates.
    #[test]
    fn no_name_of_the_interface_is_there_twice() {
        let mut names = std::collections::BTreeSet::new();
        for line in DESCRIPTION.lines() {
            let mut words = line.split([' ', '(']);
            if let (Some("type" | "method" | "error"), Some(name)) = (words.next(), words.next()) {
                assert!(names.insert(name), "{name} twice");
            }
        }
        assert!(names.len() > Method::ALL.len());
    }

    #[test]
    fn the_service_describes_itself() {
        let info = ready(br#"{"method":"org.varlink.service.GetInfo"}"#);
        assert_eq!(info["parameters"]["interfaces"], json!([SERVICE, INTERFACE]));
        let request = br#"{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"tund.link"}}"#;
        let description = ready(request)["parameters"]["description"].as_str().unwrap().to_owned();
        assert!(description.contains("interface tund.link\n"), "{description}");
    }

    #[test]
    fn what_is_not_there_is_an_error_of_varlinks() {
        for (request, expected) in [
            (r#"{"method":"tund.link.Nothing"}"#, "org.varlink.service.MethodNotFound"),
            (r#"{"method":"other.thing.Do"}"#, "org.varlink.service.InterfaceNotFound"),
            (r#"{"method":"plain"}"#, "org.varlink.service.InterfaceNotFound"),
            (
                r#"{"method":"org.varlink.service.GetInterfaceDescription"}"#,
                "org.varlink.service.InvalidParameter",
            ),
        ] {
            assert_eq!(ready(request.as_bytes())["error"], expected);
        }
        for nonsense in
            ["", "{}", "[1]", "{\"method\":1}", "\u{0}", r#"{"method":"tund.link.Down","oneway":true}"#]
        {
            assert_eq!(parse(nonsense.as_bytes()), None, "{nonsense}");
        }
    }

    #[test]
    fn answers_are_read_back() {
        let mut bytes = status_reply(&status());
        assert_eq!(bytes.pop(), Some(0));
        assert!(!bytes.contains(&0));
        let Answer::Done(value) = parse_answer(&bytes).unwrap() else { panic!() };
        assert_eq!(serde_json::from_value::<Status>(value["status"].clone()).unwrap(), status());
        let mut bytes = refusal("no \0 such thing");
        bytes.pop();
        assert_eq!(parse_answer(&bytes).unwrap(), Answer::Refused("no \0 such thing".into()));
        assert!(parse_answer(b"junk").is_err());
    }

    /// The schema of `status --json`, generated from the types above.
    #[test]
    fn the_published_schema_is_that_of_the_status() {
        let settings = schemars::generate::SchemaSettings::draft07().for_serialize();
        let mut schema = settings.into_generator().into_root_schema_for::<Vec<Status>>();
        schema.insert("title".to_owned(), "What `tund status --json` prints".into());
        let right = format!("{:#}\n", schema.to_value());
        let published = include_str!("../../docs/status.schema.json");
        assert!(published == right, "docs/status.schema.json has to be\n{right}");
    }
}
