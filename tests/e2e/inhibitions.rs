//! One cause, one page: which alert is held back by which, asked of a real Alertmanager for every pair of alerts.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    shipped::{ALERTS, Rule, rules},
    stack::{Generation, Receiver, fetch, request, start_alertmanager, within},
};

/// What only follows from an alert, of the same exporter, stream and group.
fn follows(cause: &str, other: &str) -> bool {
    let of_redis = ["ExporterDown", "Down", "AccessRefused", "WritesRefused", "Evicting", "MemoryHigh"];
    let waiting = ["DeliveryLate", "DeliveryTooLate", "BacklogBeyondWorkers"];
    let short = |name: &'static str| other == format!("PromptRedis{name}");
    match cause.trim_start_matches("PromptRedis") {
        "ExporterDown" => true,
        "Down" | "AccessRefused" => !["ExporterDown", "Down", "AccessRefused"].into_iter().any(short),
        "WritesRefused" => short("MemoryHigh") || short("NoArrivals"),
        "StreamMissing" | "WrongType" => {
            !of_redis.into_iter().chain(["PatternEmpty", "StreamMissing", "WrongType"]).any(short)
        }
        "GroupMissing" | "GroupGone" => {
            let apart = ["PatternEmpty", "StreamMissing", "WrongType", "GroupMissing", "GroupGone"];
            !of_redis.into_iter().chain(apart).any(short)
        }
        "DeliveryStalled" => waiting.into_iter().chain(["MessagesExpiring"]).any(short),
        "MessagesExpiring" => waiting.into_iter().any(short),
        "DeliveryTooLate" => short("DeliveryLate") || short("BacklogBeyondWorkers"),
        "BacklogBeyondWorkers" => short("DeliveryLate"),
        "PendingBuildUp" => short("PendingNotAcked") || short("OrphanedPending"),
        "Evicting" => short("MemoryHigh"),
        _ => false,
    }
}

/// The labels that matter to who is held back. An alert has a stream or a group if its words name one.
#[derive(Clone, Debug, Default)]
struct Place {
    instance: String,
    stream: &'static str,
    group: &'static str,
}

fn labels(rule: &Rule, place: &Place) -> Value {
    let mut labels = json!({ "alertname": rule.name(), "job": "prompt-redis-exporter", "instance": place.instance });
    for name in ["severity", "component", "facility"] {
        labels[name] = rule.label(name).into();
    }
    for (name, value) in [("stream", place.stream), ("group", place.group)] {
        if rule.annotation("description").contains(&format!("$labels.{name}")) {
            labels[name] = value.into();
        }
    }
    labels
}

/// Tells Alertmanager of pairs, each at an instance of its own, and gives the second ones that are held back: as
/// (cause, other).
fn held_back(place: &Place, place_of_other: &Place) -> BTreeSet<(String, String)> {
    let (rules, dir) = (rules(ALERTS), TempDir::new().unwrap());
    let pairs = || rules.iter().flat_map(|cause| rules.iter().map(move |other| (cause, other)));
    let alerts = pairs().filter(|(cause, other)| cause.name() != other.name()).flat_map(|(cause, other)| {
        let instance = format!("{}/{}", cause.name(), other.name());
        let at = |place: &Place| Place { instance: instance.clone() + &place.instance, ..*place };
        [json!({ "labels": labels(cause, &at(place)) }), json!({ "labels": labels(other, &at(place_of_other)) })]
    });
    let alerts: Vec<_> = alerts.collect();
    let (_alertmanager, address) = start_alertmanager(Generation::Three, dir.path(), Receiver::start().address());
    let (status, said) = request(&address, "POST /api/v2/alerts", &json!(alerts).to_string()).unwrap();
    assert_eq!(status, 200, "{said}");
    let look = || serde_json::from_str::<Vec<Value>>(&fetch(&address, "/api/v2/alerts").unwrap().1).unwrap();
    // It looks for causes on its own time.
    let mut before = look();
    let known = within(Duration::from_secs(30), "Alertmanager has thought about it", || {
        thread::sleep(Duration::from_millis(200));
        let now = look();
        let is_settled = now == std::mem::replace(&mut before, now.clone());
        (is_settled && now.len() == alerts.len()).then_some(now)
    });
    let suppressed = known.iter().filter(|alert| alert["status"]["state"] == "suppressed");
    let pair = |alert: &Value| {
        let (cause, other) = alert["labels"]["instance"].as_str().unwrap().split_once('/').unwrap();
        let name = alert["labels"]["alertname"].as_str().unwrap();
        // The cause may be the second of the pair.
        if name == cause { (other.to_owned(), name.to_owned()) } else { (cause.to_owned(), name.to_owned()) }
    };
    suppressed.map(pair).collect()
}

#[test]
fn an_alert_holds_back_what_follows_from_it_and_nothing_else() {
    let here = Place { instance: String::new(), stream: "instrument:lsstcam", group: "lsstcam_consumer_group" };
    let held_back = held_back(&here, &here);
    let rules = rules(ALERTS);
    for cause in &rules {
        for other in rules.iter().filter(|other| other.name() != cause.name()) {
            let pair = (cause.name().to_owned(), other.name().to_owned());
            assert_eq!(held_back.contains(&pair), follows(cause.name(), other.name()), "{pair:?}");
            let round = (pair.1.clone(), pair.0.clone());
            assert!(!(held_back.contains(&pair) && held_back.contains(&round)), "{pair:?} would both be silent");
        }
    }
}

#[test]
fn nothing_is_held_back_by_what_happens_elsewhere() {
    let here = Place { instance: String::new(), stream: "instrument:lsstcam", group: "lsstcam_consumer_group" };
    let elsewhere = Place { instance: " elsewhere".into(), ..here.clone() };
    assert_eq!(held_back(&here, &elsewhere), BTreeSet::new(), "another exporter");
    let of_stream = |held_back: BTreeSet<(String, String)>| {
        let of_redis = ["ExporterDown", "Down", "AccessRefused", "WritesRefused", "Evicting"];
        let names = of_redis.map(|name| format!("PromptRedis{name}"));
        held_back.into_iter().filter(|(cause, _)| !names.contains(cause)).collect::<BTreeSet<_>>()
    };
    let another_stream = Place { stream: "instrument:hsc", group: "hsc_consumer_group", ..here.clone() };
    assert_eq!(of_stream(held_back(&here, &another_stream)), BTreeSet::new(), "another stream");
    let another_group = Place { group: "another", ..here.clone() };
    let of_group = of_stream(held_back(&here, &another_group));
    let about_stream =
        ["StreamMissing", "WrongType", "GroupMissing", "GroupGone"].map(|name| format!("PromptRedis{name}"));
    let of_the_stream = ["CollectionFailing", "TrimMissed", "NoArrivals"];
    for (cause, other) in of_group {
        let of_all = about_stream[..2].contains(&cause) || of_the_stream.iter().any(|name| other.ends_with(name));
        assert!(about_stream.contains(&cause) && of_all, "{cause} of one group holds back {other} of another");
    }
}
