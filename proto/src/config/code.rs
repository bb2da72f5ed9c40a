//! The kinds of findings on a configuration, each with a stable code: `tund check` prints it as rustc does, and programs and tests go
//! by it. A message may be worded anew at any time.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])+ $name:ident = $code:literal,)+) => {
        /// What kind a finding is of.
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
    /// A value has another type than its key.
    WrongType = "wrong-type",
    /// There is no such key.
    UnknownKey = "unknown-key",
    /// A text is none of those that its key takes.
    UnknownValue = "unknown-value",
    /// A number or a time is too small or too large.
    OutOfRange = "out-of-range",
    /// A text is no time.
    BadTime = "bad-time",
    /// A key of a later version.
    NotYet = "not-yet",
    /// A key that changes nothing here.
    NoEffect = "no-effect",
    /// A key that is needed is missing.
    Missing = "missing",
    /// A list is empty where one entry is needed.
    EmptyList = "empty-list",
    /// A list has more entries than tund takes.
    TooMany = "too-many",
    /// The same is there twice.
    Duplicate = "duplicate",
    /// More findings than are shown.
    NotShown = "not-shown",
    /// The file's name is none for a link.
    BadLinkName = "bad-link-name",
    /// No key is named.
    NoKey = "no-key",
    /// Two sources of one key.
    TwoKeys = "two-keys",
    /// The name of a credential is no file name.
    BadCredential = "bad-credential",
    /// Half of a key pair.
    HalfKeyPair = "half-key-pair",
    /// A text is no public key.
    BadPublicKey = "bad-public-key",
    /// Static keys: the direction cannot be told.
    NoDirection = "no-direction",
    /// Static keys: old traffic can be read with a stolen key.
    NoForwardSecrecy = "no-forward-secrecy",
    /// The cipher is none of this key mode.
    WrongCipher = "wrong-cipher",
    /// An OpenVPN peer's cipher has blocks of 64 bits.
    WeakCipher = "weak-cipher",
    /// Both ends of an OpenVPN peer's link seal with the same keys.
    SharedDirection = "shared-direction",
    /// A text is no proxy.
    BadProxy = "bad-proxy",
    /// A text is no path.
    BadPath = "bad-path",
    /// A script is named that may not run.
    ScriptForbidden = "script-forbidden",
    /// A script is no command.
    BadCommand = "bad-command",
    /// The peer would be given up before it is asked.
    TimeoutTooShort = "timeout-too-short",
    /// A text is no name of a user or group.
    BadUser = "bad-user",
    /// Metrics are served on loopback addresses only.
    BadMetricsAddress = "bad-metrics-address",
    /// A full tunnel leaves some networks beside it.
    LocalNetworks = "local-networks",
    /// A text is no name of an interface.
    BadInterfaceName = "bad-interface-name",
    /// A text is no address.
    BadAddress = "bad-address",
    /// A text is no prefix.
    BadPrefix = "bad-prefix",
    /// The prefix of an address is missing.
    NoPrefix = "no-prefix",
    /// A prefix has bits set behind its length.
    HostBits = "host-bits",
    /// An address that no host or no peer can have.
    UnusableAddress = "unusable-address",
    /// The peer's address, or a gateway, is this end's own.
    OwnAddress = "own-address",
    /// Addresses of one family where those of another are needed.
    AddressFamily = "address-family",
    /// The peer is in none of the device's networks.
    PeerOutside = "peer-outside",
    /// Nothing can be reached through the device.
    NoPeer = "no-peer",
    /// The MTU is too small for IPv6.
    MtuTooSmall = "mtu-too-small",
    /// The MTU of a bridge, without a bridge.
    MtuWithoutBridge = "mtu-without-bridge",
    /// A key of tap devices at a tun device.
    TapOnly = "tap-only",
    /// A text is no VLAN.
    BadVlan = "bad-vlan",
    /// The device is its own bridge.
    BridgeItself = "bridge-itself",
    /// An address on a port of a bridge.
    AddressOnPort = "address-on-port",
    /// A text is no MAC address of a device.
    BadMac = "bad-mac",
    /// A text is no host with or without a port.
    BadRemote = "bad-remote",
    /// A text or number is no port.
    BadPort = "bad-port",
    /// An address with a zone that is none.
    BadZone = "bad-zone",
    /// Nobody can know the port that is listened on.
    AnyPort = "any-port",
    /// Streams where the link cannot go over one.
    NoStreams = "no-streams",
    /// Several lanes where the link has one.
    NoLanes = "no-lanes",
    /// A text is nothing to listen on.
    BadListen = "bad-listen",
    /// The tunnel would run through itself.
    RoutingLoop = "routing-loop",
    /// A text is no gateway.
    BadGateway = "bad-gateway",
    /// A route has no gateway of its family.
    NoGateway = "no-gateway",
    /// A wider route goes the same way.
    NarrowerRoute = "narrower-route",
    /// The offered routes do not fit a message.
    PushTooLong = "push-too-long",
    /// What sources the peer's packets may have.
    PeerSources = "peer-sources",
    /// Somebody else can change a file that tund trusts.
    Untrusted = "untrusted",
    /// A file is longer than tund reads.
    TooLong = "too-long",
    /// A file is not text.
    NotText = "not-text",
    /// A file cannot be read.
    CannotRead = "cannot-read",
    /// A file does not exist.
    NoFile = "no-file",
    /// A path leads to something else than a file.
    NotAFile = "not-a-file",
    /// Another user's key file.
    KeyOwner = "key-owner",
    /// A key file that others may read.
    KeyOpen = "key-open",
    /// A file holds no key, or one of another kind.
    BadKey = "bad-key",
    /// A script that cannot be executed.
    NotExecutable = "not-executable",
    /// Something that was not looked at.
    NotChecked = "not-checked",
    /// A remote's name has no address now.
    Unresolved = "unresolved",
    /// A remote is this end itself.
    OwnRemote = "own-remote",
    /// The reverse path filter drops the peer's datagrams.
    ReversePath = "reverse-path",
    /// An address of the device is another interface's.
    AddressTaken = "address-taken",
    /// A network of the device is another interface's.
    NetworkTaken = "network-taken",
    /// A route goes via the default gateway, and there is none.
    NoDefaultRoute = "no-default-route",
    /// There is another such route.
    RouteTaken = "route-taken",
    /// There is another interface of that name.
    InterfaceTaken = "interface-taken",
    /// There is no such interface.
    NoInterface = "no-interface",
    /// An interface is no bridge.
    NotABridge = "not-a-bridge",
    /// The device lowers the MTU of its bridge.
    BridgeLowered = "bridge-lowered",
    /// This host has no such address.
    NoSuchAddress = "no-such-address",
    /// Another process has the UDP port.
    PortTaken = "port-taken",
    /// This host does without IPv6.
    NoIpv6 = "no-ipv6",
    /// A file of another program that cannot be imported.
    NotImported = "not-imported",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
