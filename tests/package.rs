//! The Debian and RPM packages: their contents, and their life cycle on a temporary copy of this machine's root.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::path::Path;
use std::process::Command;

use tund_lab::Scratch;

const TUND: &str = env!("CARGO_BIN_EXE_tund");

/// Runs a shell script; returns its output.
fn shell(script: &str, directory: &Path) -> String {
    let output = Command::new("sh").args(["-euc", script]).current_dir(directory).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{text}");
    text.into_owned()
}

fn package(place: &Scratch, kind: &str, version: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = place.display();
    // Compression is not tested, and xz takes ten seconds on an unoptimised program.
    let quick = "DPKG_DEB_COMPRESSOR_TYPE=none";
    shell(&format!("{quick} packaging/{kind} --binary {TUND} --output {output} --version {version}"), root);
}

#[test]
fn the_package_holds_program_units_pages_completions_and_examples() {
    let place = Scratch::new().unwrap();
    package(&place, "deb", "9.0.0");
    shell("dpkg-deb -x tund_9.0.0_*.deb root && dpkg-deb -e tund_9.0.0_*.deb control", &place);
    for file in [
        "usr/sbin/tund",
        "usr/lib/systemd/system/tund@.service",
        "usr/lib/sysusers.d/tund.conf",
        "usr/share/bash-completion/completions/tund",
        "usr/share/zsh/vendor-completions/_tund",
        "usr/share/fish/vendor_completions.d/tund.fish",
        "usr/share/doc/tund/openvpn.md",
        "usr/share/doc/tund/examples/tun-fri-mon.toml",
        "usr/share/doc/tund/copyright",
        "usr/share/doc/tund/compare.md",
        "usr/share/doc/tund/examples/prometheus.rules.yml",
        "usr/share/tund/status.schema.json",
        "usr/share/tund/event.schema.json",
    ] {
        assert!(place.join("root").join(file).exists(), "{file}");
    }
    // Where each example says its schema is.
    let example =
        std::fs::read_to_string(place.join("root/usr/share/doc/tund/examples/full-tunnel.toml")).unwrap();
    let schema = example.lines().next().unwrap().strip_prefix("#:schema /").unwrap();
    let schema = std::fs::read(place.join("root").join(schema)).unwrap();
    assert_eq!(schema, Command::new(TUND).arg("schema").output().unwrap().stdout);
    for (page, expected) in [
        ("man8/tund.8.gz", ["tund - joins two machines", "SIGNALS", "EXIT CODES", "tund doctor FILE"]),
        (
            "man5/tund.toml.5.gz",
            ["tund.toml - the configuration of one link", "[[ROUTE]]", "txqueuelen", "[FULL-TUNNEL]"],
        ),
        ("man7/tund-protocol.7.gz", ["tund-protocol - The tund protocol", "HKDF", "Noise_NNpsk0", "budget"]),
    ] {
        let text = shell(&format!("MANWIDTH=120 man -l root/usr/share/man/{page} | col -b"), &place);
        for part in expected {
            assert!(text.contains(part), "{part:?} is not in {page}:\n{text}");
        }
        let warnings = shell(&format!("man --warnings -l root/usr/share/man/{page} 2>&1 >/dev/null"), &place);
        assert_eq!(warnings, "", "{page}");
    }
    shell("sh -n control/postinst && sh -n control/prerm && sh -n control/postrm", &place);
    // RPM's has the same, except for the place of zsh's completions.
    package(&place, "rpm", "9.0.0");
    let listed = |command: &str| {
        let text = shell(command, &place).replace("vendor-completions", "site-functions");
        let mut files: Vec<_> = text.lines().map(str::to_owned).collect();
        files.sort();
        files
    };
    let files = listed(
        "rpm --query --list --package tund-9.0.0-1.*.rpm | while read -r f; do [ -d root$f ] || echo $f; done",
    );
    assert_eq!(files, listed("cd root && find . ! -type d | sed 's/^.//'"));
}

