//! The two text formats of a page.
//!
//! prometheus-client writes OpenMetrics; the classic format is a small translation of it.

use std::fmt::{self, Write};

use memchr::memmem;
use prometheus_client::{encoding::text, registry::Registry};

use super::page::Page;

/// A text format of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The classic text format 0.0.4.
    Classic,
}

impl Format {
    /// The Content-Type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Room that is made for a page, so that it is rarely moved while it grows: for a server, and for each stream with a
/// group.
const FIRST_BYTES: usize = 16 << 10;
const BYTES_A_STREAM: usize = 1 << 10;

/// Writes a page.
///
/// # Errors
/// None that we know of: writing to a string does not fail.
pub fn render(page: Page, format: Format) -> Result<String, fmt::Error> {
    let streams = page.outcome.as_ref().as_ref().map_or(0, |snapshot| snapshot.streams.len());
    let mut text = String::with_capacity(FIRST_BYTES + streams * BYTES_A_STREAM);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    text::encode(&mut text, &registry)?;
    match format {
        Format::OpenMetrics => Ok(text),
        Format::Classic => classic(&text),
    }
}

/// OpenMetrics into the classic format: there the name of a counter's family ends with `_total` like its samples', and
/// the page has no end mark.
fn classic(openmetrics: &str) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(openmetrics.len() + 256);
    let mut help = None;
    let mut rest = openmetrics;
    while let Some((line, after)) = rest.split_once('\n') {
        rest = after;
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take() {
                writeln!(text, "# HELP {name}{suffix} {help}")?;
            }
            writeln!(text, "# TYPE {name}{suffix} {kind}")?;
            // The samples of a family follow, none of which begins with the mark of a comment.
            let end =
                if rest.starts_with('#') { Some(0) } else { memmem::find(rest.as_bytes(), b"\n#").map(|end| end + 1) };
            let samples = end.unwrap_or(rest.len());
            let (samples, after) = rest.split_at_checked(samples).unwrap_or((rest, ""));
            text.push_str(samples);
            rest = after;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_gets_its_suffix_and_the_end_mark_goes() {
        let openmetrics = "# HELP up Up\n# TYPE up gauge\nup 1\n# HELP seen Seen\n# TYPE seen counter\nseen_total{a=\"# EOF\"} 3\n# HELP none None\n# TYPE none gauge\n# EOF\n";
        let expected = "# HELP up Up\n# TYPE up gauge\nup 1\n# HELP seen_total Seen\n# TYPE seen_total counter\nseen_total{a=\"# EOF\"} 3\n# HELP none None\n# TYPE none gauge\n";
        assert_eq!(classic(openmetrics).unwrap(), expected);
    }
}
