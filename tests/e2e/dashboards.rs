//! The boards as files: what dashboard-linter asks for, and what we ask for beyond it.
//!
//! Each check is a function from a board to what is wrong with it. Each is proven able to fail by a copy of a board that
//! is spoilt on purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prompt_redis_exporter::exposition::metrics::families;
use promql_parser::parser::Expr;
use serde_json::{Value, json};

use crate::{
    alerts::OF_OTHERS,
    grafana::{filled, panels},
    promql::{Selector, limits, metrics, parse, selectors},
    shipped::{BOARDS, CAPACITY, NEUTRAL, OBSERVING, RULES, STREAMS, alert, rules, text},
};

/// What `$__rate_interval` is filled with here: no expression has it by chance.
const RATE_INTERVAL: Duration = Duration::from_secs(1_234);
const CHAIN: [&str; 4] = ["job", "instance", "stream", "group"];
const UNITS: [&str; 12] = [
    "none",
    "string",
    "percentunit",
    "locale",
    "bytes",
    "s",
    "m",
    "h",
    "dtdurations",
    "dateTimeAsIsoNoDateIfToday",
    "cps",
    "cpm",
];

fn board(name: &str) -> Value {
    serde_json::from_str(&text(name)).unwrap()
}

/// Something that must hold for a board, and a way to spoil a board so that it does not.
struct Check {
    name: &'static str,
    faults: fn(&Value) -> Vec<String>,
    spoil: fn(&mut Value),
}

const CHECKS: [Check; 12] = [
    Check { name: "head", faults: head, spoil: |board| board["editable"] = true.into() },
    Check {
        name: "variables",
        faults: variables,
        spoil: |board| board["templating"]["list"][1]["multi"] = false.into(),
    },
    Check {
        name: "datasource",
        faults: datasource,
        spoil: |board| shown(board)["targets"][0]["datasource"]["uid"] = "P1809F7CD0C75ACF3".into(),
    },
    Check {
        name: "title and description",
        faults: title_and_description,
        spoil: |board| shown(board)["description"] = "".into(),
    },
    Check {
        name: "unit",
        faults: unit,
        spoil: |board| shown(board)["fieldConfig"]["defaults"]["unit"] = "parsecs".into(),
    },
    Check { name: "links", faults: links, spoil: |board| shown(board)["links"] = json!([]) },
    Check {
        name: "matchers",
        faults: matchers,
        spoil: |board| edit(board, "instance=~\"$instance\"", "instance=\"$instance\""),
    },
    Check {
        name: "rate interval",
        faults: rate_interval,
        spoil: |board| shown(board)["targets"][0]["expr"] = "rate(redis_evicted_keys_total[5m])".into(),
    },
    Check {
        name: "counters",
        faults: counters,
        spoil: |board| shown(board)["targets"][0]["expr"] = "max_over_time(redis_evicted_keys_total[5m])".into(),
    },
    Check {
        name: "metrics",
        faults: unknown_metrics,
        spoil: |board| shown(board)["targets"][0]["expr"] = "redis_stream_group_lagg".into(),
    },
    Check { name: "thresholds", faults: thresholds, spoil: |board| edit(board, "\"value\":60}", "\"value\":61}") },
    Check { name: "layout", faults: layout, spoil: |board| shown(board)["gridPos"]["w"] = 25.into() },
];

#[test]
fn every_check_holds_for_every_board() {
    for name in BOARDS {
        for check in CHECKS {
            assert_eq!((check.faults)(&board(name)), Vec::<String>::new(), "{name}: {}", check.name);
        }
    }
}

#[test]
fn every_check_can_fail_and_no_other_fails_with_it() {
    for name in BOARDS {
        for check in CHECKS {
            let mut spoilt = board(name);
            (check.spoil)(&mut spoilt);
            assert_ne!(spoilt, board(name), "{name}: {} spoils nothing", check.name);
            assert_ne!((check.faults)(&spoilt), Vec::<String>::new(), "{name}: {} sees nothing", check.name);
        }
    }
}

