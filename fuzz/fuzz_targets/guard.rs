#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tund_fuzz::guard(data));
