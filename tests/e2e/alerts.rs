//! The rule files and the routes, as Prometheus's own tools read them; the alerts, held against the design.

use std::collections::BTreeSet;

use prompt_redis_exporter::exposition::metrics::families;
use tempfile::TempDir;

use crate::{
    promql::{metrics, parse},
    runbook::{anchors, is_command},
    shipped::{ALERTMANAGER, ALERTS, NEUTRAL, RULES, STREAMS, path, rules, text},
    stack::{Generation, tool},
    unaligned::unaligned,
};

/// Name, for how long, severity: others route on these.
const DESIGN: [(&str, &str, &str); 26] = [
    ("PromptRedisExporterDown", "3m", "critical"),
    ("PromptRedisDown", "1m", "critical"),
    ("PromptRedisAccessRefused", "1m", "critical"),
    ("PromptRedisStreamMissing", "2m", "critical"),
    ("PromptRedisWrongType", "0m", "critical"),
    ("PromptRedisGroupMissing", "2m", "critical"),
    ("PromptRedisGroupGone", "2m", "critical"),
    ("PromptRedisPatternEmpty", "10m", "warning"),
    ("PromptRedisWritesRefused", "0m", "critical"),
    ("PromptRedisNoArrivals", "0m", "info"),
    ("PromptRedisCollectionFailing", "5m", "warning"),
    ("PromptRedisDeliveryStalled", "30s", "critical"),
    ("PromptRedisDeliveryLate", "3m", "warning"),
    ("PromptRedisDeliveryTooLate", "2m", "critical"),
    ("PromptRedisMessagesExpiring", "0m", "critical"),
    ("PromptRedisBacklogBeyondWorkers", "3m", "critical"),
    ("PromptRedisPendingBuildUp", "2m", "critical"),
    ("PromptRedisPendingNotAcked", "5m", "warning"),
    ("PromptRedisOrphanedPending", "1h", "info"),
    ("PromptRedisMessagesLost", "0m", "warning"),
    ("PromptRedisPhantomLag", "10m", "warning"),
    ("PromptRedisLagUnknown", "5m", "warning"),
    ("PromptRedisTrimMissed", "10m", "warning"),
    ("PromptRedisConsumerLeak", "1h", "warning"),
    ("PromptRedisMemoryHigh", "10m", "warning"),
    ("PromptRedisEvicting", "0m", "critical"),
];

fn passes(generation: Generation, name: &str, args: &[&str]) -> String {
    tool(generation, name, args).unwrap_or_else(|said| panic!("{generation:?}: {name} {args:?}:\n{said}"))
}

#[test]
fn promtool_finds_nothing_wrong_with_the_rules() {
    for generation in Generation::BOTH {
        assert!(passes(generation, "promtool", &["check", "rules", ALERTS, NEUTRAL, RULES]).contains("SUCCESS"));
    }
}

