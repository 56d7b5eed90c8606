//! Fuzzes the decoder of brotli streams.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rwork_protocol::fuzzing;

fuzz_target!(|data: &[u8]| rwork_fuzz::run(fuzzing::brotli, fuzzing::CAP, data));
