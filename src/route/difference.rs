//! A deviation of this host from what tund has set or was told to use: a type with a stable code for programs and a sentence for people, like
//! `core::condition`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

const AGAIN: &str = "tund sets it again, at most five times a minute";

/// A deviation from the required state.
#[allow(missing_docs, reason = "the line above each variant says what its fields are")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The interface of `bind-device` does not exist.
    BindDeviceMissing { interface: String },
    /// The socket is bound to another interface than `bind-device`, or to one that is gone.
    SocketUnbound { interface: String },
    /// No interface has the address of `listen`.
    ListenAddressMissing { address: IpAddr },
    /// The device is in another network namespace.
    DeviceGone { device: String },
    /// The device is down; `ours`: tund had set it up.
    DeviceDown { device: String, ours: bool },
    /// The device has another MTU.
    DeviceMtu { device: String, wanted: u32, there: u32 },
    /// The device has another MAC address.
    DeviceMac { device: String },
    /// The bridge does not exist.
    BridgeMissing { device: String, bridge: String },
    /// The device is not a port of its bridge.
    BridgePortMissing { device: String, bridge: String },
    /// The bridge is down.
    BridgeDown { bridge: String },
    /// The bridge's MTU is larger than the one the device took from it; `followed`: the link adapts by itself.
    BridgeMtu { bridge: String, there: u32, device: u32, followed: bool },
    /// Clients do not find the control socket.
    ControlSocketMissing { path: String },
    /// The metrics are not served where configured.
    MetricsMissing { address: SocketAddr },
    /// What `count` steps have set is missing.
    StepsMissing { kind: Missing, first: String, count: usize },
}

/// What a step has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// An address of the device.
    Address,
    /// A route that the kernel sets with an address.
    ConnectedRoute,
    /// A block or a rule of a full tunnel.
    Rule,
    /// Any other route.
    Route,
}

impl Missing {
    /// The code, and the sentence's beginning.
    fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Address => ("address-missing", "an address of the link is missing"),
            Self::ConnectedRoute => {
                ("connected-route-missing", "a route that belongs to an address is missing")
            }
            Self::Rule => ("rule-missing", "a rule of the full tunnel is missing"),
            Self::Route => ("route-missing", "a route of the link is missing"),
        }
    }
}

impl Difference {
    /// One of each kind, for the table in tund(8) and for tests.
    #[cfg(test)]
    pub fn samples() -> Vec<Self> {
        let [device, bridge, interface] = ["tap0", "br0", "ppp0"].map(str::to_owned);
        let missing = |kind| {
            let first = "ip route add 10.0.0.0/8 dev tap0".to_owned();
            Self::StepsMissing { kind, first, count: 2 }
        };
        vec![
            Self::BindDeviceMissing { interface: interface.clone() },
            Self::SocketUnbound { interface },
            Self::ListenAddressMissing { address: IpAddr::from([192, 0, 2, 1]) },
            Self::DeviceGone { device: device.clone() },
            Self::DeviceDown { device: device.clone(), ours: true },
            Self::DeviceMtu { device: device.clone(), wanted: 1500, there: 1300 },
            Self::DeviceMac { device: device.clone() },
            Self::BridgeMissing { device: device.clone(), bridge: bridge.clone() },
            Self::BridgePortMissing { device: device.clone(), bridge: bridge.clone() },
            Self::BridgeDown { bridge: bridge.clone() },
            Self::BridgeMtu { bridge, there: 9000, device: 1500, followed: true },
            Self::ControlSocketMissing { path: "/run/tund/l/control.sock".to_owned() },
            Self::MetricsMissing { address: SocketAddr::from(([127, 0, 0, 1], 9110)) },
            missing(Missing::Address),
            missing(Missing::ConnectedRoute),
            missing(Missing::Rule),
            missing(Missing::Route),
        ]
    }

