//! Writes the man pages and the shells' completions into a directory: `cargo run --example man -- DIRECTORY`.

use std::{env, fs, io, path::PathBuf};

use clap_complete::{Shell, generate_to};
use prompt_redis_exporter::cli::Cli;

fn main() -> io::Result<()> {
    let directory: PathBuf = env::args_os().nth(1).ok_or_else(|| io::Error::other("say which directory"))?.into();
    fs::create_dir_all(&directory)?;
    clap_mangen::generate_to(Cli::whole_command(), &directory)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut Cli::whole_command(), "prompt-redis-exporter", &directory)?;
    }
    Ok(())
}
