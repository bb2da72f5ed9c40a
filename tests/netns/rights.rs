//! What a start says if a right, a file or a system call is missing. Each row takes something away. The link then runs
//! anyway, or exits with a message that names it; and with what the message asks for, the same start succeeds.
//!
//! ```text
//!  fri 10.0.0.1 eth0 ---- eth0 10.0.0.2 mon
//! ```

use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use tund_lab::Process;
use tund_lab::rights::has_nobody;

use super::support::*;

/// Calls refused to the program that replaces the test's: `ERRNO NAME[:[1=]ARGUMENT] …`.
const REFUSE: &str = "TUND_TEST_REFUSE";
/// Capabilities that container runtimes leave root (runc's and Docker's default; podman's lacks three).
const USUAL: [&str; 14] = [
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "net_bind_service",
    "net_raw",
    "sys_chroot",
    "mknod",
    "audit_write",
    "setfcap",
];
/// Further ones of root outside containers.
const MORE: [&str; 8] = [
    "net_admin",
    "sys_admin",
    "sys_nice",
    "sys_ptrace",
    "ipc_lock",
    "dac_read_search",
    "net_broadcast",
    "sys_module",
];

/// A missing right.
#[derive(Clone)]
struct Row {
    /// What is taken away.
    name: &'static str,
    /// How, in the start's own mount namespace, where /run is empty.
    without: &'static str,
    /// Remaining capabilities; `None`: all.
    capabilities: Option<Vec<&'static str>>,
    uid: u32,
    /// In the format of [`REFUSE`].
    refuse: &'static str,
    toml: Toml,
    /// Exit code; `None`: the link runs.
    ends: Option<i32>,
    /// Expected log.
    says: &'static [&'static str],
    /// What it asks for, after which the start succeeds; empty if the row's other settings are that.
    mended: &'static str,
}

fn row(name: &'static str) -> Row {
    Row {
        name,
        without: "",
        capabilities: None,
        uid: 0,
        refuse: "",
        toml: Toml::tun_fri(),
        ends: None,
        says: &[],
        mended: "",
    }
}

impl Row {
    fn without(mut self, script: &'static str) -> Self {
        self.without = script;
        self
    }

    fn with_only(mut self, capabilities: &[&'static str]) -> Self {
        self.capabilities = Some(capabilities.to_vec());
        self
    }

    fn of(mut self, uid: u32) -> Self {
        self.uid = uid;
        self
    }

    fn refuse(mut self, calls: &'static str) -> Self {
        self.refuse = calls;
        self
    }

    fn toml(mut self, toml: Toml) -> Self {
        self.toml = toml;
        self
    }

    fn ends(mut self, code: i32, says: &'static [&'static str]) -> Self {
        (self.ends, self.says) = (Some(code), says);
        self
    }

    fn says(mut self, says: &'static [&'static str]) -> Self {
        self.says = says;
        self
    }

    fn mended(mut self, script: &'static str) -> Self {
        self.mended = script;
        self
    }
}

/// fri and mon, whose link runs, and a copy of the program that everybody may execute.
struct Bench {
    pair: Pair,
    _mon: Process,
}

impl Bench {
    fn new() -> Self {
        assert!(
            has_nobody(),
            "this test makes devices and gives files to others: run it as root, not in a user namespace"
        );
        let pair = pair();
        let mon = pair.start_mon(&Toml::tun_mon());
        let dir = pair.fri.dir();
        tund_lab::install(TUND.as_ref(), &dir.join("tund")).unwrap();
        tund_lab::install(&std::env::current_exe().unwrap(), &dir.join("refusing")).unwrap();
        pair.fri.run(&format!("chmod 755 {}", dir.display())).unwrap();
        Self { pair, _mon: mon }
    }

    /// Starts fri as `row` says, with `prepare` afterwards.
    fn start(&self, row: &Row, prepare: &str) -> Process {
        let fri = &self.pair.fri;
        let dir = fri.dir().display();
        fri.file("fri.toml", &row.toml.text()).unwrap();
        let mut words = vec![];
        if let Some(capabilities) = &row.capabilities {
            let set: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
            words.push(format!("setpriv --no-new-privs --bounding-set -all{set} --inh-caps -all{set}"));
            if row.uid != 0 {
                let uid = row.uid;
                words.push(format!("--reuid {uid} --regid {uid} --clear-groups --ambient-caps -all{set}"));
            }
            words.push("--".to_owned());
        }
        let this = "rights::calls_that_are_refused_are_done_without_or_named";
        words.push(match row.refuse {
            "" => format!("{dir}/tund --config {dir}/fri.toml"),
            calls => format!("env {REFUSE}='{calls}' {dir}/refusing --exact {this} --nocapture"),
        });
        let script = format!(
            "cd {dir}\nset -eu\nmount -t tmpfs -o mode=755 tmpfs /run\n{}\n{prepare}\nexec {}\n",
            row.without,
            words.join(" ")
        );
        let script = fri.file("start", &script).unwrap();
        fri.spawn(&["unshare", "--mount", "sh", &script.display().to_string()]).unwrap()
    }