    /// The stable name, in lower case with hyphens.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BindDeviceMissing { .. } => "bind-device-missing",
            Self::SocketUnbound { .. } => "socket-unbound",
            Self::ListenAddressMissing { .. } => "listen-address-missing",
            Self::DeviceGone { .. } => "device-gone",
            Self::DeviceDown { .. } => "device-down",
            Self::DeviceMtu { .. } => "device-mtu",
            Self::DeviceMac { .. } => "device-mac",
            Self::BridgeMissing { .. } => "bridge-missing",
            Self::BridgePortMissing { .. } => "bridge-port-missing",
            Self::BridgeDown { .. } => "bridge-down",
            Self::BridgeMtu { .. } => "bridge-mtu",
            Self::ControlSocketMissing { .. } => "control-socket-missing",
            Self::MetricsMissing { .. } => "metrics-missing",
            Self::StepsMissing { kind, .. } => kind.describe().0,
        }
    }

    /// Whether it stops all frames, whatever the peer does.
    pub fn stops_frames(&self) -> bool {
        match self {
            Self::BindDeviceMissing { .. }
            | Self::SocketUnbound { .. }
            | Self::ListenAddressMissing { .. }
            | Self::DeviceDown { .. }
            | Self::BridgeMissing { .. }
            | Self::BridgePortMissing { .. }
            | Self::BridgeDown { .. } => true,
            Self::DeviceGone { .. }
            | Self::DeviceMtu { .. }
            | Self::DeviceMac { .. }
            | Self::BridgeMtu { .. }
            | Self::ControlSocketMissing { .. }
            | Self::MetricsMissing { .. }
            | Self::StepsMissing { .. } => false,
        }
    }

    fn write_of_bridge(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BridgeMissing { device, bridge } => write!(
                f,
                "there is no bridge {bridge}, so no frame passes: {device} joins it once it is made again (ip link \
                 add {bridge} type bridge)"
            ),
            Self::BridgePortMissing { device, bridge } => {
                write!(f, "the device {device} is not in the bridge {bridge}, so no frame passes; {AGAIN}")
            }
            Self::BridgeDown { bridge } => write!(
                f,
                "the bridge {bridge} is down, so no frame passes: set it up (ip link set dev {bridge} up)"
            ),
            Self::BridgeMtu { bridge, there, device, followed } => {
                let remedy = match followed {
                    true => "the device adopts it, and larger frames cross once both ends have it",
                    false => "a link whose socket is inetd's or systemd's adopts it when restarted",
                };
                write!(f, "the bridge {bridge} has an MTU of {there}, and the device of {device}: {remedy}")
            }
            other => f.write_str(other.code()),
        }
    }
}

impl fmt::Display for Difference {
    /// Writes the sentence: what is wrong, and the remedy or what tund does about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StepsMissing { kind, first, count } => {
                let more = if *count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
                write!(f, "{}: {first}{more}; {AGAIN}", kind.describe().1)
            }
            Self::BindDeviceMissing { interface } => write!(
                f,
                "there is no interface {interface}, which bind-device names: it is used again once it is back"
            ),
            Self::SocketUnbound { interface } => {
                write!(f, "the socket is not bound to {interface}, as bind-device says; {AGAIN}")
            }
            Self::ListenAddressMissing { address } => write!(
                f,
                "no interface has the address {address}, which listen names: set it again, or \
                 change listen"
            ),
            Self::DeviceGone { device } => write!(
                f,
                "the device {device} is no longer in this network namespace: what is set there is not monitored"
            ),
            Self::DeviceDown { device, ours: true } => write!(
                f,
                "the device {device} is down, so no frame passes; {AGAIN}: to stop the link, stop tund"
            ),
            Self::DeviceDown { device, ours: false } => {
                write!(
                    f,
                    "the device {device} is down, so no frame passes: set it up (ip link set dev {device} up)"
                )
            }
            Self::DeviceMtu { device, wanted, there } => {
                write!(f, "the device {device} has an MTU of {there} instead of {wanted}; {AGAIN}")
            }
            Self::DeviceMac { device } => {
                write!(f, "the device {device} no longer has the MAC address that tund set; {AGAIN}")
            }
            Self::ControlSocketMissing { path } => {
                write!(f, "the control socket is not at {path}, where tund status looks for it; {AGAIN}")
            }
            Self::MetricsMissing { address } => {
                write!(f, "metrics are not served at {address}, as status.metrics says; {AGAIN}")
            }
            other => other.write_of_bridge(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_has_a_code_a_sentence_and_a_row_in_the_manual() {
        let manual = include_str!("../../docs/tund.8.md");
        let all = Difference::samples();
        let codes: std::collections::BTreeSet<_> = all.iter().map(Difference::code).collect();
        assert_eq!(codes.len(), all.len());
        for difference in &all {
            let (code, sentence) = (difference.code(), difference.to_string());
            assert!(sentence != code && sentence.contains(' '), "{code}: {sentence}");
            assert!(manual.contains(&format!("\n`{code}`\n: ")), "{code}");
        }
    }
}