#[test]
fn two_panels_in_one_place_are_seen() {
    let mut spoilt = board(OBSERVING);
    spoilt["panels"][2]["gridPos"] = spoilt["panels"][1]["gridPos"].clone();
    assert!(layout(&spoilt).iter().any(|fault| fault.contains("overlaps")));
}

#[test]
fn times_and_names_are_as_designed() {
    let (observing, capacity) = (board(OBSERVING), board(CAPACITY));
    let uids = BOARDS.map(|name| board(name)["uid"].clone());
    assert_eq!(uids, ["prompt-redis-observing", "prompt-redis-capacity", "redis-streams"].map(|uid| json!(uid)));
    assert_eq!(observing["time"], json!({ "from": "now-3h", "to": "now" }));
    assert_eq!(observing["refresh"], "10s");
    assert_eq!(capacity["time"], json!({ "from": "now-30d", "to": "now" }));
    let columns = crate::panels::night_table(&capacity).columns;
    for column in
        ["Entries", "Visits", "Peak backlog", "p95 age", "Worst age", "Above 60 s", "Peak drain", "New workers"]
    {
        assert!(columns.contains_key(column), "{column} is not in {columns:?}");
    }
    for column in ["Not acknowledged", "Lost", "Resets"] {
        assert!(columns.contains_key(column), "{column} is not in {columns:?}");
    }
}

/// A screen of 1080 lines shows 22 rows of a board below the browser's and Grafana's own bars.
#[test]
fn the_first_row_of_each_live_board_fits_on_a_screen() {
    for name in [OBSERVING, STREAMS] {
        let board = board(name);
        let headings = board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "row");
        let second = headings.skip(1).map(|row| row["gridPos"]["y"].as_u64().unwrap()).next().unwrap();
        assert!(second <= 22, "{name}: the second row begins at {second}");
    }
    let board = board(OBSERVING);
    let first: BTreeSet<_> =
        panels(&board).into_iter().filter(|panel| panel["gridPos"]["y"].as_u64() < Some(15)).map(title).collect();
    for tile in ["Last delivery", "Refused writes", "Why Redis is down", "Live workers", "Oldest undelivered"] {
        assert!(first.contains(tile), "{tile} is not in {first:?}");
    }
}

/// The first panel that is no heading.
fn shown(board: &mut Value) -> &mut Value {
    board["panels"].as_array_mut().unwrap().iter_mut().find(|panel| panel["type"] != "row").unwrap()
}

/// Changes every such text of a board.
fn edit(board: &mut Value, from: &str, to: &str) {
    let escaped = |text: &str| if text.starts_with('"') { text.to_owned() } else { text.replace('"', "\\\"") };
    *board = serde_json::from_str(&board.to_string().replace(&escaped(from), &escaped(to))).unwrap();
}

fn title(panel: &Value) -> &str {
    panel["title"].as_str().unwrap_or("")
}

/// A panel's thresholds, without the colour below all of them.
fn steps(panel: &Value) -> Vec<f64> {
    let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array();
    steps.into_iter().flatten().filter_map(|step| step["value"].as_f64()).collect()
}

/// An expression with its variables filled in, each with its own name.
fn expression(text: &str) -> Expr {
    let own = ["job", "instance", "stream", "group", "day_obs"].map(|name| (name.to_owned(), name.to_owned()));
    let mut values = BTreeMap::from(own);
    values.insert("__rate_interval".into(), format!("{}s", RATE_INTERVAL.as_secs()));
    values.extend([("__interval", "60s"), ("__range", "3600s")].map(|(name, value)| (name.into(), value.into())));
    parse(&filled(text, &values))
}

/// Where it stands, and the expression.
fn targets(board: &Value) -> Vec<(&str, &str)> {
    panels(board).into_iter().flat_map(|panel| targets_of(panel).map(move |query| (title(panel), query))).collect()
}

/// The targets and the annotations.
fn queries(board: &Value) -> Vec<(&str, &str)> {
    let annotations = board["annotations"]["list"].as_array().unwrap().iter();
    let annotations = annotations.map(|one| (one["name"].as_str().unwrap(), one["expr"].as_str().unwrap()));
    targets(board).into_iter().chain(annotations).collect()
}

