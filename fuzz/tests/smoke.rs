//! A short run of every fuzz target. A failure names the target and keeps the input; run it again
//! with `FUZZ_SEED`, or as a test of its own from the file.

#![allow(clippy::unwrap_used)]

use std::panic::catch_unwind;

use fuzz::{TARGETS, Target, mutate};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Half of the inputs are the same in each run, so that a failure is no matter of luck; the others
/// are new each time.
fn smoke(target: &Target) {
    let fresh = match std::env::var("FUZZ_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => rand::random(),
    };
    let seeds = (target.seeds)();
    for seed in &seeds {
        check(target, seed);
    }
    println!("{}: FUZZ_SEED={fresh}", target.name);
    for seed in [0, fresh] {
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..target.smoke_inputs / 2 {
            check(target, &mutate::input(&seeds, &mut random));
        }
    }
}

fn check(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(|| (target.run)(input)) {
        let (_, path) = tempfile::Builder::new()
            .prefix(&format!("fuzz-{}-", target.name))
            .tempfile()
            .unwrap()
            .keep()
            .unwrap();
        std::fs::write(&path, input).unwrap();
        println!("{}: the input that broke it is in {}", target.name, path.display());
        std::panic::resume_unwind(panic);
    }
}

macro_rules! smoke_tests {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                smoke(TARGETS.iter().find(|target| target.name == stringify!($name)).unwrap());
            }
        )*

        #[test]
        fn every_target_is_tested() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(tested, TARGETS.map(|target| target.name));
        }
    };
}

smoke_tests! { wal_stream wal_record block_image page_stream base_backup file_names small_files layer_file }
