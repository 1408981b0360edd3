//! The page for people: HTML that is complete without its script. The script refreshes it, copies commands, filters rows
//! and draws trends.
//!
//! Whatever comes out of Redis is text to the template, which escapes it, and stands in an element of its own direction.

use maud::{DOCTYPE, Markup, html};

use crate::{
    model::{findings::Severity, text},
    report::{FindingReport, Report, Row, State},
};

/// The styles, the script and the icon of the page.
pub(super) const STYLE: &str = include_str!("page.css");
/// See [`STYLE`].
pub(super) const SCRIPT: &str = include_str!("page.js");
/// See [`STYLE`].
pub(super) const ICON: &str = include_str!("icon.svg");

/// Where they are.
pub(super) const STYLE_PATH: &str = "/-/page.css";
/// See [`STYLE_PATH`].
pub(super) const SCRIPT_PATH: &str = "/-/page.js";
/// See [`STYLE_PATH`].
pub(super) const ICON_PATH: &str = "/-/icon.svg";

/// Nothing from elsewhere, and nothing inline.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// Documents about this program.
const REPOSITORY: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main");

/// Where a number is not known.
const UNKNOWN: &str = "\u{2013}";

/// Writes the page.
pub(super) fn render(report: &Report, telemetry_path: &str, options: &[(&'static str, String)]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title(report)) }
                noscript { meta http-equiv="refresh" content="10"; }
                // All paths are relative, so that the page may stand below another path behind a proxy.
                link rel="stylesheet" href={ "." (STYLE_PATH) };
                link rel="icon" type="image/svg+xml" href={ "." (ICON_PATH) };
                script src={ "." (SCRIPT_PATH) } defer {}
            }
            body {
                header {
                    h1 { "prompt-redis-exporter" }
                    nav aria-label="Pages and documents" {
                        a href={ "." (telemetry_path) } { "Metrics" }
                        a href="./-/healthy" { "Health" }
                        a href={ (REPOSITORY) "/docs/runbook.md" } { "Runbook" }
                        a href={ (REPOSITORY) "/docs/alerts-and-dashboards.md" } { "Alerts and dashboards" }
                    }
                    p #filter-box hidden {
                        label for="filter" { "Filter by name" }
                        input #filter type="search" autocomplete="off" spellcheck="false";
                        span #filter-count role="status" {}
                    }
                    p #stale role="alert" hidden {}
                }
                main { (body(report)) }
                (footer(options))
            }
        }
    };
    page.into_string()
}

fn title(report: &Report) -> String {
    match (report.redis.up, report.findings.first().map(|finding| finding.severity)) {
        (false, _) => "Redis is not reached - prompt-redis-exporter".into(),
        (true, None) => "prompt-redis-exporter".into(),
        (true, Some(worst)) => {
            format!("{}: {} findings - prompt-redis-exporter", worst.as_str(), report.findings.len())
        }
    }
}

fn body(report: &Report) -> Markup {
    html! {
        (server(report))
        section aria-labelledby="findings" {
            h2 #findings {
                @match report.findings.len() {
                    0 => { "Nothing needs attention" }
                    1 => { "1 finding" }
                    number => { (number) " findings" }
                }
            }
            @if !report.findings.is_empty() {
                ol { @for finding in &report.findings { (finding_item(finding)) } }
            }
        }
        @if !report.streams.is_empty() {
            section aria-labelledby="streams" {
                h2 #streams { "Streams and groups" }
                (table(report))
            }
        }
    }
}

fn server(report: &Report) -> Markup {
    let redis = &report.redis;
    let memory = redis.memory_used_bytes.map(|used| match redis.memory_max_bytes {
        Some(limit) if limit > 0 => format!("{} of {} in use", text::bytes(used), text::bytes(limit)),
        _ => format!("{} in use", text::bytes(used)),
    });
    #[expect(clippy::cast_precision_loss, reason = "an uptime")]
    let uptime = redis.uptime_seconds.map(|seconds| format!("up for {}", text::duration(seconds as f64)));
    let missing_rights = report.findings.iter().any(|finding| finding.code == "right_missing");
    html! {
        p .server {
            span .badge .critical[!redis.up] .ok[redis.up] { @if redis.up { "Redis is up" } @else { "Redis is not reached" } }
            " " bdi { (text::visible(&redis.address)) }
            @for fact in [&redis.server, &redis.mode, &redis.role].into_iter().flatten() { ", " bdi { (text::visible(fact)) } }
            @for fact in [uptime, memory].into_iter().flatten() { ", " (fact) }
            ", as user " bdi { (text::visible(&redis.user)) }
            @if missing_rights { ", with fewer rights than needed" }
            ". Collected in " (text::duration(report.collection_seconds)) "."
        }
        @if !report.patterns.is_empty() {
            p .server {
                @for (index, pattern) in report.patterns.iter().enumerate() {
                    @if index > 0 { ", " }
                    bdi { (text::visible(&pattern.pattern)) } " matches " (text::counted(pattern.streams, "streams"))
                }
                "."
            }
        }
    }
}

