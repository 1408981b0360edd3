//! What Grafana does with a board's queries before Prometheus sees them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::stack::Prometheus;

/// The data source's scrape interval, in seconds.
const SCRAPE: u64 = 15;
/// A column's width, in pixels: a panel shows at most a point a pixel.
const COLUMN: u64 = 75;
/// The steps that Grafana rounds to, in seconds.
const NICE: [u64; 17] = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 86_400];

pub type Variables = BTreeMap<String, String>;

/// The panels that show something.
pub fn panels(board: &Value) -> Vec<&Value> {
    board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

/// Puts values in the place of `$name` and `${name}`. A number is no variable: `$1` is a group of a regular expression.
pub fn filled(text: &str, values: &Variables) -> String {
    let mut parts = text.split('$');
    let mut filled = parts.next().unwrap().to_owned();
    for part in parts {
        let in_braces = part.strip_prefix('{').and_then(|part| part.split_once('}'));
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
        let (name, rest) = in_braces.unwrap_or_else(|| part.split_at(end));
        if name.parse::<u8>().is_ok() {
            filled.push('$');
            filled.push_str(name);
        } else {
            filled.push_str(values.get(name).unwrap_or_else(|| panic!("${name} has no value: {text}")));
        }
        filled.push_str(rest);
    }
    filled
}

/// A time range, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub start: u64,
    pub end: u64,
}

impl Range {
    pub fn until(end: u64, length: u64) -> Self {
        Self { start: end - length, end }
    }

    fn length(self) -> u64 {
        self.end - self.start
    }

    /// The step of a panel.
    fn step(self, panel: &Value) -> u64 {
        let points = panel["maxDataPoints"].as_u64().unwrap_or(panel["gridPos"]["w"].as_u64().unwrap() * COLUMN);
        let least =
            panel["interval"].as_str().map_or(SCRAPE, |least| humantime::parse_duration(least).unwrap().as_secs());
        let nice = NICE.into_iter().find(|step| step * points >= self.length()).unwrap_or(86_400);
        nice.max(least).max(self.length().div_ceil(11_000))
    }

    fn own_variables(self, step: u64) -> Variables {
        let rate = (step + SCRAPE).max(4 * SCRAPE);
        let values = [("__interval", step), ("__rate_interval", rate), ("__range", self.length())];
        values.map(|(name, seconds)| (name.to_owned(), format!("{seconds}s"))).into()
    }
}

/// The answers to a board's queries.
pub struct Grafana<'a> {
    pub prometheus: &'a Prometheus,
    pub range: Range,
    pub variables: Variables,
}

impl<'a> Grafana<'a> {
    /// Opens a board: fills in its variables, one after the other. Those that can be all are.
    pub fn open(prometheus: &'a Prometheus, board: &Value, range: Range) -> Self {
        let mut grafana = Self { prometheus, range, variables: Variables::new() };
        for variable in board["templating"]["list"].as_array().unwrap() {
            if let Some(query) = variable["query"]["query"].as_str() {
                let values = grafana.label_values(query);
                assert!(!values.is_empty(), "the variable {} has no value", variable["name"]);
                let all = variable["allValue"].as_str().map(str::to_owned);
                let value = all.unwrap_or_else(|| values.into_iter().next_back().unwrap());
                grafana.variables.insert(variable["name"].as_str().unwrap().to_owned(), value);
            }
        }
        grafana
    }

    /// `label_values(selector, label)`, sorted.
    fn label_values(&self, query: &str) -> Vec<String> {
        let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')')).unwrap();
        let (selector, label) = inner.rsplit_once(", ").unwrap();
        let (start, end) = (self.range.start.to_string(), self.range.end.to_string());
        let selector = filled(selector, &self.variables);
        let parameters = [("match[]", &*selector), ("start", &start), ("end", &end)];
        let series = self.prometheus.ask("series", &parameters).unwrap();
        let values = series.as_array().unwrap().iter().filter_map(|one| one[label].as_str());
        values.map(str::to_owned).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// What a target of a panel shows: series, each with its labels and its samples.
    pub fn ask(&self, panel: &Value, target: &Value) -> Result<Vec<Value>, String> {
        self.ask_with_step(target["expr"].as_str().unwrap(), target["instant"] == true, self.range.step(panel))
    }

    /// The times that an annotation marks.
    pub fn ask_annotation(&self, annotation: &Value) -> Result<Vec<Value>, String> {
        let step = self.range.length().div_ceil(1_800).max(60);
        self.ask_with_step(annotation["expr"].as_str().unwrap(), false, step)
    }

    fn ask_with_step(&self, expr: &str, instant: bool, step: u64) -> Result<Vec<Value>, String> {
        let mut variables = self.variables.clone();
        variables.extend(self.range.own_variables(step));
        let expr = filled(expr, &variables);
        // Grafana aligns the ends of a range to its step.
        let [start, end] = [self.range.start, self.range.end].map(|time| (time - time % step).to_string());
        let (now, step) = (self.range.end.to_string(), step.to_string());
        let answer = if instant {
            self.prometheus.ask("query", &[("query", &expr), ("time", &now)])
        } else {
            let parameters = [("query", &*expr), ("start", &start), ("end", &end), ("step", &step)];
            self.prometheus.ask("query_range", &parameters)
        };
        answer.map(|data| data["result"].as_array().unwrap().clone()).map_err(|error| format!("{error}: {expr}"))
    }
}