#[test]
fn promtools_own_tests_of_the_rules_pass() {
    let dir = TempDir::new().unwrap();
    let entries = std::fs::read_dir(path("alerts/tests")).unwrap().map(|entry| entry.unwrap().path());
    let tests = entries.filter(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    let names = tests.filter_map(|file| file.file_name()?.to_str().map(str::to_owned));
    let files: Vec<_> = names.flat_map(|name| unaligned(&format!("alerts/tests/{name}"), dir.path())).collect();
    assert!(files.len() >= 10, "{files:?}");
    let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
    std::thread::scope(|scope| {
        for generation in Generation::BOTH {
            let files = &files;
            scope.spawn(move || passes(generation, "promtool", &[&["test", "rules"], &**files].concat()));
        }
    });
}

#[test]
fn amtool_finds_nothing_wrong_with_the_routes() {
    for generation in Generation::BOTH {
        passes(generation, "amtool", &["check-config", ALERTMANAGER]);
    }
}

#[test]
fn everybody_hears_what_they_should() {
    let routes = text("alerts/tests/routes.txt");
    let lines: Vec<_> = routes.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert!(lines.len() >= 10, "{routes}");
    let config = format!("--config.file={ALERTMANAGER}");
    for line in lines {
        let (labels, receiver) = line.split_once(" => ").unwrap();
        let receiver = format!("--verify.receivers={receiver}");
        let labels: Vec<_> = labels.split(' ').collect();
        for generation in Generation::BOTH {
            passes(generation, "amtool", &[&["config", "routes", "test", &config, &receiver], &*labels].concat());
        }
    }
}

#[test]
fn every_alert_of_the_design_is_there_with_its_labels() {
    let alerts = rules(ALERTS);
    let found: BTreeSet<_> =
        alerts.iter().map(|alert| (alert.name(), alert.holds(), alert.label("severity"))).collect();
    assert_eq!(found, DESIGN.into_iter().collect());
    for alert in &alerts {
        assert_eq!(alert.label("component"), "prompt-redis", "{}", alert.name());
        assert_eq!(alert.label("facility"), "Rubin", "{}", alert.name());
    }
}

#[test]
fn every_alert_says_what_it_is_and_where_to_go_on() {
    let sections = anchors();
    for alert in rules(ALERTS) {
        for annotation in ["summary", "description", "descriptionresolved", "runbook_url", "dashboard_url"] {
            assert!(!alert.annotation(annotation).trim().is_empty(), "{} has no {annotation}", alert.name());
        }
        let (page, anchor) = alert.annotation("runbook_url").split_once('#').unwrap();
        assert!(page.ends_with("/docs/runbook.md"), "{page}");
        assert_eq!(anchor, alert.name().to_lowercase());
        assert!(sections.contains(anchor), "the runbook has no section {anchor}");
        let board = "{{ $externalLabels.grafana_url }}/d/prompt-redis-observing";
        assert!(alert.annotation("dashboard_url").starts_with(board), "{}", alert.name());
        let commands = alert.annotation("description").lines().filter(|line| is_command(line));
        assert!(commands.count() > 0, "{} gives no command to type", alert.name());
    }
}

/// Metrics of others: Prometheus's own, and those of kube-state-metrics.
pub const OF_OTHERS: [&str; 6] = [
    "up",
    "ALERTS",
    "kube_pod_container_resource_limits",
    "kube_pod_container_status_running",
    "kube_pod_container_state_started",
    "kube_pod_created",
];

#[test]
fn every_neutral_alert_leads_to_its_board() {
    for alert in rules(NEUTRAL).into_iter().filter(|rule| !rule.holds().is_empty()) {
        let board = "{{ $externalLabels.grafana_url }}/d/redis-streams";
        assert!(alert.annotation("dashboard_url").starts_with(board), "{}", alert.name());
    }
}

#[test]
fn the_neutral_alerts_and_their_board_speak_of_no_observatory() {
    let file = text(NEUTRAL);
    let rules = file.split_once("groups:").unwrap().1.to_lowercase() + &text(STREAMS).to_lowercase();
    for word in ["night", "visit", "keda", "kubectl", "instrument", "rubin", "worker", "detector"] {
        assert!(!rules.contains(word), "{word}");
    }
}

#[test]
fn every_metric_in_a_rule_is_one_of_the_exporters() {
    let known: BTreeSet<_> = families().iter().map(|family| family.name.to_owned()).collect();
    let recorded: BTreeSet<_> = rules(RULES).iter().chain(&rules(NEUTRAL)).map(|rule| rule.name().to_owned()).collect();
    for rule in rules(RULES) {
        for metric in metrics(&parse(rule.expr())) {
            let is_raw = known.contains(&metric) || metric.starts_with("kube_") && OF_OTHERS.contains(&&*metric);
            assert!(is_raw, "{} asks for {metric}: a rule reads raw metrics only", rule.name());
        }
    }
    for alert in rules(ALERTS).into_iter().chain(rules(NEUTRAL)) {
        for metric in metrics(&parse(alert.expr())) {
            let is_known = known.contains(&metric) || recorded.contains(&metric) || OF_OTHERS.contains(&&*metric);
            assert!(is_known, "{} asks for {metric}", alert.name());
        }
    }
}
