//! The statically linked program, for hosts and images without a C library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tund_lab::Process;

use super::demo::LONG;
use super::support::*;

/// Packages optimised in other test builds, which take longest.
const SLOW_TO_BUILD: [&str; 3] = ["tund-proto", "libcrux-ml-kem", "libcrux-sha3"];

/// Builds it without C code, which is faster; this test is about the C library.
fn program() -> PathBuf {
    let target = Path::new(TUND).ancestors().nth(2).unwrap().join("static");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--package", "tund", "--bin", "tund"]);
    cargo
        .args(["--no-default-features", "--features", "daemon", "--target", &triple, "--target-dir"])
        .arg(&target);
    for package in SLOW_TO_BUILD {
        cargo.args(["--config", &format!("profile.dev.package.{package}.opt-level=0")]);
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env("RUSTFLAGS", "-C target-feature=+crt-static");
    let mut build = Process::spawn("cargo build", cargo).unwrap();
    assert_eq!(build.code(20 * LONG).unwrap(), 0, "{}", build.text());
    target.join(triple).join("debug/tund")
}

/// Whether the program names a loader (PT_INTERP of elf(5)).
fn has_loader(program: &Path) -> bool {
    let bytes = fs::read(program).unwrap();
    let number = |at: usize, length: usize| {
        bytes[at..at + length].iter().rev().fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
    };
    // e_phoff, e_phentsize and e_phnum of a 64-bit header.
    let (first, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(first + index * size, 4) == 3)
}

#[test]
fn a_static_program_runs_a_link_locked_in_and_looks_names_up() {
    let program = program();
    assert!(has_loader(Path::new(TUND)) && !has_loader(&program));
    let pair = pair();
    pair.fri.add_name("10.0.0.2", "mon.tn").unwrap();
    let run = |host: &tund_lab::Host, name: &str, toml: &Toml| {
        let toml = toml.clone().handshake().with("[run]\nsandbox = 'require'\nverb = 3");
        let file = host.file(&format!("{name}.toml"), &toml.text()).unwrap();
        host.tund(&program, &file, &[]).unwrap()
    };
    let mut mon = run(&pair.mon, "mon", &Toml::tun_mon());
    let mut fri = run(&pair.fri, "fri", &Toml::tun_fri().top("remote = 'mon.tn:1417'"));
    for end in [&fri, &mon] {
        end.wait_line(UP, SOON).unwrap();
        assert!(end.text().contains("Landlock") && !end.text().contains("lacks"), "{}", end.text());
    }
    assert_pings(&pair.fri, "192.168.86.18");
    assert_eq!([fri.terminate(SOON).unwrap(), mon.terminate(SOON).unwrap()], [0, 0]);
}