    fn check(&self, row: &Row) {
        let mut process = self.start(row, "");
        match row.ends {
            Some(code) => assert_eq!(exit_code(&mut process), code, "{}: {}", row.name, process.text()),
            None => self.runs(row, &mut process),
        }
        for part in row.says {
            assert!(process.text().contains(part), "{}: no {part:?} in:\n{}", row.name, process.text());
        }
        assert_eq!(self.pair.fri.interfaces().unwrap(), ["eth0", "lo"], "{}", row.name);
        if !row.mended.is_empty() {
            let mut process = self.start(row, row.mended);
            self.runs(row, &mut process);
        }
    }

    fn runs(&self, row: &Row, process: &mut Process) {
        if let Err(error) = process.wait_line(UP, SOON) {
            panic!("{}: {error}", row.name);
        }
        let ping = self.pair.fri.run("ping -n -c 1 -W 5 192.168.86.18");
        assert!(ping.is_ok(), "{}: {ping:?}", row.name);
        assert_eq!(process.terminate(SOON).unwrap(), 0, "{}: {}", row.name, process.text());
    }

    fn check_all(&self, rows: &[Row]) {
        rows.iter().for_each(|row| self.check(row));
    }
}

/// This test's own root capabilities that are in [`USUAL`] or [`MORE`].
fn own_capabilities() -> Vec<&'static str> {
    let listed = Command::new("setpriv").arg("--dump").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let bounding = listed.lines().find_map(|line| Some(line.split_once("bounding set: ")?.1)).unwrap();
    let own: Vec<&str> = bounding.split(',').collect();
    USUAL.into_iter().chain(MORE).filter(|name| own.contains(name)).collect()
}

#[test]
fn each_capability_but_one_is_done_without_and_that_one_named() {
    let bench = Bench::new();
    let all = own_capabilities();
    for taken in &all {
        let left: Vec<_> = all.iter().copied().filter(|name| name != taken).collect();
        let row = row(taken).with_only(&left);
        bench.check(&match *taken {
            "net_admin" => row.ends(77, &["CAP_NET_ADMIN", "device.configure", "--cap-add NET_ADMIN"]),
            "setuid" => row.says(&["uid 0", "CAP_SETUID", "--cap-add SETUID"]),
            "setgid" => row.says(&["uid 0", "CAP_SETGID", "--cap-add SETGID"]),
            "sys_chroot" => row.says(&["CAP_SYS_CHROOT", "--cap-add SYS_CHROOT"]),
            _ => row,
        });
    }
}

#[test]
fn net_admin_and_any_other_capability_are_enough() {
    let bench = Bench::new();
    let alone = row("all but net_admin").with_only(&["net_admin"]);
    let said = &["CAP_SETUID and CAP_SETGID"];
    bench.check(&alone.clone().says(said));
    let require = Toml::tun_fri().with("[run]\nsandbox = 'require'");
    bench.check(
        &alone
            .toml(require.clone())
            .ends(69, &["run.sandbox", "CAP_SETUID and CAP_SETGID", "--cap-add SETUID --cap-add SETGID"]),
    );
    let row = |name| row(name).toml(require.clone());
    bench.check(
        &row("sys_chroot")
            .with_only(&["net_admin", "setuid", "setgid"])
            .ends(69, &["run.sandbox", "--cap-add SYS_CHROOT"]),
    );
    bench.check(&row("nothing that is required").with_only(&["net_admin", "setuid", "setgid", "sys_chroot"]));
    for other in USUAL {
        bench.check(&self::row(other).with_only(&["net_admin", other]));
    }
}