/// What each selector of each query has to say against it.
fn each_selector(board: &Value, fault: impl Fn(&Selector) -> Option<String>) -> Vec<String> {
    let each = queries(board).into_iter().flat_map(|(place, query)| {
        let faults: Vec<_> = selectors(&expression(query)).iter().filter_map(&fault).collect();
        faults.into_iter().map(move |fault| format!("{place}: {fault}"))
    });
    each.collect()
}

fn head(board: &Value) -> Vec<String> {
    let wanted = json!({ "editable": false, "schemaVersion": 39, "timezone": "utc", "id": null });
    let wrong = wanted.as_object().unwrap().iter().filter(|(name, value)| board[name.as_str()] != **value);
    let mut faults: Vec<_> = wrong.map(|(name, _)| format!("{name} is {}", board[name.as_str()])).collect();
    for field in ["uid", "title", "description"] {
        if board[field].as_str().is_none_or(str::is_empty) {
            faults.push(format!("no {field}"));
        }
    }
    faults
}

fn variables(board: &Value) -> Vec<String> {
    let list = board["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = list.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    let mut faults = Vec::new();
    if names[..5] != ["datasource", "job", "instance", "stream", "group"] {
        faults.push(format!("variables {names:?}"));
    }
    if list[0]["type"] != "datasource" || list[0]["query"] != "prometheus" || list[0]["label"] != "Data source" {
        faults.push("the data source is no variable as dashboard-linter wants it".to_owned());
    }
    for variable in &list[1..] {
        let name = variable["name"].as_str().unwrap();
        let from = variable["datasource"]["uid"] == "${datasource}" && variable["type"] == "query";
        // 2: asked again when the time range changes.
        if !from || variable["refresh"] != 2 {
            faults.push(format!("{name} is not asked of the data source"));
        }
        let all = variable["multi"] == true && variable["includeAll"] == true && variable["allValue"] == ".+";
        if CHAIN.contains(&name) && !all {
            faults.push(format!("{name} cannot be all"));
        }
        let labelled = !["job", "instance"].contains(&name) || variable["label"] == name;
        if !labelled {
            faults.push(format!("{name} is labelled {}", variable["label"]));
        }
    }
    faults
}

fn datasource(board: &Value) -> Vec<String> {
    let asks = |of: &Value| of["datasource"] == json!({ "type": "prometheus", "uid": "${datasource}" });
    let mut faults = Vec::new();
    for panel in panels(board) {
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        if targets.is_empty() {
            faults.push(format!("{}: no query", title(panel)));
        }
        if !asks(panel) || !targets.iter().all(asks) {
            faults.push(format!("{}: another source", title(panel)));
        }
        let names: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str()).collect();
        if names.len() != targets.len() {
            faults.push(format!("{}: a refId twice", title(panel)));
        }
    }
    let annotations = board["annotations"]["list"].as_array().unwrap().iter().filter(|one| !asks(one));
    faults.extend(annotations.map(|one| format!("annotation {}: another source", one["name"])));
    faults
}

fn title_and_description(board: &Value) -> Vec<String> {
    let lacks = |panel: &&Value| ["title", "description"].iter().any(|of| panel[of].as_str().is_none_or(str::is_empty));
    panels(board).into_iter().filter(lacks).map(|panel| format!("panel {}", panel["id"])).collect()
}

fn unit(board: &Value) -> Vec<String> {
    let of = |panel: &Value| panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or("").to_owned();
    let wrong = panels(board).into_iter().filter(|panel| !UNITS.contains(&&*of(panel)));
    wrong.map(|panel| format!("{}: {}", title(panel), of(panel))).collect()
}

fn links(board: &Value) -> Vec<String> {
    // The runbook is for Prompt Redis; elsewhere the list of metrics says what a panel shows.
    let document = if is_neutral(board) { "/docs/metrics.md" } else { "/docs/runbook.md" };
    let to_document = |link: &Value| link["url"].as_str().is_some_and(|url| url.contains(document));
    let leads = |panel: &Value| panel["links"].as_array().is_some_and(|links| links.iter().any(to_document));
    panels(board).into_iter().filter(|panel| !leads(panel)).map(|panel| title(panel).to_owned()).collect()
}