#[test]
fn the_package_is_installed_runs_a_link_is_upgraded_under_it_and_purged() {
    life("deb", ["dpkg -i tund_9.0.0_*.deb", "dpkg -i tund_9.0.1_*.deb", "dpkg -P tund"]);
}

/// RPM's database knows nothing of Debian's packages.
#[test]
fn so_it_is_with_rpm() {
    let rpm = "rpm --nodeps";
    let [install, upgrade] = [("--install", "9.0.0"), ("--upgrade", "9.0.1")]
        .map(|(what, version)| format!("{rpm} {what} tund-{version}-1.*.rpm"));
    life("rpm", [&install, &upgrade, &format!("{rpm} --erase tund")]);
}

/// On an overlay of this machine's root, in its own namespaces: nothing is seen outside.
fn life(kind: &str, [install, upgrade, purge]: [&str; 3]) {
    let one_user_alone =
        std::fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) == Some("1");
    assert!(
        !one_user_alone,
        "packages give files to other users: run this test as root, not in a user namespace"
    );
    let place = Scratch::new().unwrap();
    package(&place, kind, "9.0.0");
    package(&place, kind, "9.0.1");
    let inside = r#"
        export PATH=/usr/sbin:/usr/bin:/sbin:/bin
        cd /packages
        @install >/dev/null
        id tund >/dev/null
        [ "$(stat -c '%a %U %G' /etc/tund)" = '750 root tund' ]
        systemd-analyze verify --man=no /usr/lib/systemd/system/tund@.service
        ip link set lo up
        cd /etc/tund
        tund genkey -o fri.key
        cat >fri.toml <<TOML
