//! promtool's tests with samples that do not fall on evaluations.
//!
//! promtool puts the first sample and the first evaluation at time 0, so with equal intervals each sample sits exactly on
//! an evaluation, which real ones never do, and there the two generations of Prometheus differ: a range of one minute
//! over samples 15 s apart holds five in Prometheus 2 and four in Prometheus 3. So each sample but the first is moved back
//! by two thirds of its interval. The evaluation after it still sees it, and a range holds four in both.
//!
//! The rules are cut down to those that a test can tell of, since promtool takes as long for each of the others. A recording
//! rule reads raw metrics only, so those that a test does not name can change nothing. Neither can an alert that a test does
//! not name, unless it asks for all alerts that fire: such tests are run with all of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    promql::{metrics, parse},
    shipped::{path, text, yaml},
};

/// Writes a test file and its rule files into `dir`, in one part or two: tests that ask for all alerts, and the others.
pub fn unaligned(name: &str, dir: &Path) -> Vec<PathBuf> {
    let written = yaml(&text(name));
    let (all, named): (Vec<_>, Vec<_>) =
        written["tests"].as_array().unwrap().iter().cloned().partition(asks_for_all_alerts);
    let parts = [("all", all), ("named", named)].into_iter().filter(|(_, tests)| !tests.is_empty());
    parts
        .map(|(part, tests)| {
            let mut file = written.clone();
            file["tests"] = tests.into();
            let place = dir.join(format!("{part}.{name}", name = name.rsplit('/').next().unwrap()));
            fs::write(&place, unaligned_part(file, &place)).unwrap();
            place
        })
        .collect()
}

/// Does it look at alerts, or at series of any name, without saying which?
fn asks_for_all_alerts(test: &Value) -> bool {
    let queries = test["promql_expr_test"].as_array().into_iter().flatten();
    let names_none = |after: &str| {
        let matchers = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        matchers.is_none_or(|(matchers, _)| !matchers.contains("alertname"))
    };
    queries
        .map(|query| query["expr"].as_str().unwrap())
        .any(|query| query.contains("__name__") || query.split("ALERTS").skip(1).any(names_none))
}

fn unaligned_part(mut file: Value, place: &Path) -> String {
    let tests = file["tests"].to_string();
    let whole = file["tests"].as_array().unwrap().iter().any(asks_for_all_alerts);
    for rules in file["rule_files"].as_array_mut().unwrap() {
        let shipped = path("alerts/tests").join(rules.as_str().unwrap());
        let cut = place.with_extension(shipped.file_name().unwrap());
        let text = fs::read_to_string(&shipped).unwrap();
        fs::write(&cut, if whole { text } else { tested(&text, &tests) }).unwrap();
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

/// The rules that this text names, and all of them where one of those asks for another.
fn tested(rules: &str, text: &str) -> String {
    let mut file = yaml(rules);
    for group in file["groups"].as_array_mut().unwrap() {
        group["rules"].as_array_mut().unwrap().retain(|rule| {
            let name = rule["record"].as_str().or_else(|| rule["alert"].as_str()).unwrap();
            names(text, name)
        });
    }
    file["groups"].as_array_mut().unwrap().retain(|group| !group["rules"].as_array().unwrap().is_empty());
    let left = file.to_string();
    let is_asked = |name: &str| name == "ALERTS" || name.starts_with("redis_streams:");
    let groups = file["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let asks = |rule: &Value| metrics(&parse(rule["expr"].as_str().unwrap())).iter().any(|name| is_asked(name));
    if groups.into_iter().any(asks) { rules.to_owned() } else { left }
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
    let files = unaligned("alerts/tests/up.yaml", dir.path());
    let tests = files.iter().map(|file| yaml(&fs::read_to_string(file).unwrap())["tests"].as_array().unwrap().clone());
    let tests: Vec<_> = tests.flatten().collect();
    assert_eq!(tests.len(), yaml(&text("alerts/tests/up.yaml"))["tests"].as_array().unwrap().len());
    assert!(tests.iter().all(|test| test["interval"] == "5000ms"));
}

#[test]
fn a_test_that_asks_for_all_alerts_is_run_with_all_of_them() {
    let test = |expr: &str| json!({ "promql_expr_test": [{ "expr": expr }] });
    assert!(asks_for_all_alerts(&test("count by (alertname) (ALERTS{alertstate=\"firing\"})")));
    assert!(!asks_for_all_alerts(&test("ALERTS{alertname=\"A\",alertstate=\"firing\"}")));
    assert!(!asks_for_all_alerts(&json!({ "alert_rule_test": [{ "alertname": "A" }] })));
}

#[test]
fn rules_that_a_test_does_not_name_are_left_out() {
    let rules = "groups: [{name: a, rules: [{record: 's:a', expr: a}, {record: 's:a:b', expr: b}]}, {name: c, rules: [{record: 's:c', expr: c}]}]";
    let left = |text: &str| yaml(&tested(rules, text))["groups"].to_string();
    assert!(left("sum(s:a:b)").contains("s:a:b") && !left("sum(s:a:b)").contains("\"s:a\""));
    assert_eq!(left("s:d"), "[]");
    let alerts = "groups: [{name: a, rules: [{alert: A, expr: a}, {alert: B, expr: 'ALERTS{alertname=\"A\"}'}]}]";
    assert!(!tested(alerts, "alertname: A").contains("\"B\""));
    assert_eq!(tested(alerts, "alertname: B"), alerts, "B asks for A");
}
