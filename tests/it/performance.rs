//! docs/performance.md and the README's table hold what `make bench` measured, as docs/performance.json has it, and
//! nothing else.

use std::{fmt::Write, fs, path::Path};

use crate::documents::check;

#[path = "../../benches/speed/results.rs"]
mod results;

use results::{Cost, Latency, Measured, Results, Stall, Work};

const OURS: &str = "prompt-redis-exporter";
const THEIRS: &str = "redis_exporter";
const FEWEST_FOR_P99: usize = 100;

fn results() -> Results {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// Three digits that count, which is what a run on this kind of machine repeats.
fn digits(number: f64) -> String {
    let decimals = match number {
        number if number >= 99.95 => 0,
        number if number >= 9.995 => 1,
        number if number >= 0.0995 => 2,
        _ => 3,
    };
    thousands(&format!("{number:.decimals$}"))
}

fn thousands(number: &str) -> String {
    let (whole, fraction) = number.split_once('.').map_or((number, ""), |(whole, fraction)| (whole, fraction));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1e6 => format!("{} MB", digits(bytes / 1e6)),
        bytes if bytes >= 1e3 => format!("{} kB", digits(bytes / 1e3)),
        bytes => format!("{bytes:.0} B"),
    }
}

fn times(number: f64, floor: f64) -> String {
    format!("{:.2}", number / floor)
}

/// The 99th percentile, or the longest of a few.
fn p99(latency: Latency) -> String {
    let mark = if latency.scrapes < FEWEST_FOR_P99 { " max" } else { "" };
    format!("{}{mark}", digits(latency.p99_ms))
}

fn cost<'a>(measured: &'a Measured, exporter: &str) -> &'a Cost {
    measured.exporters.iter().find(|cost| cost.exporter == exporter).unwrap()
}

fn link(measured: &Measured) -> String {
    if measured.added_ms > 0.0 { format!("{} ms away", measured.added_ms) } else { "same machine".to_owned() }
}

fn in_tables(results: &Results) -> impl Iterator<Item = &Measured> {
    results.workloads.iter().filter(|measured| !measured.only_in_chart)
}

#[test]
fn the_machine_is_the_measured_one() {
    let results = results();
    let machine = &results.machine;
    let mut text = format!(
        "{}, {} cores, {} GiB, {}. Measured on {} at revision {}, in {:.0} s",
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        machine.date,
        machine.revision,
        results.run_seconds,
    );
    let (before, after) = (machine.load_before, machine.load_after);
    writeln!(text, "; load average {before:.1} before and {after:.1} at the end.\n").unwrap();
    writeln!(text, "| program | version |\n|---|---|").unwrap();
    for (program, version) in &machine.versions {
        writeln!(text, "| {program} | {version} |").unwrap();
    }
    let idle = results.idle_stall_ms;
    writeln!(
        text,
        "\nWhile nobody scrapes, the longest wait of a client that only sends PING is {} ms within 20 ms (median), and {} ms \
         at worst: the machine's share of the stalls below.",
        digits(idle.median_ms),
        digits(idle.worst_ms)
    )
    .unwrap();
    check("docs/performance.md", "machine", &text);
}

#[test]
fn the_ratios_are_the_measured_ones() {
    let results = results();
    let mut text = String::from(
        "| workload | link | floor | scrape | x floor | Redis's CPU x floor | redis_exporter / ours: time | CPU | Redis's \
         CPU |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for measured in in_tables(&results) {
        let (floor, ours, theirs) = (&measured.floor, cost(measured, OURS), cost(measured, THEIRS));
        writeln!(
            text,
            "| {} | {} | {} ms | {} ms | {} | {} | {} | {} | {} |",
            measured.workload,
            link(measured),
            digits(floor.latency.p50_ms),
            digits(ours.latency.p50_ms),
            times(ours.latency.p50_ms, floor.latency.p50_ms),
            times(ours.redis_cpu_ms, floor.redis_cpu_ms),
            digits(theirs.latency.p50_ms / ours.latency.p50_ms),
            digits(theirs.cpu_ms / ours.cpu_ms),
            digits(theirs.redis_cpu_ms / ours.redis_cpu_ms),
        )
        .unwrap();
    }
    check("docs/performance.md", "ratios", &text);
}