listen = 1417
[key]
file = "fri.key"
[device]
name = "tun0"
address = "192.168.86.18"
peer = "192.168.86.81"
TOML
        tund check fri.toml
        tund --config fri.toml --daemon
        tund status | grep -q '^fri  *waiting'
        first=$(tund status fri --json | sed 's/.*"pid":\([0-9]*\).*/\1/')
        [ "$(stat -c %U /proc/$(pgrep -P "$first" | head -1))" = tund ]
        (cd /packages && @upgrade) >/dev/null
        tund reload fri
        tund down fri
        tund --config fri.toml --daemon
        tund down fri
        @purge >/dev/null
        for left in /usr/sbin/tund /run/tund /usr/share/doc/tund /usr/lib/systemd/system/tund@.service; do
            [ ! -e "$left" ] || { echo "left: $left"; exit 1; }
        done
        [ -e /etc/tund/fri.toml ] && [ -e /etc/tund/fri.key ]
        echo every-step
    "#;
    let inside = inside.replace("@install", install).replace("@upgrade", upgrade).replace("@purge", purge);
    std::fs::write(place.join("inside"), inside).unwrap();
    let outside = format!(
        "mount -t tmpfs tmpfs /mnt
         mkdir /mnt/upper /mnt/work /mnt/root
         mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
         mount -t proc proc /mnt/root/proc
         mount --rbind /dev /mnt/root/dev
         mount -t tmpfs tmpfs /mnt/root/run
         mkdir /mnt/root/packages
         cp {}/* /mnt/root/packages/
         chroot /mnt/root timeout 120 sh -eux /packages/inside",
        place.display()
    );
    std::fs::write(place.join("outside"), outside).unwrap();
    let text = shell("exec unshare --mount --pid --fork --kill-child --net sh -eu outside 2>&1", &place);
    assert!(text.ends_with("every-step\n"), "{text}");
}

/// A repository with the script, and a cargo that "builds" what `build` prints, from the crates in `tree`.
fn release(place: &Scratch, build: &str, tree: &str) -> (bool, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/release");
    shell(
        &format!(
            r#"mkdir -p bin repository/packaging
            cp {script} repository/packaging
            cat >bin/cargo <<'END'
#!/bin/sh
case $1 in
build) mkdir -p target/release && {build} >target/release/tund ;;
cyclonedx) echo "{{\"path\": \"$PWD\", \"purl\": \"pkg:cargo/tund@0.1.0\", \"purl\": \"pkg:cargo/ring@0.17.14\"}}" >sbom.json ;;
tree) printf '{tree}' ;;
esac
END
            cp bin/cargo bin/cargo-cyclonedx
            chmod +x bin/*
            cd repository
            git init -q && git add . && git -c user.name=a -c user.email=a@b.c commit -qm release"#
        ),
        place,
    );
    let run = "PATH=$PWD/../bin:$PATH packaging/release --output ../output";
    let output = Command::new("sh").args(["-c", run]).current_dir(place.join("repository")).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_release_that_depends_on_its_folder_is_refused() {
    let place = Scratch::new().unwrap();
    let (taken, said) = release(&place, "pwd", "");
    assert!(!taken && said.contains("the two builds differ"), "{said}");
    assert!(!place.join("output/tund").exists());
}

#[test]
fn a_release_comes_with_its_checksum_and_its_sbom() {
    let place = Scratch::new().unwrap();
    let (taken, said) = release(&place, "echo program", r"tund v0.1.0 (/there)\nring v0.17.14\n");
    assert!(taken, "{said}");
    shell("cd output && sha256sum --check SHA256SUMS && grep -q '\"path\": \"/tund\"' tund.cdx.json", &place);
}

#[test]
fn a_release_whose_sbom_lacks_a_crate_is_refused() {
    let place = Scratch::new().unwrap();
    let (taken, said) = release(&place, "echo program", r"ring v0.17.14\nring v0.17.1\n");
    assert!(!taken && said.contains("the SBOM lacks ring v0.17.1"), "{said}");
    assert!(!place.join("output/tund").exists());
}

/// Uses promtool from Debian's prometheus, which `tests/run` unpacks.
#[test]
fn prometheus_loads_the_alerts_and_raises_them() {
    let tools = Path::new(TUND).ancestors().nth(2).unwrap().join("tools/inet/usr/bin");
    let place = Scratch::new().unwrap();
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prometheus.rules.yml");
    let labels = r#"instance="a", job="tund", link="fri""#;
    let test = format!(
        r#"rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{ series: 'tund_link_up{{{labels}}}', values: '1x5 0x30' }}
      - {{ series: 'tund_link_up{{instance="a", job="tund", link="idle"}}', values: '0x35' }}
      - {{ series: 'tund_condition{{instance="a", job="tund", link="idle", code="peer-idle"}}', values: '1x35' }}
      - {{ series: 'tund_condition{{{labels}, code="key-mismatch"}}', values: '1x35' }}
      - {{ series: 'tund_datagrams_total{{{labels}, direction="received"}}', values: '0+90x35' }}
      - {{ series: 'tund_datagrams_lost_total{{{labels}}}', values: '0+10x35' }}
    promql_expr_test:
      - expr: ALERTS{{alertstate="firing"}}
        eval_time: 30m
        exp_samples:
          - {{ labels: 'ALERTS{{alertname="TundLinkDown", alertstate="firing", severity="critical", {labels}}}', value: 1 }}
          - {{ labels: 'ALERTS{{alertname="TundEndsDisagree", alertstate="firing", severity="warning", {labels}, code="key-mismatch"}}', value: 1 }}
          - {{ labels: 'ALERTS{{alertname="TundLoss", alertstate="firing", severity="warning", instance="a", link="fri"}}', value: 1 }}
"#
    );
    std::fs::write(place.join("test.yml"), test).unwrap();
    let path = format!("PATH=$PATH:{}", tools.display());
    shell(&format!("{path} promtool check rules {rules} && {path} promtool test rules test.yml"), &place);
}
