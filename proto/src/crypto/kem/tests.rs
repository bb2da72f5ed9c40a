//! NIST's vectors, and AWS-LC as another implementation.

use sha2::{Digest, Sha256};
use zeroize::ZeroizeOnDrop;

use super::*;
use crate::testing::Given;

/// The fields of each vector of this kind, without its number.
fn acvp(kind: &str) -> Vec<Vec<Vec<u8>>> {
    let lines =
        include_str!("acvp.txt").lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    let bytes = |field: &str| {
        let mut bytes = vec![0; field.len() / 2];
        base16ct::lower::decode(field, &mut bytes).unwrap();
        bytes
    };
    let fields = |line: &str| line.split(' ').skip(1).map(bytes).collect();
    lines.map(fields).collect()
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    Sha256::digest(parts.concat()).to_vec()
}

#[test]
fn keys_are_generated_as_nist_says() {
    let vectors = acvp("generate");
    assert_eq!(vectors.len(), 25);
    for vector in vectors {
        let [d, z, hash] = &vector[..] else { panic!("d, z and hash") };
        let mut public = Vec::new();
        let key = generate(&mut Given(&[&d[..], z].concat()), &mut public);
        assert_eq!(public.len(), ENCAPSULATION_KEY);
        assert_eq!(sha256(&[&public, &*key.0]), *hash);
    }
}

#[test]
fn shared_keys_are_encapsulated_as_nist_says() {
    let vectors = acvp("encapsulate");
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let [key, message, hash, shared] = &vector[..] else { panic!("key, message, hash and shared key") };
        let mut ciphertext = Vec::new();
        let key = key.as_slice().try_into().unwrap();
        let found = encapsulate(key, &mut Given(message), &mut ciphertext).unwrap();
        assert_eq!(ciphertext.len(), CIPHERTEXT);
        assert_eq!((sha256(&[&ciphertext]), found.to_vec()), (hash.clone(), shared.clone()));
    }
}

/// Includes modified ciphertexts, which yield a key that nobody else has.
#[test]
fn shared_keys_are_decapsulated_or_rejected_as_nist_says() {
    let key = acvp("key").remove(0).remove(0);
    let key = Decapsulation(key.into_boxed_slice().try_into().unwrap());
    let vectors = acvp("decapsulate");
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let [ciphertext, shared] = &vector[..] else { panic!("ciphertext and shared key") };
        assert_eq!(key.open(ciphertext[..].try_into().unwrap()).to_vec(), *shared);
    }
}

/// Sets a key's number (12 bits, little-endian) at `at`.
fn with_number(key: &[u8; ENCAPSULATION_KEY], at: usize, number: u16) -> [u8; ENCAPSULATION_KEY] {
    let mut key = *key;
    let pair = &mut key[at / 2 * 3..][..3];
    if at.is_multiple_of(2) {
        pair[0] = number as u8;
        pair[1] = pair[1] & 0xf0 | (number >> 8) as u8;
    } else {
        pair[1] = pair[1] & 0x0f | (number << 4) as u8;
        pair[2] = (number >> 4) as u8;
    }
    key
}

/// FIPS 203 §7.2. Without this check a key has several encodings.
#[test]
fn a_key_with_a_number_that_is_not_below_the_modulus_is_refused() {
    const MODULUS: u16 = 3329;
    let mut public = Vec::new();
    generate(&mut Given(&[7; SEED]), &mut public);
    let public = public.try_into().unwrap();
    for at in 0..768 {
        for (number, taken) in [(MODULUS - 1, true), (MODULUS, false), (4095, false)] {
            let key = with_number(&public, at, number);
            let mut out = Vec::new();
            let ours = encapsulate(&key, &mut Given(&[1; MESSAGE]), &mut out).is_some();
            assert_eq!((ours, !out.is_empty()), (taken, taken), "number {at} is {number}");
        }
    }
}

#[test]
fn what_holds_keys_erases_them() {
    fn erased<T: ZeroizeOnDrop>() {}
    erased::<Decapsulation>();
    erased::<Secret>();
}

/// tund wipes it after each. A thread that overflows its stack ends the test.
#[test]
fn every_operation_fits_in_the_stack_that_is_wiped() {
    let work = || {
        let (mut public, mut ciphertext) = (Vec::new(), Vec::new());
        let key = generate(&mut Given(&[7; SEED]), &mut public);
        let shared =
            encapsulate(&public.try_into().unwrap(), &mut Given(&[1; MESSAGE]), &mut ciphertext).unwrap();
        assert_eq!(key.open(&ciphertext.try_into().unwrap()), shared);
    };
    std::thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap().join().unwrap();
}

#[cfg(feature = "aws-lc")]
mod aws_lc {
    use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Given;

    proptest! {
        #[test]
        fn both_ends_may_be_either(seed: [[u8; 32]; 2], message: [u8; 32], changed in 0..CIPHERTEXT) {
            let mut public = Vec::new();
            let ours = generate(&mut Given(&seed.concat()), &mut public);
            let public: [u8; ENCAPSULATION_KEY] = public.try_into().unwrap();
            let theirs = DecapsulationKey::new(&ML_KEM_768, &*ours.0).unwrap();
            let at_theirs = |ciphertext: &[u8]| theirs.decapsulate(ciphertext.into()).unwrap().as_ref().to_vec();

            let mut ciphertext = Vec::new();
            let shared = encapsulate(&public, &mut Given(&message), &mut ciphertext).unwrap();
            let mut ciphertext: [u8; CIPHERTEXT] = ciphertext.try_into().unwrap();
            prop_assert_eq!(at_theirs(&ciphertext), shared.to_vec());

            let (made, at_maker) = EncapsulationKey::new(&ML_KEM_768, &public).unwrap().encapsulate().unwrap();
            let made = made.as_ref().try_into().unwrap();
            prop_assert_eq!(ours.open(made).to_vec(), at_maker.as_ref());

            ciphertext[changed] ^= 1;
            let rejected = ours.open(&ciphertext);
            prop_assert_ne!(&rejected, &shared);
            prop_assert_eq!(rejected.to_vec(), at_theirs(&ciphertext));
        }

        #[test]
        fn both_refuse_the_same_keys(seed: [[u8; 32]; 2], at in 0usize..768, number in 0u16..4096) {
            let mut public = Vec::new();
            generate(&mut Given(&seed.concat()), &mut public);
            let key = with_number(&public.try_into().unwrap(), at, number);
            let ours = encapsulate(&key, &mut Given(&[1; MESSAGE]), &mut Vec::new());
            let theirs = EncapsulationKey::new(&ML_KEM_768, &key).ok().and_then(|key| key.encapsulate().ok());
            prop_assert_eq!(ours.is_some(), theirs.is_some());
        }

        #[test]
        fn it_refuses_other_lengths_as_our_types_do(length in 0usize..3000) {
            let key = DecapsulationKey::generate(&ML_KEM_768).unwrap();
            let bytes = vec![0; length];
            let taken = key.decapsulate(Ciphertext::from(&bytes[..])).is_ok();
            prop_assert_eq!(taken, <&[u8; CIPHERTEXT]>::try_from(&bytes[..]).is_ok());
            let taken = EncapsulationKey::new(&ML_KEM_768, &bytes).is_ok();
            prop_assert_eq!(taken, <&[u8; ENCAPSULATION_KEY]>::try_from(&bytes[..]).is_ok());
        }
    }
}