#[test]
fn settings_that_take_a_capability_name_it() {
    let bench = Bench::new();
    let only = ["net_admin"];
    let (nice, port) = ("[run]\nnice = -5", "listen = 500\nremote = '10.0.0.2:1417'");
    bench.check_all(&[
        row("sys_nice")
            .with_only(&only)
            .toml(Toml::tun_fri().with(nice))
            .ends(77, &["run.nice = -5", "CAP_SYS_NICE", "--cap-add SYS_NICE"]),
        row("sys_nice given").with_only(&["net_admin", "sys_nice"]).toml(Toml::tun_fri().with(nice)),
        row("net_bind_service").with_only(&only).toml(Toml::tun_fri().top(port)).ends(
            77,
            &[
                "UDP port 500",
                "CAP_NET_BIND_SERVICE",
                "--cap-add NET_BIND_SERVICE",
            ],
        ),
        row("net_bind_service given")
            .with_only(&["net_admin", "net_bind_service"])
            .toml(Toml::tun_fri().top(port)),
        row("net_bind_service, sysctl")
            .with_only(&only)
            .toml(Toml::tun_fri().top(port))
            .without("echo 500 >/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .says(&["UDP port 500"]),
        row("net_bind_service of the metrics")
            .with_only(&only)
            .without("echo 1024 >/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .toml(Toml::tun_fri().with("[status]\nmetrics = '127.0.0.1:80'"))
            .says(&["127.0.0.1:80", "--cap-add NET_BIND_SERVICE"]),
        row("setuid").with_only(&only).toml(Toml::tun_fri().with("[run]\nuser = 'nobody'")).ends(
            78,
            &[
                "run.user: ",
                "--cap-add SETUID --cap-add SETGID",
            ],
        ),
        row("net_admin, and the device of somebody else")
            .with_only(&[])
            .of(1000)
            .toml(Toml::tun_fri().device("name = 'tun7'\nconfigure = false\naddress = '192.168.86.81'\npeer = '192.168.86.18'"))
            .without("cp static.key /run/key; chown 1000 /run/key; mount --bind /run/key static.key; chmod 666 /dev/net/tun")
            .ends(77, &["it needs CAP_NET_ADMIN, or a device made for this user (`ip tuntap add dev NAME mode tun user 1000`)"]),
        row("setuid given")
            .with_only(&["net_admin", "setuid", "setgid"])
            .toml(Toml::tun_fri().with("[run]\nuser = 'nobody'")),
    ]);
}

/// Recreates the device's node with this mode and owner, on a file system with these options.
macro_rules! node {
    ($mode:literal, $owner:literal, $options:literal) => {
        concat!(
            "mkdir /run/dev; mount -t tmpfs -o mode=755,",
            $options,
            " tmpfs /run/dev; mknod -m ",
            $mode,
            " /run/dev/tun c 10 200; chown ",
            $owner,
            " /run/dev/tun; mount --bind /run/dev/tun /dev/net/tun"
        )
    };
}
const GOOD: &str = "mknod -m 666 /run/good c 10 200; mount --bind /run/good /dev/net/tun";

#[test]
fn a_driver_that_is_not_there_or_not_this_users_is_named() {
    let bench = Bench::new();
    let gone = "mount -t tmpfs tmpfs /dev/net";
    let device = "--device /dev/net/tun (devices in a compose file)";
    let missing: &[&str] =
        &["/dev/net/tun is missing", "--device /dev/net/tun (devices in a compose file)", "modprobe tun"];
    let other: &[&str] = &[
        "/dev/net/tun is not the driver (character device 10, 200)",
        "--device /dev/net/tun",
        "mknod -m 666",
    ];
    let anew = "umount /dev/net/tun; mknod -m 666 /run/tun2 c 10 200; mount --bind /run/tun2 /dev/net/tun";
    assert!(missing.contains(&device));
    bench.check_all(&[
        row("/dev/net/tun").without(gone).ends(69, missing).mended("mknod -m 666 /dev/net/tun c 10 200"),
        row("/dev")
            .without("mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3")
            .ends(69, missing)
            .mended("mkdir /dev/net; mknod -m 666 /dev/net/tun c 10 200"),
        row("a directory in its place")
            .without("mount -t tmpfs tmpfs /dev/net; mkdir /dev/net/tun")
            .ends(69, other)
            .mended("rm -r /dev/net/tun; mknod -m 666 /dev/net/tun c 10 200"),
        row("a file in its place")
            .without(": >/run/tun; mount --bind /run/tun /dev/net/tun")
            .ends(69, other)
            .mended(anew),
        row("another device in its place")
            .without("mount --bind /dev/null /dev/net/tun")
            .ends(69, other)
            .mended(anew),
        row("its mode")
            .without(node!("000", "0", "dev"))
            .with_only(&["net_admin"])
            .ends(
                77,
                &[
                    "may not be opened by uid 0 (it is uid 0's, mode 0000)",
                    "`chmod 666 /dev/net/tun` is safe",
                ],
            )
            .mended("chmod 666 /dev/net/tun"),
        row("its owner")
            .without(node!("600", "1000", "dev"))
            .with_only(&["net_admin"])
            .ends(
                77,
                &[
                    "may not be opened by uid 0 (it is uid 1000's, mode 0600)",
                    "`chmod 666 /dev/net/tun` is safe",
                ],
            )
            .mended("chmod 666 /dev/net/tun"),
        row("devices")
            .without(node!("666", "0", "nodev"))
            .ends(77, &["on a file system that is mounted nodev", "--device /dev/net/tun"])
            .mended(GOOD),
        row("/dev/null")
            .without("mount -t tmpfs tmpfs /dev; mkdir /dev/net; mknod -m 666 /dev/net/tun c 10 200")
            .ends(1, &["cannot start the engine: /dev/null is missing", "`mknod -m 666 /dev/null c 1 3`"])
            .mended("mknod -m 666 /dev/null c 1 3"),
    ]);
}

#[test]
fn proc_sys_and_run_are_done_without_or_named() {
    let bench = Bench::new();
    let no_runtime: &[&str] =
        &["warning: cannot create /run/tund", "without `tund status`", "set run.runtime-dir", "--tmpfs /run"];
    let inside = "mkdir /run/e; mount -t tmpfs -o ro tmpfs /run/e";
    let rest = |text: &str| Toml::tun_fri().with(text);
    bench.check_all(&[
        row("/proc").without("mount -t tmpfs tmpfs /proc").ends(1, &["cannot start the engine", "mount /proc"])
            .mended("mount -t proc proc /proc"),
        row("writing to /proc").without("mount -o remount,ro,bind /proc"),
        row("writing to /proc/sys").without("mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys"),
        row("all of /proc but processes").without("mount -t proc -o subset=pid proc /proc"),
        row("others' processes").without("mount -t proc -o hidepid=2 proc /proc"),
        row("/sys").without("mount -t tmpfs tmpfs /sys"),
        row("/etc").without("mount -t tmpfs tmpfs /etc"),
        row("writing anywhere").with_only(&["net_admin"]).without("mount -o remount,ro,bind /; mount -o remount,ro /run").says(no_runtime),
        row("writing to /run").without("mount -o remount,ro /run").says(no_runtime).mended("mount -t tmpfs -o mode=755 tmpfs /run"),
        row("room in /run").without("mount -o remount,size=8k /run; head -c 8192 /dev/zero >/run/full")
            .ends(69, &["cannot lock /run/tund/", "No space left", "make sure that it is writable"]).mended("rm /run/full"),
        row("the owner of /run").without("chown 1000 /run")
            .ends(78, &["/run belongs to another user (uid 1000", "`chown root /run`"]).mended("chown root /run"),
        row("the pid file's place").without(inside).toml(rest("[run]\npid-file = '/run/e/pid'"))
            .ends(69, &["cannot write run.pid-file /run/e/pid: Read-only", "remove run.pid-file"]).mended("umount /run/e"),
        row("the chroot").toml(rest("[run]\nchroot = '/run/root'"))
            .ends(78, &["run.chroot: /run/root cannot be read", "name an empty directory owned by root"]).mended("mkdir /run/root"),
        row("/dev/log").without("rm -f /dev/log").toml(rest("[run]\nlog = 'syslog'\n[scripts]\nsecurity = 2\nup = '/run/up'"))
            .without("mount -t tmpfs tmpfs /dev; mkdir /dev/net; mknod -m 666 /dev/net/tun c 10 200; mknod -m 666 /dev/null c 1 3\n\
                      printf '#!/bin/sh\\nexit 3\\n' >/run/up; chmod 755 /run/up")
            .ends(1, &["warning: /dev/log does not accept log lines", "drop run.log and --daemon"]),
    ]);
}

#[test]
fn a_start_for_which_the_disk_is_full_leaves_nothing_on_it() {
    let pair = pair();
    let dir = pair.fri.dir().display().to_string();
    for (run, options, says) in [
        ("runtime-dir = '/run/tund'", "", "cannot lock /run/tund/fri-"),
        ("pid-file = '/run/pid'", "", "cannot write run.pid-file /run/pid"),
        ("", "--key-log /run/keys", "cannot open the key log /run/keys"),
    ] {
        let elsewhere =
            if run.contains("runtime-dir") { String::new() } else { format!("runtime-dir = '{dir}/run'\n") };
        let toml = Toml::tun_fri().with(&format!("[run]\n{run}\n{elsewhere}"));
        pair.fri.file("fri.toml", &toml.text()).unwrap();
        let script = format!(
            "mount -t tmpfs -o mode=755,size=8k tmpfs /run\nhead -c 8192 /dev/zero >/run/full\n\
             {TUND} --config {dir}/fri.toml {options} 2>&1\necho code $?, left: $(find /run -type f)\n"
        );
        let script = pair.fri.file("start", &script).unwrap();
        let said = pair.fri.run(&format!("unshare --mount sh {}", script.display())).unwrap();
        assert!(said.contains(says) && said.contains("No space left"), "{said}");
        assert!(said.trim_end().ends_with("code 69, left: /run/full"), "{said}");
    }
}

#[test]
fn files_that_cannot_be_read_or_executed_are_named_with_their_owner_and_mode() {
    let bench = Bench::new();
    let key = |path: &str| {
        let mut toml = Toml::tun_fri();
        toml.key = format!("file = '{path}'\nmode = 'static'");
        toml
    };
    let scripts = |toml: Toml| toml.with("[scripts]\nsecurity = 2\nup = '/run/up'");
    let script = "printf '#!/bin/sh\\nexit 0\\n' >/run/up; chmod 755 /run/up";
    let moved = "cp static.key /run/key";
    let only = ["net_admin"];
    let rows = [
        row("the key")
            .toml(key("/run/key"))
            .ends(78, &["key file /run/key does not exist", "tund genkey -o /run/key"])
            .mended(moved),
        row("the key's owner")
            .toml(key("/run/key"))
            .with_only(&only)
            .without("cp static.key /run/key; chown 1000 /run/key")
            .ends(78, &["key file /run/key belongs to another user (uid 1000)", "`chown root /run/key`"])
            .mended("chown root /run/key"),
        row("the key's mode")
            .toml(key("/run/key"))
            .with_only(&only)
            .without("cp static.key /run/key; chmod 000 /run/key")
            .ends(
                78,
                &[
                    "cannot be read: uid 0, who lacks CAP_DAC_OVERRIDE,",
                    "(it is uid 0's, mode 0000)",
                    "`chmod u+r /run/key`",
                ],
            )
            .mended("chmod u+r /run/key"),
        row("the key's directory")
            .toml(key("/run/d/key"))
            .with_only(&only)
            .without("mkdir /run/d; cp static.key /run/d/key; chmod 700 /run/d; chown 1000 /run/d")
            .ends(
                78,
                &[
                    "may not read /run/d (it is uid 1000's, mode 0700)",
                    "`chown root /run/d`",
                    "on the host if it is a container's volume",
                ],
            )
            .mended("chown root /run/d"),
        row("a key of root's for another user")
            .toml(key("/run/key"))
            .of(1000)
            .with_only(&only)
            .without("cp static.key /run/key; mkdir /run/tund; chown 1000 /run/tund")
            .ends(
                78,
                &[
                    "cannot be read: uid 1000 may not read /run/key (it is uid 0's, mode 0600)",
                    "`chown 1000 /run/key`",
                ],
            )
            .mended("chown 1000 /run/key; chmod 666 /dev/net/tun"),
        row("the script")
            .toml(scripts(Toml::tun_fri()))
            .ends(78, &["script /run/up cannot be run", "check the path"])
            .mended(script),
        row("the script's interpreter")
            .toml(scripts(Toml::tun_fri()))
            .without("printf '#!/run/sh\\n' >/run/up; chmod 755 /run/up")
            .ends(1, &["or the interpreter on its first line, does not exist", "install that"])
            .mended("cp /bin/sh /run/sh"),
        row("the script's line ends")
            .toml(scripts(Toml::tun_fri()))
            .without("printf '#!/bin/sh\\r\\nexit 0\\r\\n' >/run/up; chmod 755 /run/up")
            .ends(1, &["take CR off its lines: sed -i 's/\\r$//' /run/up"])
            .mended("sed -i 's/\\r$//' /run/up"),
        row("executing the script")
            .toml(scripts(Toml::tun_fri()))
            .without(
                "mount -o remount,noexec /run; printf '#!/bin/sh\\nexit 0\\n' >/run/up; chmod 755 /run/up",
            )
            .ends(1, &["on a file system mounted noexec"])
            .mended("mount -o remount,exec /run"),
    ];
    bench.check_all(&rows);
    let mut config = bench.start(
        &row("the configuration").with_only(&only).without("chown 1000 fri.toml; chmod 600 fri.toml"),
        "",
    );
    assert_eq!(exit_code(&mut config), 78, "{}", config.text());
    assert!(
        config.text().contains("the file cannot be read: uid 0, who lacks CAP_DAC_OVERRIDE"),
        "{}",
        config.text()
    );
}

#[test]
fn a_host_without_ipv6_is_named_where_it_is_wanted_and_done_without_elsewhere() {
    let bench = Bench::new();
    const OFF: &str = "for d in all default; do echo 1 >/proc/sys/net/ipv6/conf/$d/disable_ipv6; done";
    const ON: &str = "echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6";
    let six = Toml::tun_fri().device(
        "mode = 'tun'\nname = 'tun0'\naddress = ['192.168.86.81', 'fd00::81']\npeer = ['192.168.86.18', 'fd00::18']",
    );
    let says: &[&str] = &[
        "warning: IPv6 is disabled on this host, but device.address has fd00::81",
        "ip addr add fd00::81",
        "set the sysctl net.ipv6.conf.all.disable_ipv6 to 0",
        "--sysctl net.ipv6.conf.all.disable_ipv6=0",
    ];
    bench.check_all(&[
        row("IPv6").without(OFF),
        row("IPv6, and an address has it").without(OFF).toml(six.clone()).ends(69, says).mended(ON),
        row("IPv6 on new devices")
            .without("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
            .toml(six.clone())
            .ends(69, says)
            .mended(ON),
        row("IPv6, and tund listens to it")
            .without(OFF)
            .toml(Toml::tun_fri().top("listen = '[::]:1418'\nremote = '10.0.0.2:1417'")),
        row("IPv6 for a full tunnel").without(OFF).toml(Toml::tun_fri().with("[full-tunnel]")),
        row("sockets of IPv6").without(ON).refuse("EAFNOSUPPORT socket:10"),
        row("all sockets")
            .refuse("EAFNOSUPPORT socket:10 socket:2")
            .ends(69, &["no socket of that address family", "RestrictAddressFamilies="]),
    ]);
}

#[test]
fn an_ipv6_remote_is_called_once_ipv6_is_there_and_until_then_the_reason_is_named() {
    let bench = Bench::new();
    let fri = &bench.pair.fri;
    let toml = Toml::tun_fri().top("remote = '[fd99::2]:1417'");
    let off =
        row("IPv6 to the remote").toml(toml).without("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6");
    let process = bench.start(&off, "");
    let line = process.wait_line("[no-ipv6]", SOON).unwrap();
    assert!(line.contains("fd99::2"), "{line}");
    process.wait_line("[cannot-send]", SOON).unwrap();
    fri.sysctl("net/ipv6/conf/all/disable_ipv6", "0").unwrap();
    fri.run("ip addr add fd99::1/64 dev eth0 nodad").unwrap();
    process.wait_line(UP, SOON).unwrap();
}

/// Linux shows missing IPv6 by more than one sign. Others must not be mistaken for it: a full tunnel would be open.
#[test]
fn a_full_tunnel_is_closed_to_ipv6_also_where_proc_or_sockets_do_not_show_it() {
    let bench = Bench::new();
    let full = Toml::tun_fri().with("[full-tunnel]");
    for row in [
        row("/proc/net").without("mount -t proc -o subset=pid proc /proc"),
        row("sockets of IPv6").refuse("EAFNOSUPPORT socket:10"),
    ] {
        let row = row.toml(full.clone());
        let process = bench.start(&row, "");
        process.wait_line(UP, SOON).unwrap();
        let set = bench.pair.fri.wait_output("ip -6 rule", SOON, |rules| rules.lines().count() > 2);
        assert!(set.is_ok(), "{}: {set:?}\n{}", row.name, process.text());
        drop(process);
        wait_gone(&bench.pair.fri);
    }
}

#[test]
fn calls_that_are_refused_are_done_without_or_named() {
    if let Ok(told) = std::env::var(REFUSE) {
        become_tund(&told);
    }
    let bench = Bench::new();
    const OLD: &str = "clone3 io_uring_setup close_range pidfd_open pidfd_getfd openat2 faccessat2 epoll_pwait2 statx rseq membarrier \
                       memfd_create keyctl userfaultfd landlock_create_ruleset";
    let refused = |name, calls: &str| row(name).refuse(String::leak(calls.to_owned()));
    let landlock: &[&str] = &["lacks Landlock (not built into this kernel, or blocked by the seccomp filter"];
    bench.check_all(&[
        refused("what an old runtime refuses", &format!("EPERM {OLD}"))
            .with_only(&["net_admin"])
            .says(landlock),
        refused("what an old kernel lacks", &format!("ENOSYS {OLD}")).says(landlock),
        refused("seccomp", "EPERM seccomp").says(&["this host lacks system call filters"]),
        refused("mlockall", "EPERM mlockall mlock mlock2").says(&["note: "]),
        refused("clone3, without the sandbox", "EPERM clone3")
            .toml(Toml::tun_fri().with("[run]\nsandbox = 'off'"))
            .ends(1, &["clone3(2) is refused", "update the runtime", "leave run.sandbox at \"auto\""]),
        refused("clone3, and a script runs", "EPERM clone3")
            .without("printf '#!/bin/sh\\necho it runs\\n' >/run/up; chmod 755 /run/up")
            .toml(Toml::tun_fri().with("[run]\nverb = 3\n[scripts]\nsecurity = 2\nup = '/run/up'"))
            .says(&["it runs"]),
        refused("getrandom", "EPERM getrandom")
            .ends(69, &["no random bytes", "getrandom(2)", "seccomp filter"]),
        refused("getrandom", "ENOSYS getrandom")
            .ends(69, &["no random bytes", "getrandom(2)", "has no such system call"]),
        refused("netlink", "EAFNOSUPPORT socket:16")
            .ends(1, &["cannot open a netlink socket", "RestrictAddressFamilies= must include AF_NETLINK"]),
        refused("netlink", "EPERM socket:16").ends(1, &["cannot open a netlink socket", "seccomp filter"]),
        refused("sockets in the file system", "EAFNOSUPPORT socket:1")
            .says(&["RestrictAddressFamilies= must include AF_UNIX"]),
        refused("bind", "EPERM bind").ends(77, &["UDP port 1417", "seccomp filter"]),
        refused("setgroups", "EPERM setgroups")
            .ends(1, &["cannot drop the supplementary groups", "seccomp filter"]),
        // TUNSETIFF.
        refused("offloads of the driver", "EINVAL ioctl:1=1074025674")
            .ends(69, &["IFF_VNET_HDR, as with gVisor"]),
        refused("epoll", "EPERM epoll_create1").ends(1, &["cannot wait for events", "seccomp filter"]),
    ]);
}

/// Becomes the tund beside this program, with these calls refused.
fn become_tund(told: &str) -> ! {
    let (errno, calls) = told.split_once(' ').unwrap();
    let errno = [
        ("EPERM", libc::EPERM),
        ("EINVAL", libc::EINVAL),
        ("ENOSYS", libc::ENOSYS),
        ("EAFNOSUPPORT", libc::EAFNOSUPPORT),
    ]
    .into_iter()
    .find(|(name, _)| *name == errno);
    let mut rules = std::collections::BTreeMap::<_, Vec<_>>::new();
    for call in calls.split_whitespace() {
        let (name, argument) =
            call.split_once(':').map_or((call, None), |(name, argument)| (name, Some(argument)));
        let rules = rules.entry(number(name)).or_default();
        if let Some(argument) = argument {
            let (place, value) = argument.split_once('=').unwrap_or(("0", argument));
            let (place, value) = (place.parse().unwrap(), value.parse().unwrap());
            let is = SeccompCondition::new(place, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
            rules.push(SeccompRule::new(vec![is]).unwrap());
        }
    }
    let refuse = SeccompAction::Errno(errno.unwrap().1.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    let own = std::env::current_exe().unwrap();
    let error =
        Command::new(own.with_file_name("tund")).arg("--config").arg(own.with_file_name("fri.toml")).exec();
    panic!("tund is not executed: {error}");
}

fn number(name: &str) -> i64 {
    let numbers = [
        ("bind", libc::SYS_bind),
        ("clone3", libc::SYS_clone3),
        ("close_range", libc::SYS_close_range),
        ("epoll_create1", libc::SYS_epoll_create1),
        ("epoll_pwait2", libc::SYS_epoll_pwait2),
        ("faccessat2", libc::SYS_faccessat2),
        ("getrandom", libc::SYS_getrandom),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("ioctl", libc::SYS_ioctl),
        ("keyctl", libc::SYS_keyctl),
        ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset),
        ("membarrier", libc::SYS_membarrier),
        ("memfd_create", libc::SYS_memfd_create),
        ("mlock", libc::SYS_mlock),
        ("mlock2", libc::SYS_mlock2),
        ("mlockall", libc::SYS_mlockall),
        ("openat2", libc::SYS_openat2),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("pidfd_open", libc::SYS_pidfd_open),
        ("rseq", libc::SYS_rseq),
        ("seccomp", libc::SYS_seccomp),
        ("setgroups", libc::SYS_setgroups),
        ("socket", libc::SYS_socket),
        ("statx", libc::SYS_statx),
        ("userfaultfd", libc::SYS_userfaultfd),
    ];
    numbers.into_iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn doctor_names_the_rights_and_the_driver_that_are_missing() {
    let bench = Bench::new();
    let dir = bench.pair.fri.dir().display().to_string();
    bench.pair.fri.file("fri.toml", &Toml::tun_fri().text()).unwrap();
    let doctor = |prepare: &str, set: &str| {
        let setpriv = format!("setpriv --no-new-privs --bounding-set -all{set} --inh-caps -all");
        let script = format!("{prepare}; exec {setpriv} {dir}/tund doctor {dir}/fri.toml");
        let mut process = bench.pair.fri.spawn(&["unshare", "--mount", "sh", "-c", &script]).unwrap();
        (exit_code(&mut process), process.text())
    };
    let (code, text) = doctor("true", ",+net_admin");
    assert_eq!(code, 0, "{text}");
    for line in [
        "ok       rights: this user may make the device",
        "note     rights: CAP_SETUID and CAP_SETGID are missing",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let (code, text) = doctor("mount -t tmpfs tmpfs /dev/net", "");
    assert_eq!(code, 1, "{text}");
    for line in ["problem  rights: without CAP_NET_ADMIN", "problem  rights: /dev/net/tun is missing"] {
        assert!(text.contains(line), "{text}");
    }
}

/// In a guest whose kernel is started so.
#[test]
fn a_kernel_without_ipv6_runs_links_of_ipv4_and_full_tunnels_and_names_what_it_lacks_elsewhere() {
    const INSIDE: &str = r#"
        mkdir /run/tmp/w; cd /run/tmp/w
        ip netns add fri; ip netns add mon
        ip link add eth0 netns fri type veth peer name eth0 netns mon
        ip -n fri link set eth0 up; ip -n mon link set eth0 up
        ip -n fri addr add 10.0.0.1/24 dev eth0; ip -n mon addr add 10.0.0.2/24 dev eth0
        "$0" genkey -o static.key
        rest='[run]
runtime-dir = "/run/%s"
[key]
file = "static.key"
[device]
name = "tun0"
'
        { echo 'listen = 1417'; printf "$rest" mon; printf 'address = "10.8.0.1"
peer = "10.8.0.2"
'; } >mon.toml
        { echo 'remote = "10.0.0.2:1417"'; printf "$rest" fri; } >fri.toml
        { cat fri.toml; printf 'address = "10.8.0.2"
peer = "10.8.0.1"
[full-tunnel]
'; } >full.toml
        { cat fri.toml; printf 'address = ["10.8.0.2", "fd00::2"]
peer = ["10.8.0.1", "fd00::1"]
'; } >six.toml
        ip netns exec mon "$0" --config mon.toml &
        ip netns exec fri "$0" --config six.toml; echo "six: $?"
        ip netns exec fri "$0" --config full.toml & full=$!
        until ip netns exec fri "$0" status full.toml >/dev/null; do sleep .2; done
        kill $full; wait $full; echo "full: $?""#;
    let mut guest = Command::new(super::demo::lab());
    guest.args(["guest", "--timeout", "120", "--kernel", "ipv6.disable=1", "sh", "-c", INSIDE, TUND]);
    let mut guest = Process::spawn("guest", guest).unwrap();
    assert_eq!(guest.code(3 * super::demo::LONG).unwrap(), 0, "{}", guest.text());
    for part in [
        "warning: this kernel has no IPv6 (not built in, or started with ipv6.disable=1)",
        "ip addr add fd00::2 peer fd00::1 dev tun0: Operation not supported",
        "remove IPv6 addresses and routes",
        "six: 69",
        "full: 0",
    ] {
        assert!(guest.text().contains(part), "no {part:?} in\n{}", guest.text());
    }
}

/// A user namespace like rootless podman's: its root is a user outside, with 65536 others.
const ROOTLESS: &str =
    "until [ -n \"$(cat /proc/self/uid_map)\" ] && ip link show eth0 >/dev/null 2>&1; do sleep .02; done";

#[test]
fn root_of_a_user_namespace_runs_a_link_in_a_network_of_its_own_and_not_in_the_hosts() {
    let bench = Bench::new();
    let fri = &bench.pair.fri;
    let start = |namespaces: &str, inside: &str, outside: &str| -> Process {
        let dir = fri.dir().display();
        fri.file("fri.toml", &Toml::tun_fri().with("[run]\nsandbox = 'require'").text()).unwrap();
        let script = format!(
            "cd {dir}; setpriv --pdeathsig KILL unshare --user --mount --pid --fork --kill-child {namespaces} sh -eu -c '{inside}\nexec setpriv --reuid 0 \
             --regid 0 --clear-groups --pdeathsig KILL {dir}/tund --config {dir}/fri.toml' & {outside}\nwait $!"
        );
        fri.spawn(&["sh", "-c", &script]).unwrap()
    };
    let maps = "for map in uid gid; do echo \"0 0 1\n1 100000 65535\" >/proc/$child/${map}_map; done";
    let child = "until child=$(cat /proc/$!/task/$!/children | cut -d\" \" -f1) && [ -n \"$child\" ]; do sleep .02; done";
    let mut refused = start(
        "",
        "until [ -n \"$(cat /proc/self/uid_map)\" ]; do sleep .02; done",
        &format!("{child}; {maps}"),
    );
    assert_eq!(exit_code(&mut refused), 77, "{}", refused.text());
    for part in ["this network namespace belongs to another user namespace", "not --network host"] {
        assert!(refused.text().contains(part), "{}", refused.text());
    }
    let inside = format!(
        "{ROOTLESS}; mount -t tmpfs -o mode=755 tmpfs /run; mount -t proc proc /proc; ip link set lo up; ip link set eth0 up; \
         ip addr add 10.0.0.1/24 dev eth0"
    );
    let running = start("--net", &inside, &format!("{child}; {maps}; ip link set eth0 netns $child"));
    running.wait_line(UP, SOON).unwrap();
    assert!(!running.text().contains("lacks"), "{}", running.text());
}
