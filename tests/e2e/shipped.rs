//! The files that we ship, read.

use std::{fs, path::PathBuf};

use serde_json::Value;

pub const ALERTS: &str = "alerts/prompt-redis.alerts.yaml";
pub const NEUTRAL: &str = "alerts/redis-streams.alerts.yaml";
pub const RULES: &str = "alerts/prompt-redis.rules.yaml";
pub const ALERTMANAGER: &str = "alerts/alertmanager.example.yaml";
pub const RUNBOOK: &str = "docs/runbook.md";
pub const OBSERVING: &str = "dashboards/prompt-redis-observing.json";
pub const CAPACITY: &str = "dashboards/prompt-redis-capacity.json";
pub const STREAMS: &str = "dashboards/redis-streams.json";
pub const BOARDS: [&str; 3] = [OBSERVING, CAPACITY, STREAMS];

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// YAML, of which JSON is a part.
pub fn yaml(text: &str) -> Value {
    yaml_serde::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

/// An alert or a recording rule.
#[derive(Debug)]
pub struct Rule(Value);

impl Rule {
    /// The name of the alert or of the recorded series.
    pub fn name(&self) -> &str {
        self.0["alert"].as_str().or_else(|| self.0["record"].as_str()).unwrap()
    }

    pub fn expr(&self) -> &str {
        self.0["expr"].as_str().unwrap()
    }

    /// How long it has to hold.
    pub fn holds(&self) -> &str {
        self.0["for"].as_str().unwrap_or("")
    }

    pub fn label(&self, name: &str) -> &str {
        self.0["labels"][name].as_str().unwrap_or("")
    }

    pub fn annotation(&self, name: &str) -> &str {
        self.0["annotations"][name].as_str().unwrap_or("")
    }
}

/// The rules of a file, in its order.
pub fn rules(name: &str) -> Vec<Rule> {
    let file = yaml(&text(name));
    let groups = file["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).map(Rule).collect()
}

/// The alert of this name.
pub fn alert(name: &str) -> Rule {
    rules(ALERTS).into_iter().find(|rule| rule.name() == name).unwrap_or_else(|| panic!("there is no alert {name}"))
}
