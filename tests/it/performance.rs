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

/// One goal, and what was measured for it: where, and the number.
struct Goal {
    text: &'static str,
    limit: f64,
    /// The number may not be above the limit; otherwise it may not be below.
    at_most: bool,
    shown: fn(f64) -> String,
    measured: Vec<(String, f64)>,
}

impl Goal {
    fn at_most(text: &'static str, limit: f64, shown: fn(f64) -> String, measured: Vec<(String, f64)>) -> Self {
        Self { text, limit, at_most: true, shown, measured }
    }

    fn at_least(text: &'static str, limit: f64, shown: fn(f64) -> String, measured: Vec<(String, f64)>) -> Self {
        Self { at_most: false, ..Self::at_most(text, limit, shown, measured) }
    }

    fn row(&self) -> String {
        let reached = |number: f64| if self.at_most { number <= self.limit } else { number >= self.limit };
        let (all, some) = (self.measured.len(), self.measured.iter().filter(|(_, number)| reached(*number)).count());
        let reached = match some {
            0 => "no".to_owned(),
            some if some == all => "yes".to_owned(),
            some => format!("{some} of {all}"),
        };
        let mut numbers: Vec<_> = self.measured.iter().collect();
        numbers.sort_by(|one, other| if self.at_most { one.1.total_cmp(&other.1) } else { other.1.total_cmp(&one.1) });
        let shown = |(place, number): &(String, f64)| format!("{} ({place})", (self.shown)(*number));
        let numbers = match numbers[..] {
            [(_, only)] => (self.shown)(*only),
            [best, .., worst] => format!("{} to {}", shown(best), shown(worst)),
            [] => String::new(),
        };
        format!("| {} | {reached} | {numbers} |\n", self.text)
    }
}

#[test]
fn the_goals_are_held_against_what_was_measured() {
    const TIMES: fn(f64) -> String = |number| format!("{number:.2}");
    const MILLISECONDS: fn(f64) -> String = |number| format!("{} ms", digits(number));
    const MEBIBYTES: fn(f64) -> String = |number| format!("{} MiB", digits(number));
    const SECONDS: fn(f64) -> String = |number| format!("{number:.0} s");
    let results = results();
    let of = |workloads: &[&str], number: &dyn Fn(&Measured) -> f64| -> Vec<(String, f64)> {
        let chosen = in_tables(&results).filter(|measured| workloads.contains(&measured.workload.as_str()));
        let place = |measured: &Measured| match link(measured) {
            link if measured.added_ms > 0.0 => format!("{}, {link}", measured.workload),
            _ => measured.workload.clone(),
        };
        chosen.map(|measured| (place(measured), number(measured))).collect()
    };
    let all: Vec<_> = in_tables(&results).map(|measured| measured.workload.as_str()).collect();
    let others: Vec<_> = all.iter().copied().filter(|workload| *workload != "observing").collect();
    let latency = |measured: &Measured| cost(measured, OURS).latency.p50_ms / measured.floor.latency.p50_ms;
    let cpu = |measured: &Measured| cost(measured, THEIRS).cpu_ms / cost(measured, OURS).cpu_ms;
    let redis_cpu = |measured: &Measured| cost(measured, OURS).redis_cpu_ms / measured.floor.redis_cpu_ms;
    let resident = |measured: &Measured| cost(measured, OURS).resident_mib;
    let starts = results.starts.iter().filter(|start| start.exporter == OURS);
    let starts = starts.map(|start| (start.how.clone(), start.worst_ms)).collect();
    let one = |number: f64| vec![(String::new(), number)];
    let mut goals = vec![
        Goal::at_most("a scrape within 1.3 times the floor on observing", 1.3, TIMES, of(&["observing"], &latency)),
        Goal::at_most("within 1.5 times the floor on each other workload", 1.5, TIMES, of(&others, &latency)),
        Goal::at_least("25 times less CPU than redis_exporter on each workload", 25.0, digits, of(&all, &cpu)),
        Goal::at_least(
            "34 times less for 1,000 streams: 7 ms where it takes 240",
            240.0 / 7.0,
            digits,
            of(&["heavy", "quiet"], &cpu),
        ),
        Goal::at_most("Redis's CPU within 1.1 times the floor's", 1.1, TIMES, of(&all, &redis_cpu)),
        Goal::at_most("resident memory of at most 8 MiB at observing", 8.0, MEBIBYTES, of(&["observing"], &resident)),
        Goal::at_most("12 MiB at 1,000 streams", 12.0, MEBIBYTES, of(&["heavy", "quiet"], &resident)),
        Goal::at_most("48 MiB at 10,000 streams", 48.0, MEBIBYTES, of(&["vast"], &resident)),
        Goal::at_most("the first page within 50 ms of exec", 50.0, MILLISECONDS, starts),
        Goal::at_most("a binary of at most 6 MB", 6e6, bytes, one(results.binary_bytes as f64)),
    ];
    let seconds = [
        ("a release build of everything within two minutes", 120.0, results.build_seconds),
        (
            "all of `make bench` within fifteen minutes, from its first build to its last measurement",
            900.0,
            results.all_seconds,
        ),
    ];
    for (text, limit, seconds) in seconds {
        goals.extend(seconds.map(|seconds| Goal::at_most(text, limit, SECONDS, one(seconds))));
    }
    let rows: String = goals.iter().map(Goal::row).collect();
    check(
        "docs/performance.md",
        "goals",
        &format!("| goal | reached | measured, from best to worst |\n|---|---|---|\n{rows}"),
    );
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
