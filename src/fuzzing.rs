//! What the fuzz targets of `fuzz/` try, and a test of each with random input. Whatever comes from outside is taken or
//! refused; nothing panics.

use crate::{cli::Cli, config::Config, redis, redis::endpoint::Endpoint, web};

/// What a peer that should be a Redis sends.
pub fn replies(bytes: &[u8]) {
    redis::read_any_replies(bytes);
}

/// Ids of entries, in replies.
pub fn ids(bytes: &[u8]) {
    redis::read_any_id(bytes);
}

/// A request's headers, one a line: `name: value`.
pub fn headers(bytes: &[u8]) {
    web::read_any_headers(bytes);
}

/// The command line, one argument a line.
pub fn options(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let words = ["prompt-redis-exporter"].into_iter().chain(text.lines());
    let Ok(config) = Cli::from_args(words).map_err(drop).and_then(|cli| Config::new(cli, None).map_err(drop)) else {
        return;
    };
    let _ = Endpoint::new(config.redis);
}

/// The web configuration file.
pub fn web_config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        web::read_any_config(text);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 5] = [
        ("replies", super::replies),
        ("ids", super::ids),
        ("headers", super::headers),
        ("options", super::options),
        ("web_config", super::web_config),
    ];

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let seeds: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(!seeds.is_empty(), "{} is empty", folder.display());
        seeds
    }

    #[test]
    fn every_seed_is_taken_or_refused() {
        for (name, target) in TARGETS {
            for seed in seeds(name) {
                target(&seed);
            }
        }
    }

    proptest! {
        #[test]
        fn a_seed_with_other_bytes_in_it_is_taken_or_refused(
            target in 0..TARGETS.len(),
            seed in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let (name, target) = TARGETS[target];
            let seeds = seeds(name);
            let mut bytes = seed.get(&seeds).clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            target(&bytes);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for (_, target) in TARGETS {
                target(&bytes);
            }
        }
    }
}
