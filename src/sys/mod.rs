//! All unsafe code of tund, each function small and with a safe signature.
#![allow(unsafe_code)]
