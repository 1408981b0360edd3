//! Documents that cannot drift: the tables of options and metrics are made from the code, and checked.
//!
//! `UPDATE=1 make test` writes them anew.

use std::{
    fmt::Write,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use clap::CommandFactory;
use prompt_redis_exporter::{cli::Cli, exposition::metrics::families};

use crate::support::{Exporter, Server};

/// Compares what stands between `<!-- NAME -->` and `<!-- /NAME -->` in a document with what should.
pub fn check(document: &str, name: &str, expected: &str) {
    // Tests run at the same time, and several write to one document.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{document} has no {begin}"));
    let (table, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{document} has no {end}"));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
    } else {
        assert_eq!(table, expected, "{document} is out of date: UPDATE=1 make test writes it anew");
    }
}

#[test]
fn the_page_in_the_readme_is_a_real_one() {
    let server = Server::redis7();
    server.run("XGROUP CREATE instrument:lsstcam lsstcam_consumer_group $ MKSTREAM");
    let key = "instrument:lsstcam";
    server.add(key, 1..=81);
    let read = |count| {
        let group = "lsstcam_consumer_group";
        server.run(&format!("XREADGROUP GROUP {group} worker COUNT {count} NOACK STREAMS {key} >"));
    };
    read(40);
    server.run(&format!("XTRIM {key} MAXLEN 32"));
    read(100);
    let page = Exporter::start(&server, &[]).scrape();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, shown) = readme.split_once("<!-- page -->\n```\n").unwrap();
    let (shown, _) = shown.split_once("```\n<!-- /page -->").unwrap();
    assert!(shown.lines().count() > 5, "{shown}");
    for line in shown.lines() {
        assert!(page.0.lines().any(|real| real == line), "{line} is not on the page:\n{}", page.0);
    }
}

/// A cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*")
}

#[test]
fn the_readme_has_every_option() {
    check("README.md", "options", &options(&Cli::command()));
    let status = Cli::command();
    let status = status.find_subcommand("status").unwrap();
    check("README.md", "status options", &options(status));
}

/// A table of the command's own options.
fn options(command: &clap::Command) -> String {
    let mut table = String::from("| option | default | meaning |\n|---|---|---|\n");
    for arg in command.get_arguments() {
        let Some(option) = arg.get_long() else { continue };
        let value = arg.get_value_names().filter(|_| arg.get_action().takes_values() && !arg.is_flag());
        let value = value.map_or(String::new(), |names| names.join(" "));
        let value = match arg.get_num_args().map(|range| range.min_values()) {
            _ if value.is_empty() => value,
            Some(0) => format!(" [{value}]"),
            _ => format!(" {value}"),
        };
        let default = arg.get_default_values().first().map(|value| format!("`{}`", value.to_string_lossy()));
        let default = default.unwrap_or_default();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(table, "| `--{option}{value}` | {default} | {} |", cell(&help)).unwrap();
    }
    table
}

/// Clap has no word for an option that takes no value but acts like one that does.
trait IsFlag {
    fn is_flag(&self) -> bool;
}

impl IsFlag for clap::Arg {
    fn is_flag(&self) -> bool {
        self.get_num_args().is_some_and(|range| range.max_values() == 0)
    }
}

#[test]
fn the_metrics_document_has_every_metric() {
    let mut table = String::from("| metric | type | labels | meaning | absent |\n|---|---|---|---|---|\n");
    for family in families() {
        let (help, absent) = (cell(family.help), cell(family.absent));
        writeln!(table, "| `{}` | {} | {} | {help} | {absent} |", family.name, family.kind, family.labels).unwrap();
    }
    check("docs/metrics.md", "metrics", &table);
}

#[test]
fn every_metric_has_the_name_and_the_words_of_the_field() {
    for family in families() {
        assert_eq!(family.name.ends_with("_total"), family.kind == "counter", "{}", family.name);
        assert!(!family.help.contains(['"', '\\', '\n']), "{}: the two formats escape these differently", family.name);
        assert!(!family.help.ends_with('.') && !family.absent.is_empty(), "{}", family.name);
    }
}
