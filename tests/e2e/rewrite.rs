//! Makes the shipped files run faster, mechanically, so that a test need not wait for hours.
//!
//! The rule: every time in them is divided by one factor. A time is `for`, `keep_firing_for`, a group's `interval`, the
//! range, step and offset of a selector, and a number that is compared with a metric in seconds (its name ends in
//! `_seconds`). In Alertmanager's file, `group_wait`, `group_interval` and `repeat_interval`. Nothing else changes:
//! that is tested below. Scrapes, evaluations, the look-back and the simulated night run faster by the same factor, so
//! an hour is a minute for all of them.

use std::time::Duration;

use promql_parser::{
    parser::{Expr, Offset, VectorSelector},
    util::display_duration,
};
use serde_json::Value;

use crate::{
    promql::{children_mut, limits, metrics, parse},
    shipped::{ALERTMANAGER, ALERTS, RULES, Rule, rules, text, yaml},
};

/// An hour is a minute.
pub const FASTER: Pace = Pace { multiply: 1, divide: 60 };

/// What every time is multiplied with.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    multiply: u32,
    divide: u32,
}

impl Pace {
    fn of(self, time: Duration) -> Duration {
        time * self.multiply / self.divide
    }

    /// How long this took, seen from the files as they are shipped.
    pub fn slower(self, time: Duration) -> Duration {
        time * self.divide / self.multiply
    }

    /// A time as YAML has it.
    fn of_text(self, time: &str) -> String {
        display_duration(&self.of(humantime::parse_duration(time).unwrap_or_else(|error| panic!("{time}: {error}"))))
    }

    /// A file of rules.
    pub fn rules(self, file: &str) -> String {
        let mut file = yaml(file);
        for group in file["groups"].as_array_mut().unwrap() {
            self.fields(group, &["interval"]);
            for rule in group["rules"].as_array_mut().unwrap() {
                self.fields(rule, &["for", "keep_firing_for"]);
                let mut expr = parse(rule["expr"].as_str().unwrap());
                self.expression(&mut expr);
                rule["expr"] = expr.to_string().into();
            }
        }
        file.to_string()
    }

    /// A file of Alertmanager, whose receivers are all here.
    pub fn alertmanager(self, file: &str, receiver: &str) -> String {
        let mut file = yaml(file);
        self.routes(&mut file["route"]);
        for hook in
            file["receivers"].as_array_mut().unwrap().iter_mut().filter_map(|one| one.get_mut("webhook_configs"))
        {
            for config in hook.as_array_mut().unwrap() {
                let url = config["url"].as_str().unwrap().replace("127.0.0.1:9/", &format!("{receiver}/"));
                config["url"] = url.into();
            }
        }
        file.to_string()
    }

    fn routes(self, route: &mut Value) {
        self.fields(route, &["group_wait", "group_interval", "repeat_interval"]);
        for child in route.get_mut("routes").and_then(Value::as_array_mut).into_iter().flatten() {
            self.routes(child);
        }
    }

    fn fields(self, of: &mut Value, names: &[&str]) {
        for name in names {
            if let Some(time) = of.get_mut(name) {
                *time = self.of_text(time.as_str().unwrap()).into();
            }
        }
    }

    pub fn expression(self, expr: &mut Expr) {
        match expr {
            Expr::VectorSelector(vector) => self.selector(vector),
            Expr::MatrixSelector(matrix) => {
                matrix.range = self.of(matrix.range);
                self.selector(&mut matrix.vs);
            }
            Expr::Subquery(subquery) => {
                subquery.range = self.of(subquery.range);
                subquery.step = subquery.step.map(|step| self.of(step));
                self.offset(&mut subquery.offset);
            }
            Expr::Binary(binary) if binary.op.is_comparison_operator() && is_time(&binary.lhs) => {
                if let Expr::NumberLiteral(seconds) = &mut *binary.rhs {
                    seconds.val = seconds.val * f64::from(self.multiply) / f64::from(self.divide);
                }
            }
            _ => {}
        }
        for child in children_mut(expr) {
            self.expression(child);
        }
    }

    fn selector(self, vector: &mut VectorSelector) {
        assert!(vector.at.is_none(), "nothing shipped looks at a fixed time");
        self.offset(&mut vector.offset);
    }

    fn offset(self, offset: &mut Option<Offset>) {
        *offset = match offset.take() {
            Some(Offset::Pos(back)) => Some(Offset::Pos(self.of(back))),
            Some(Offset::Neg(ahead)) => Some(Offset::Neg(self.of(ahead))),
            None => None,
        };
    }
}

fn is_time(expr: &Expr) -> bool {
    metrics(expr).iter().any(|metric| metric.ends_with("_seconds"))
}

const SLOWER: Pace = Pace { multiply: 60, divide: 1 };

/// The file with its expressions written as the parser writes them.
fn parsed(file: &str) -> String {
    Pace { multiply: 1, divide: 1 }.rules(file)
}

#[test]
fn what_was_made_faster_and_slower_again_is_what_we_ship() {
    for name in [ALERTS, RULES] {
        let shipped = text(name);
        let faster = FASTER.rules(&shipped);
        assert_ne!(faster, parsed(&shipped));
        assert_eq!(SLOWER.rules(&faster), parsed(&shipped), "{name}");
    }
    let (shipped, here) = (text(ALERTMANAGER), "127.0.0.1:9");
    let faster = FASTER.alertmanager(&shipped, here);
    let parsed = |file: &str| Pace { multiply: 1, divide: 1 }.alertmanager(file, here);
    assert_eq!(SLOWER.alertmanager(&faster, here), parsed(&shipped));
}

#[test]
fn the_parser_writes_what_it_read() {
    for rule in [ALERTS, RULES].iter().flat_map(|name| rules(name)) {
        let expr = parse(rule.expr());
        assert_eq!(parse(&expr.to_string()), expr, "{}", rule.name());
    }
}

#[test]
fn only_ages_are_taken_for_times() {
    let scaled = |rule: &Rule| {
        let mut expr = parse(rule.expr());
        let before = limits(&expr);
        FASTER.expression(&mut expr);
        before.into_iter().zip(limits(&expr)).filter(|(before, after)| before != after).map(|(before, _)| before)
    };
    let mut seen: Vec<f64> = rules(ALERTS).iter().flat_map(scaled).collect();
    seen.sort_by(f64::total_cmp);
    assert_eq!(seen, [60.0, 120.0, 120.0, 180.0, 180.0, 300.0, 300.0, 900.0, 2700.0, 3600.0, 3600.0, 7200.0]);
}

#[test]
fn every_kind_of_time_is_changed_and_nothing_else() {
    for (shipped, faster) in [
        ("rate(a[5m]) > 3", "rate(a[5s]) > 3"),
        ("a_seconds > 180", "a_seconds > 3"),
        ("a_seconds > bool 90", "a_seconds > bool 1.5"),
        ("a offset 1m", "a offset 1s"),
        ("(a_seconds or b unless on (job) up == 1) > 60", "(a_seconds or b unless on (job) up == 1) > 1"),
        ("max_over_time(a[26h:5m] offset 1h)", "max_over_time(a[26m:5s] offset 1m)"),
        ("delta(a[90s]) / 60", "delta(a[1s500ms]) / 60"),
        ("vector(time() - 43163)", "vector(time() - 43163)"),
    ] {
        let mut expr = parse(shipped);
        FASTER.expression(&mut expr);
        assert_eq!(expr.to_string(), faster);
    }
}
