#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| prompt_redis_exporter::fuzzing::replies(bytes));
