//! promtool's tests with samples that do not fall on evaluations.
//!
//! promtool puts the first sample and the first evaluation at time 0, so with equal intervals each sample sits exactly on
//! an evaluation, which real ones never do, and there the two generations of Prometheus differ: a range of one minute
//! over samples 15 s apart holds five in Prometheus 2 and four in Prometheus 3. So each sample but the first is moved back
//! by two thirds of its interval. The evaluation after it still sees it, and a range holds four in both.
//!
//! A file of recording rules is cut down to those that the test names: each reads raw metrics only, so the others can change
//! nothing, and they would take promtool as long as the tested ones.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shipped::{path, text, yaml};

/// A test file, with its rule files beside it in `dir`.
pub fn unaligned(name: &str, dir: &Path) -> String {
    let written = text(name);
    let mut file = yaml(&written);
    for rules in file["rule_files"].as_array_mut().unwrap() {
        let shipped = path("alerts/tests").join(rules.as_str().unwrap());
        let names = [name, shipped.to_str().unwrap()].map(|path| path.rsplit('/').next().unwrap());
        let cut = dir.join(names.join("."));
        fs::write(&cut, tested(&fs::read_to_string(&shipped).unwrap(), &written)).unwrap();
        *rules = cut.display().to_string().into();
    }
    for test in file["tests"].as_array_mut().unwrap() {
        let interval = humantime::parse_duration(test["interval"].as_str().unwrap()).unwrap();
        test["interval"] = json!(format!("{}ms", interval.as_millis() / 3));
        for series in test["input_series"].as_array_mut().unwrap() {
            series["values"] = moved(series["values"].as_str().unwrap()).into();
        }
    }
    file.to_string()
}

/// The recording rules that this text names. A file with alerts stays whole: what a test does not name must not fire.
fn tested(rules: &str, text: &str) -> String {
    let mut file = yaml(rules);
    if rules.contains("alert: ") {
        return rules.to_owned();
    }
    for group in file["groups"].as_array_mut().unwrap() {
        group["rules"].as_array_mut().unwrap().retain(|rule| names(text, rule["record"].as_str().unwrap()));
    }
    file["groups"].as_array_mut().unwrap().retain(|group| !group["rules"].as_array().unwrap().is_empty());
    file.to_string()
}

/// Does the text name this series, and not only one that begins like it?
fn names(text: &str, series: &str) -> bool {
    let goes_on = |after: &str| after.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    text.split(series).skip(1).any(|after| !goes_on(after))
}

/// In steps of a third of the interval: the first sample, the second in the next step, the others three steps apart.
fn moved(values: &str) -> String {
    let samples = samples(values);
    let (first, rest) = samples.split_first().expect("a series has values");
    [first.clone(), rest.join(" _ _ ")].join(" ")
}

/// promtool's notation, one word a sample: `_` is none, `1+2x3` is 1 3 5 7.
fn samples(values: &str) -> Vec<String> {
    values.split_whitespace().flat_map(expanded).collect()
}

fn expanded(word: &str) -> Vec<String> {
    let (value, more) = word.split_once('x').map_or((word, 0), |(value, more)| (value, more.parse().unwrap()));
    match value {
        "_" => vec!["_".into(); more.max(1)],
        "stale" => vec!["stale".into(); more + 1],
        _ => {
            let sign = value.rfind(['+', '-']).filter(|at| *at > 0).unwrap_or(value.len());
            let number = |text: &str| text.parse::<f64>().unwrap_or_else(|error| panic!("{error}: {word}"));
            let (from, step) = (number(&value[..sign]), value.get(sign..).filter(|step| !step.is_empty()));
            let step = step.map_or(0.0, number);
            (0..=more).map(|index| (from + step * index as f64).to_string()).collect()
        }
    }
}

#[test]
fn samples_are_moved_between_evaluations() {
    assert_eq!(moved("1 2 3"), "1 2 _ _ 3");
    assert_eq!(moved("0+15x2 stale _x2 -7x1"), "0 15 _ _ 30 _ _ stale _ _ _ _ _ _ _ _ -7 _ _ -7");
    assert_eq!(samples("9-2x3"), ["9", "7", "5", "3"]);
    let dir = TempDir::new().unwrap();
    let file: Value = yaml(&unaligned("alerts/tests/up.yaml", dir.path()));
    assert_eq!(file["tests"][0]["interval"], "5000ms");
}

#[test]
fn recording_rules_that_a_test_does_not_name_are_left_out() {
    let rules = "groups: [{name: a, rules: [{record: 's:a', expr: a}, {record: 's:a:b', expr: b}]}, {name: c, rules: [{record: 's:c', expr: c}]}]";
    let left = |text: &str| yaml(&tested(rules, text))["groups"].to_string();
    assert!(left("sum(s:a:b)").contains("s:a:b") && !left("sum(s:a:b)").contains("\"s:a\""));
    assert_eq!(left("s:d"), "[]");
    let alerts = "groups: [{name: a, rules: [{record: 's:a', expr: a}, {alert: A, expr: 's:a'}]}]";
    assert_eq!(tested(alerts, ""), alerts);
}
