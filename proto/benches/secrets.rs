//! Whether a branch or an address depends on a secret of ML-KEM, in the code as it is released: valgrind's memcheck takes the secrets for
//! bytes that nobody has set, and complains of what such bytes decide (Langley, ctgrind, 2010).
//!
//! ```text
//! cargo bench --bench secrets
//! ```
//!
//! Secret are the message of an encapsulation, and of a decapsulation key all but the encapsulation key in it and that one's hash. So is
//! the message that comes out of a ciphertext, what it is encrypted to once more, and whether that is the ciphertext (implicit rejection).
//! The code for AVX2 is looked at, which valgrind shows, and the portable one. The control branches on a shared key.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops where something is wrong")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to a person")]

use std::hint::black_box;
use std::process::{Command, ExitCode};

use libcrux_ml_kem::mlkem768::{
    self, MlKem768Ciphertext, MlKem768PrivateKey as Private, MlKem768PublicKey as Public, portable,
};

#[path = "../../src/sys/memcheck.rs"]
mod memcheck;

/// memcheck's exit status after a complaint.
const COMPLAINED: i32 = 99;
/// Secret parts of a decapsulation key: before the encapsulation key, and after its hash (FIPS 203, algorithm 16).
const SECRET: [std::ops::Range<usize>; 2] = [0..1152, 2368..2400];

/// The work, and whether memcheck must complain.
const WORKS: [(&str, bool, fn()); 3] = [
    ("ML-KEM-768, the code for this processor", false, || {
        exchange(mlkem768::encapsulate, mlkem768::decapsulate, memcheck::disclose)
    }),
    ("ML-KEM-768, portable code", false, || {
        exchange(portable::encapsulate, portable::decapsulate, memcheck::disclose)
    }),
    ("control: a comparison of shared keys", true, || {
        exchange(mlkem768::encapsulate, mlkem768::decapsulate, |_| {})
    }),
];

fn main() -> ExitCode {
    let name = std::env::args().skip(1).find(|word| word != "--bench");
    let mut failed = false;
    for (work, complains, run) in WORKS {
        match &name {
            None => failed |= !is_right(work, complains),
            Some(name) if name == work => {
                assert!(memcheck::is_watched(), "memcheck does not look on, or this is not x86-64");
                run();
            }
            Some(_) => {}
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether memcheck complains of this work exactly if it must.
fn is_right(work: &str, complains: bool) -> bool {
    let output = Command::new("valgrind")
        .args(["--quiet", &format!("--error-exitcode={COMPLAINED}")])
        .arg(std::env::current_exe().expect("the path of this program"))
        .arg(work)
        .output()
        .expect("valgrind is not installed: apt-get install valgrind");
    let right = output.status.code() == Some(if complains { COMPLAINED } else { 0 });
    println!("{work:<45}{}", if right { "as it should be" } else { "WRONG" });
    if !right {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    right
}

/// A valid ciphertext and a changed one. Comparing the shared keys requires their disclosure.
fn exchange(
    encapsulate: fn(&Public, [u8; 32]) -> (MlKem768Ciphertext, [u8; 32]),
    decapsulate: fn(&Private, &MlKem768Ciphertext) -> [u8; 32],
    disclose: fn(&mut [u8]),
) {
    let pair = mlkem768::generate_key_pair([7; 64]);
    let (mut message, mut key) = ([1; 32], *pair.sk());
    memcheck::hide(&mut message);
    SECRET.into_iter().for_each(|part| memcheck::hide(&mut key[part]));
    let (sent, mut shared) = encapsulate(pair.public_key(), black_box(message));
    let mut sent = *sent.as_slice();
    memcheck::disclose(&mut sent);
    disclose(&mut shared);
    for change in [0, 1] {
        sent[9] ^= change;
        let mut opened = decapsulate(&Private::from(black_box(key)), &sent.into());
        disclose(&mut opened);
        assert_eq!(opened == shared, change == 0);
    }
}