/// The labels that a metric has, of those that are variables.
fn chain_of(metric: &str) -> &'static [&'static str] {
    let is = |starts: &[&str]| starts.iter().any(|start| metric.starts_with(start));
    if is(&["redis_stream_group_", "stream_group:", "stream_group_day_obs:"]) {
        &CHAIN
    } else if is(&["redis_stream_", "stream:", "stream_day_obs:", "prompt_redis_exporter_stream_collected"]) {
        &CHAIN[..3]
    } else {
        &CHAIN[..2]
    }
}

fn matchers(board: &Value) -> Vec<String> {
    each_selector(board, |selector| {
        // kube-state-metrics has a job and an instance of its own.
        if selector.metric.starts_with("kube_") {
            return None;
        }
        let missing = chain_of(&selector.metric).iter().find(|label| !selector.matches(label, label));
        missing.map(|label| format!("{} is not limited to ${label}", selector.metric))
    })
}

/// A rate looks back as far as `$__rate_interval` says, which knows the scrape interval and the width of the panel.
fn rate_interval(board: &Value) -> Vec<String> {
    each_selector(board, |selector| {
        let is_rate = selector.inside.iter().any(|function| ["rate", "irate"].contains(function));
        let wrong = is_rate && selector.range != Some(RATE_INTERVAL);
        wrong.then(|| format!("a rate of {} without $__rate_interval", selector.metric))
    })
}

/// A counter is shown by its rate, its increase, or its difference from an earlier value. In annotations it may be compared
/// with itself: a reset.
fn counters(board: &Value) -> Vec<String> {
    let is_right = |query: &str| {
        let selectors = selectors(&expression(query));
        let has_earlier = |metric: &str| selectors.iter().any(|other| other.earlier && other.metric == metric);
        let in_rate = |selector: &Selector| selector.inside.iter().any(|of| ["rate", "irate", "increase"].contains(of));
        let is_counter = |selector: &&Selector| selector.metric.ends_with("_total");
        selectors.iter().filter(is_counter).all(|counter| in_rate(counter) || has_earlier(&counter.metric))
    };
    let wrong = targets(board).into_iter().filter(|(_, query)| !is_right(query));
    wrong.map(|(title, query)| format!("{title}: {query}")).collect()
}

fn unknown_metrics(board: &Value) -> Vec<String> {
    let mut known: BTreeSet<_> = families().iter().map(|family| family.name.to_owned()).collect();
    known.extend(rules(RULES).iter().map(|rule| rule.name().to_owned()));
    known.extend(OF_OTHERS.map(str::to_owned));
    each_selector(board, |selector| (!known.contains(&selector.metric)).then(|| selector.metric.clone()))
}

fn is_neutral(board: &Value) -> bool {
    board["uid"] == "redis-streams"
}

/// The number that decides whether an alert fires. More than 0 of something whole is 1.
fn limit(name: &str) -> f64 {
    let first = limits(&parse(alert(name).expr())).first().copied().unwrap_or(0.0);
    first.max(if name == "PromptRedisMemoryHigh" { 0.0 } else { 1.0 })
}

/// The same for an alert of the neutral file, whose thresholds are series of their own.
fn neutral_limit(name: &str) -> f64 {
    let rules = rules(NEUTRAL);
    let expr = |name: &str| parse(rules.iter().find(|rule| rule.name() == name).unwrap().expr());
    let threshold = metrics(&expr(name)).into_iter().find(|metric| metric.starts_with("redis_streams:threshold:"));
    let value = threshold.map(|threshold| match expr(&threshold) {
        Expr::Call(call) => match &*call.args.args[0] {
            Expr::NumberLiteral(number) => number.val,
            other => panic!("{threshold} is {other}"),
        },
        other => panic!("{threshold} is {other}"),
    });
    // More deliveries than so many.
    value.map_or(1.0, |value| if name == "RedisStreamPoisonMessage" { value + 1.0 } else { value })
}

