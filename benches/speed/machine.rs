//! Where a run took place.

use std::{fs, process::Command, thread};

use crate::{
    exporter::{binary, root, tool},
    results::Machine,
};

pub fn look() -> Machine {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kib: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    Machine {
        processor: processor.trim_start_matches([' ', '\t', ':']).to_owned(),
        cores: thread::available_parallelism().map_or(0, usize::from),
        memory_gib: kib.div_ceil(1 << 20),
        // Without what a distributor appends.
        kernel: first_line("uname", &["-sr"]).split('-').next().unwrap_or_default().to_owned(),
        date: first_line("date", &["-u", "+%Y-%m-%d"]),
        revision: first_line("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        versions: versions(),
        load_before: load(),
        load_after: 0.0,
    }
}

/// Runnable processes, averaged over a minute.
pub fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|minute| minute.parse().ok()).unwrap_or(0.0)
}

fn versions() -> Vec<(String, String)> {
    let python = tool("venv/bin/python").display().to_string();
    let packages =
        "from importlib.metadata import version as v; print(v('prometheus-client'), 'and redis', v('redis'))";
    let redis = first_line("redis-server", &["--version"]);
    let redis = redis.split("v=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    let theirs = first_line(&tool("bin/redis_exporter").display().to_string(), &["--version"]);
    let theirs =
        theirs.split("Exporter ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    [
        ("Redis", redis),
        ("prompt-redis-exporter", first_line(&binary().display().to_string(), &["--version"])),
        ("redis_exporter, of Debian", theirs),
        ("Python", first_line(&python, &["--version"])),
        ("prometheus-client", first_line(&python, &["-c", packages])),
        ("rustc", first_line("rustc", &["--version"])),
    ]
    .map(|(program, version)| (program.to_owned(), version))
    .into()
}

/// The first line that a program prints, to either output.
fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}: scripts/install-tools.sh bench"));
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}