fn finding_item(finding: &FindingReport) -> Markup {
    html! {
        li .finding data-name=(finding.about) {
            h3 { (badge(finding.severity)) " " bdi { (finding.about) } }
            p { (finding.sentence) " " (finding.meaning) }
            @for command in &finding.commands {
                div .command {
                    span { (command.purpose) }
                    code tabindex="0" { (command.line) }
                }
            }
        }
    }
}

fn badge(severity: Severity) -> Markup {
    html! { span .badge .(severity.as_str()) { (severity.as_str()) } }
}

fn table(report: &Report) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "State" }
                    th scope="col" { "Stream and group" }
                    th scope="col" { abbr title="Messages that wait for delivery to the group; with a plus: at least so many" { "Waiting" } }
                    th scope="col" { abbr title="How long the oldest of them has waited" { "Oldest" } }
                    th scope="col" { abbr title="Delivered and not acknowledged" { "Pending" } }
                    th scope="col" { abbr title="How long ago the oldest pending entry was added" { "Oldest" } }
                    th scope="col" { abbr title="The lag as Redis reports it" { "Lag" } }
                    th scope="col" { abbr title="Redis's counter entries-read" { "Read" } }
                    th scope="col" { abbr title="Consumers ever created and not removed" { "Consumers" } }
                    th scope="col" { abbr title="How long ago the last entry was added" { "Last entry" } }
                    th .trend scope="col" { abbr title="What waited, and for how long, since this page was opened" { "Trend" } }
                }
            }
            tbody { @for row in report.rows() { (table_row(&row)) } }
        }
    }
}

fn table_row(row: &Row<'_>) -> Markup {
    let group = row.group;
    let waiting = match group.map(|group| (group.undelivered, group.undelivered_at_least)) {
        Some((Some(exact), _)) => text::count(exact),
        Some((None, Some(least))) => format!("{}+", text::count(least)),
        _ => UNKNOWN.into(),
    };
    let count = |number: Option<u64>| number.map_or(UNKNOWN.into(), text::count);
    let signed = |number: Option<i64>| number.map_or(UNKNOWN.into(), text::signed_count);
    let age = |seconds: Option<f64>| seconds.map_or(UNKNOWN.into(), text::short_duration);
    // Of what is not there, there is no age.
    let age_of = |number: Option<u64>, seconds| if number == Some(0) { String::new() } else { age(seconds) };
    let least = group.and_then(|group| group.undelivered.or(group.undelivered_at_least));
    html! {
        tr data-waiting=[least] data-age=[group.and_then(|group| group.oldest_undelivered_age_seconds)] {
            td { @match row.severity() { Some(severity) => (badge(severity)), None => span .badge .ok { "ok" } } }
            th scope="row" { (row_name(row)) }
            td { (waiting) }
            td { (age_of(group.and_then(|group| group.undelivered), group.and_then(|group| group.oldest_undelivered_age_seconds))) }
            td { (count(group.and_then(|group| group.pending))) }
            td { (age_of(group.and_then(|group| group.pending), group.and_then(|group| group.oldest_pending_age_seconds))) }
            td { (signed(group.and_then(|group| group.lag))) }
            td { (signed(group.and_then(|group| group.entries_read))) }
            td { (count(group.and_then(|group| group.consumers))) }
            td { (age(row.stream.last_entry_age_seconds)) }
            td .trend {}
        }
    }
}

fn row_name(row: &Row<'_>) -> Markup {
    let state = match row.stream.state {
        State::Found => "",
        State::Missing => " (missing)",
        State::Failed => " (not readable)",
        State::NotCollected => " (not reached in time)",
    };
    let group_is_missing = |exists| exists == Some(false) && row.stream.state == State::Found;
    html! {
        bdi { (text::line(&row.stream.name)) } (state)
        @if let Some(group) = row.group {
            " / " bdi { (text::line(&group.name)) }
            @if group_is_missing(group.exists) { " (missing)" }
        }
    }
}

fn footer(options: &[(&'static str, String)]) -> Markup {
    html! {
        footer {
            details {
                summary { "Version " (env!("CARGO_PKG_VERSION")) " and configuration" }
                dl { @for (name, value) in options { dt { (name) } dd { bdi { (text::visible(value)) } } } }
            }
        }
    }
}