/// The neutral alerts whose numbers a panel's thresholds are.
fn neutral_alerts_of(panel: &Value) -> &'static [&'static str] {
    match title(panel) {
        "Oldest undelivered" | "Age of the oldest undelivered message" => {
            &["RedisStreamDeliveryLate", "RedisStreamDeliveryStalled"]
        }
        "Oldest pending, untouched" | "Oldest pending message, untouched" => &["RedisStreamPendingStuck"],
        "Oldest pending, deliveries" | "Oldest pending message, deliveries" => &["RedisStreamPoisonMessage"],
        "Lost in this range" => &["RedisStreamMessagesLost"],
        "Refused writes" => &["RedisWritesRefused"],
        "Memory, share of the limit" => &["RedisMemoryHigh"],
        _ => &[],
    }
}

/// The alerts whose numbers a panel's thresholds are.
fn alerts_of(panel: &Value) -> &'static [&'static str] {
    match title(panel) {
        "Oldest undelivered" | "Age of the oldest undelivered message" | "Worst age" | "95th percentile of the age" => {
            &["PromptRedisDeliveryLate", "PromptRedisDeliveryTooLate", "PromptRedisMessagesExpiring"]
        }
        "Messages behind"
        | "Visits behind"
        | "Lag against the exact backlog"
        | "Backlog of the night"
        | "Peak backlog" => &["PromptRedisBacklogBeyondWorkers"],
        "Pending growth" => &["PromptRedisPendingNotAcked", "PromptRedisPendingBuildUp"],
        "Pending growth in half an hour" => &["PromptRedisPendingBuildUp"],
        "Why Redis is down" => &["PromptRedisDown"],
        "Refused writes" => &["PromptRedisWritesRefused"],
        "Phantom lag" => &["PromptRedisPhantomLag"],
        "Lost in this range" => &["PromptRedisMessagesLost"],
        "Stream length" => &["PromptRedisTrimMissed"],
        "Consumers in the group" => &["PromptRedisConsumerLeak"],
        "Memory, share of the limit" => &["PromptRedisMemoryHigh"],
        _ => &[],
    }
}

fn thresholds(board: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for panel in panels(board) {
        let neutral = is_neutral(board);
        let (steps, alerts) = (steps(panel), if neutral { neutral_alerts_of(panel) } else { alerts_of(panel) });
        let names: BTreeSet<_> = targets_of(panel).flat_map(|query| metrics(&expression(query))).collect();
        // 1 is there, 0 is not: no alert has a number for that.
        let is_flag = names.iter().all(|name| name.ends_with("_exists") || is_up(name));
        let expected: Vec<_> =
            alerts.iter().map(|name| if neutral { neutral_limit(name) } else { limit(name) }).collect();
        // A visit is 172 messages; the board rounds.
        let scale = if title(panel) == "Visits behind" { 172.0 } else { 1.0 };
        let equal = |(step, limit): (&f64, &f64)| (step * scale - limit).abs() < 0.005 * scale;
        let is_right = steps.len() == expected.len() && steps.iter().zip(&expected).all(equal);
        if !(is_right || is_flag && steps == [1.0]) {
            faults.push(format!("{}: {steps:?} and not {expected:?} of {alerts:?}", title(panel)));
        }
    }
    faults
}

fn is_up(metric: &str) -> bool {
    let flags = [
        "up",
        "redis_up",
        "prompt_redis_exporter_build_info",
        "prompt_redis_exporter_stream_collected",
        "redis_aof_last_write_status",
    ];
    flags.contains(&metric)
}

fn targets_of(panel: &Value) -> impl Iterator<Item = &str> {
    panel["targets"].as_array().into_iter().flatten().map(|target| target["expr"].as_str().unwrap())
}

/// Nothing stands in another's place, and nothing stands out of the 24 columns.
fn layout(board: &Value) -> Vec<String> {
    let (mut faults, mut taken) = (Vec::new(), BTreeMap::new());
    for panel in board["panels"].as_array().unwrap() {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        if x + w > 24 {
            faults.push(format!("{} leaves the 24 columns", title(panel)));
        }
        let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
        let other = cells.into_iter().find_map(|cell| taken.insert(cell, title(panel)));
        faults.extend(other.map(|other| format!("{} overlaps {other}", title(panel))));
    }
    faults
}
