//! Fuzzes the decoder of xz streams.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rwork_protocol::fuzzing;

fuzz_target!(|data: &[u8]| rwork_fuzz::run(fuzzing::xz, fuzzing::CAP, data));
