//! The selectors of docs/keda.md find exactly one sample on the page, in every state of the group, by KEDA's own rules.

use std::{collections::BTreeMap, fs, path::Path};

use promql_parser::parser::{Expr, VectorSelector, parse};
use serde::Deserialize;
use yaml_serde::Value;

use crate::support::{Exporter, Flavor, Page, Server};

const STREAM: &str = "instrument:lsstcam";
const GROUP: &str = "lsstcam_consumer_group";

/// The values of `valueLocation` in the document's YAML.
fn selectors() -> Vec<String> {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/keda.md")).unwrap();
    let blocks = document.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut found = Vec::new();
    for block in blocks {
        let block = Value::deserialize(yaml_serde::Deserializer::from_str(block)).unwrap();
        for trigger in block["spec"]["triggers"].as_sequence().into_iter().flatten() {
            if trigger["type"] == "metrics-api" {
                assert_eq!(trigger["metadata"]["format"], "prometheus");
                found.push(trigger["metadata"]["valueLocation"].as_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// The name and the labels of a selector, or of a sample, which is written in the same way.
fn parts(series: &str) -> (String, BTreeMap<String, String>) {
    let Ok(Expr::VectorSelector(VectorSelector { name, matchers, .. })) = parse(series) else {
        panic!("{series} is not a selector")
    };
    let labels = matchers.matchers.into_iter().map(|matcher| (matcher.name, matcher.value)).collect();
    (name.unwrap(), labels)
}

/// The values of the samples that KEDA takes the first of: those of this name in the classic format that have each label
/// of the selector, compared literally.
fn found(page: &Page, selector: &str) -> Vec<f64> {
    let (name, wanted) = parts(selector);
    let samples = page.0.lines().filter(|line| line.starts_with(&name)).map(|line| line.rsplit_once(' ').unwrap());
    let matches = |series: &str| {
        let (sample, labels) = parts(series);
        sample == name && wanted.iter().all(|(label, value)| labels.get(label) == Some(value))
    };
    samples.filter(|(series, _)| matches(series)).map(|(_, value)| value.parse().unwrap()).collect()
}

#[test]
fn the_document_shows_both_ways_to_combine_the_triggers() {
    assert_eq!(selectors().len(), 2);
    let found = found(&Page("up{a=\"1\",b=\"x y\"} 3\nup{a=\"2\"} 4\nup_too{a=\"1\"} 5\n".into()), "up{a=\"1\"}");
    assert_eq!(found, [3.0], "the rules by which a sample is found");
}

#[test]
fn there_is_one_sample_in_every_state_of_the_group() {
    let selectors = selectors();
    for flavor in Flavor::ALL {
        let server = Server::start(flavor);
        server.run(&format!("XGROUP CREATE {STREAM} {GROUP} $ MKSTREAM"));
        server.run(&format!("XGROUP CREATE {STREAM} other $"));
        server.run("XGROUP CREATE instrument:hsc lsstcam_consumer_group $ MKSTREAM");
        // The default pattern, and the names that the chart's values have.
        let named = format!("--stream={STREAM}={GROUP}");
        let exporters = [Exporter::start(&server, &[]), Exporter::start(&server, &[&named])];
        let check = |state: &str, waiting: f64| {
            for (exporter, selector) in exporters.iter().flat_map(|one| selectors.iter().map(move |s| (one, s))) {
                let found = found(&exporter.scrape(), selector);
                let [value] = found[..] else { panic!("{flavor:?}, {state}: {selector} finds {found:?}") };
                let is_right = if waiting <= 1_000.0 { value == waiting } else { (1.0..=waiting).contains(&value) };
                assert!(is_right, "{flavor:?}, {state}: {value} for {waiting}");
            }
        };
        check("just bootstrapped", 0.0);
        server.add(STREAM, 1..=10);
        check("none read", 10.0);
        server.read(STREAM, GROUP, "w", 4);
        check("some read and pending", 6.0);
        server.run(&format!("XDEL {STREAM} 7-0"));
        check("lag null after XDEL", 5.0);
        server.run(&format!("XTRIM {STREAM} MAXLEN 1"));
        check("trimmed unread", 1.0);
        server.read(STREAM, GROUP, "w", 10);
        check("all read after a loss", 0.0);
        server.run(&format!("XTRIM {STREAM} MAXLEN 0"));
        check("stream empty", 0.0);
        server.add(STREAM, 11..=5_012);
        server.run(&format!("XGROUP SETID {STREAM} {GROUP} 5010-0"));
        check("set by hand", 2.0);
        server.run(&format!("XGROUP SETID {STREAM} {GROUP} 12-0"));
        check("5,000 wait, in the middle of the stream", 5_000.0);
        server.run(&format!("XGROUP SETID {STREAM} {GROUP} 0"));
        check("all wait", 5_002.0);
    }
}

#[test]
fn a_missing_group_has_no_sample() {
    let server = Server::redis7();
    server.add(STREAM, 1..=10);
    let page = Exporter::start(&server, &[&format!("--stream={STREAM}={GROUP}")]).scrape();
    assert_eq!(page.group("exists", STREAM, GROUP), Some(0.0));
    for selector in selectors() {
        assert!(found(&page, &selector).is_empty(), "{page:?}");
    }
}
