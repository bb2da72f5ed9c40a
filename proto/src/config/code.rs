//! The kinds of findings on a configuration, each with a stable code. `tund check` prints it as rustc does; programs
//! and tests match on it. Messages may be reworded at any time.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])+ $name:ident = $code:literal,)+) => {
        /// The kind of a finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])+ $name,)+
        }

        impl Code {
            /// The stable name, in lower case with hyphens.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }
        }
    };
}

codes! {
    /// The file is not TOML.
    Syntax = "syntax",
    /// A value has the wrong type for its key.
    WrongType = "wrong-type",
    /// There is no such key.
    UnknownKey = "unknown-key",
    /// A text is not one that its key accepts.
    UnknownValue = "unknown-value",
    /// A number or a time is too small or too large.
    OutOfRange = "out-of-range",
    /// A text is not a duration.
    BadTime = "bad-time",
    /// A key is for a later version.
    NotYet = "not-yet",
    /// A key has no effect here.
    NoEffect = "no-effect",
    /// A required key is missing.
    Missing = "missing",
    /// A list is empty where one entry is needed.
    EmptyList = "empty-list",
    /// A list has more entries than tund takes.
    TooMany = "too-many",
    /// Something occurs twice.
    Duplicate = "duplicate",
    /// More findings than shown.
    NotShown = "not-shown",
    /// The file name is not valid for a link.
    BadLinkName = "bad-link-name",
    /// No key is configured.
    NoKey = "no-key",
    /// One key has two sources.
    TwoKeys = "two-keys",
    /// A credential's name is not a file name.
    BadCredential = "bad-credential",
    /// Half of a key pair.
    HalfKeyPair = "half-key-pair",
    /// A text is not a public key, or not the peer's.
    BadPublicKey = "bad-public-key",
    /// Static keys: the direction is ambiguous.
    NoDirection = "no-direction",
    /// Static keys: a stolen key decrypts recorded traffic.
    NoForwardSecrecy = "no-forward-secrecy",
    /// The cipher does not belong to this key mode.
    WrongCipher = "wrong-cipher",
    /// An OpenVPN peer's cipher has 64-bit blocks.
    WeakCipher = "weak-cipher",
    /// Both ends of an OpenVPN link seal with the same keys.
    SharedDirection = "shared-direction",
    /// A text is not a proxy.
    BadProxy = "bad-proxy",
    /// A text is not a path.
    BadPath = "bad-path",
    /// A script may not run.
    ScriptForbidden = "script-forbidden",
    /// A script is not a command.
    BadCommand = "bad-command",
    /// The peer would be given up before it is probed.
    TimeoutTooShort = "timeout-too-short",
    /// A text is not a user or group name.
    BadUser = "bad-user",
    /// Metrics are served on loopback addresses only.
    BadMetricsAddress = "bad-metrics-address",
    /// A full tunnel leaves some networks out.
    LocalNetworks = "local-networks",
    /// A text is not an interface name.
    BadInterfaceName = "bad-interface-name",
    /// A text is not an address.
    BadAddress = "bad-address",
    /// A text is not a prefix.
    BadPrefix = "bad-prefix",
    /// An address lacks its prefix.
    NoPrefix = "no-prefix",
    /// A prefix has host bits set.
    HostBits = "host-bits",
    /// No host, or no peer, can have this address.
    UnusableAddress = "unusable-address",
    /// The peer's address, or a gateway, is this end's own.
    OwnAddress = "own-address",
    /// An address has the wrong family.
    AddressFamily = "address-family",
    /// The peer is outside the device's networks.
    PeerOutside = "peer-outside",
    /// Nothing is reachable through the device.
    NoPeer = "no-peer",
    /// The MTU is too small for IPv6.
    MtuTooSmall = "mtu-too-small",
    /// The bridge's MTU, without a bridge.
    MtuWithoutBridge = "mtu-without-bridge",
    /// A tun device has a key of tap devices.
    TapOnly = "tap-only",
    /// A text is not a VLAN.
    BadVlan = "bad-vlan",
    /// The device is its own bridge.
    BridgeItself = "bridge-itself",
    /// A bridge port has an address.
    AddressOnPort = "address-on-port",
    /// A text is not a device's MAC address.
    BadMac = "bad-mac",
    /// A text is not a host with or without a port.
    BadRemote = "bad-remote",
    /// A text or number is not a port.
    BadPort = "bad-port",
    /// An address has an invalid zone.
    BadZone = "bad-zone",
    /// Nobody can know the listening port.
    AnyPort = "any-port",
    /// The link cannot use streams.
    NoStreams = "no-streams",
    /// The link cannot have several lanes.
    NoLanes = "no-lanes",
    /// A text is not a listening address.
    BadListen = "bad-listen",
    /// The tunnel would run through itself.
    RoutingLoop = "routing-loop",
    /// A text is not a gateway.
    BadGateway = "bad-gateway",
    /// A route has no gateway in its family.
    NoGateway = "no-gateway",
    /// A wider route goes the same way.
    NarrowerRoute = "narrower-route",
    /// The offered routes do not fit in a message.
    PushTooLong = "push-too-long",
    /// Source addresses the peer may use.
    PeerSources = "peer-sources",
    /// Someone else can change a file that tund trusts.
    Untrusted = "untrusted",
    /// A file is longer than tund's limit.
    TooLong = "too-long",
    /// A file is not text.
    NotText = "not-text",
    /// A file cannot be read.
    CannotRead = "cannot-read",
    /// A file does not exist.
    NoFile = "no-file",
    /// A path is not a file.
    NotAFile = "not-a-file",
    /// Another user's key file.
    KeyOwner = "key-owner",
    /// Others may read a key file.
    KeyOpen = "key-open",
    /// A file has no key, or one of another kind.
    BadKey = "bad-key",
    /// A script is not executable.
    NotExecutable = "not-executable",
    /// Something was not checked.
    NotChecked = "not-checked",
    /// A remote's name does not resolve now.
    Unresolved = "unresolved",
    /// A remote is this end.
    OwnRemote = "own-remote",
    /// The reverse path filter drops the peer's datagrams.
    ReversePath = "reverse-path",
    /// Another interface has an address of the device.
    AddressTaken = "address-taken",
    /// Another interface has a network of the device.
    NetworkTaken = "network-taken",
    /// A route uses the default gateway, and there is none.
    NoDefaultRoute = "no-default-route",
    /// The same route already exists.
    RouteTaken = "route-taken",
    /// An interface of that name already exists.
    InterfaceTaken = "interface-taken",
    /// The interface does not exist.
    NoInterface = "no-interface",
    /// The interface is not a bridge.
    NotABridge = "not-a-bridge",
    /// The device lowers the MTU of its bridge.
    BridgeLowered = "bridge-lowered",
    /// This host does not have the address.
    NoSuchAddress = "no-such-address",
    /// Another process uses the UDP port.
    PortTaken = "port-taken",
    /// This host has no IPv6.
    NoIpv6 = "no-ipv6",
    /// Another program's file cannot be imported.
    NotImported = "not-imported",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