#[test]
fn each_workload_is_the_measured_one() {
    let results = results();
    let mut text = String::new();
    let mut last = "";
    for measured in in_tables(&results) {
        if measured.workload != last {
            last = &measured.workload;
            write!(text, "\n### {}\n\n{}.\n\n", measured.workload, measured.describes).unwrap();
            text.push_str(
                "| | link | scrapes | p50, ms | p99, ms | CPU, ms | Redis's CPU, ms | stall, ms: median / worst | commands | \
                 reads | Redis's replies | page | resident |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
            );
        }
        let floor = &measured.floor;
        writeln!(
            text,
            "| floor | {} | {} | {} | {} | | {} | {} | | |",
            link(measured),
            floor.latency.scrapes,
            digits(floor.latency.p50_ms),
            p99(floor.latency),
            digits(floor.redis_cpu_ms),
            of_redis(floor.stall, floor.work),
        )
        .unwrap();
        for cost in &measured.exporters {
            writeln!(text, "{}", row(measured, cost)).unwrap();
        }
    }
    check("docs/performance.md", "workloads", &text);
}

fn row(measured: &Measured, cost: &Cost) -> String {
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} MiB |",
        cost.exporter,
        link(measured),
        cost.latency.scrapes,
        digits(cost.latency.p50_ms),
        p99(cost.latency),
        digits(cost.cpu_ms),
        digits(cost.redis_cpu_ms),
        of_redis(cost.stall, cost.work),
        bytes(cost.page_bytes as f64),
        digits(cost.resident_mib),
    )
}

/// Four cells, which are empty where a proxy was between.
fn of_redis(stall: Option<Stall>, work: Option<Work>) -> String {
    let stall = stall.map(|stall| format!("{} / {}", digits(stall.median_ms), digits(stall.worst_ms)));
    let work = work.map(|work| {
        let (commands, reads) = (thousands(&work.commands.to_string()), thousands(&work.reads.to_string()));
        format!("{commands} | {reads} | {}", bytes(work.reply_bytes as f64))
    });
    format!("{} | {}", stall.unwrap_or_default(), work.unwrap_or_else(|| " | | ".to_owned()))
}

#[test]
fn gzip_start_and_size_are_the_measured_ones() {
    let results = results();
    let mut text =
        String::from("| workload | exporter | plain: time, CPU, page | gzip: time, CPU, page |\n|---|---|---|---|\n");
    for measured in in_tables(&results) {
        for cost in &measured.exporters {
            let Some(gzip) = cost.gzip else { continue };
            writeln!(
                text,
                "| {} | {} | {} ms, {} ms, {} | {} ms, {} ms, {} |",
                measured.workload,
                cost.exporter,
                digits(cost.latency.p50_ms),
                digits(cost.cpu_ms),
                bytes(cost.page_bytes as f64),
                digits(gzip.p50_ms),
                digits(gzip.cpu_ms),
                bytes(gzip.page_bytes as f64),
            )
            .unwrap();
        }
    }
    check("docs/performance.md", "gzip", &text);

    let mut text =
        String::from("| exporter | how | from exec to the first page: median of | worst |\n|---|---|---|---|\n");
    for start in &results.starts {
        let (p50, worst) = (digits(start.p50_ms), digits(start.worst_ms));
        writeln!(text, "| {} | {} | {p50} ms of {} | {worst} ms |", start.exporter, start.how, start.starts).unwrap();
    }
    write!(text, "\nThe binary has {}", bytes(results.binary_bytes as f64)).unwrap();
    match results.build_seconds {
        Some(seconds) => writeln!(text, "; a release build of everything from nothing took {seconds:.0} s.").unwrap(),
        None => text.push_str("; this run used a build that was there.\n"),
    }
    check("docs/performance.md", "start", &text);
}

#[test]
fn the_readme_quotes_what_was_measured() {
    let results = results();
    let machine = &results.machine;
    let redis = &machine.versions.iter().find(|(program, _)| program == "Redis").unwrap().1;
    let mut text = format!(
        "{} cores, Redis {redis} on the same machine, medians, {}; `make bench` measures it.\n\n",
        machine.cores, machine.date
    );
    text.push_str(
        "| workload | scrape: floor, ours, redis_exporter | CPU: ours, redis_exporter | resident: ours, redis_exporter \
         |\n|---|---|---|---|\n",
    );
    for measured in in_tables(&results).filter(|measured| measured.added_ms == 0.0) {
        let (floor, ours, theirs) = (&measured.floor, cost(measured, OURS), cost(measured, THEIRS));
        writeln!(
            text,
            "| {}: {} | {}, {}, {} ms | {}, {} ms | {}, {} MiB |",
            measured.workload,
            measured.describes,
            digits(floor.latency.p50_ms),
            digits(ours.latency.p50_ms),
            digits(theirs.latency.p50_ms),
            digits(ours.cpu_ms),
            digits(theirs.cpu_ms),
            digits(ours.resident_mib),
            digits(theirs.resident_mib),
        )
        .unwrap();
    }
    check("README.md", "cost", &text);
}
