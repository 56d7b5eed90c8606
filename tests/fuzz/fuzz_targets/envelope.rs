//! kombu's envelope: reading, marking as redelivered and reading again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rwork_fuzz::run(rwork_protocol::fuzzing::kombu_envelope, 0, data));
