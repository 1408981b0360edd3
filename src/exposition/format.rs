//! The two text formats of a page.
//!
//! prometheus-client writes OpenMetrics; the classic format is a small translation of it, made while it is written.

use std::fmt::{self, Write};

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
    let text = String::with_capacity(FIRST_BYTES + streams * BYTES_A_STREAM);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    match format {
        Format::OpenMetrics => {
            let mut text = text;
            text::encode(&mut text, &registry)?;
            Ok(text)
        }
        Format::Classic => {
            let mut classic = Classic { text, line: String::new(), help: String::new(), within: Within::LineStart };
            text::encode(&mut classic, &registry)?;
            Ok(classic.text)
        }
    }
}

/// Writes OpenMetrics down in the classic format: there the name of a counter's family ends with `_total` like its
/// samples', and the page has no end mark.
struct Classic {
    text: String,
    /// The line of a comment, as far as it has come.
    line: String,
    /// The help of the family, which is written with its type.
    help: String,
    within: Within,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    LineStart,
    Sample,
    Comment,
}

impl Write for Classic {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let mut rest = piece;
        while !rest.is_empty() {
            if self.within == Within::LineStart {
                self.within = if rest.starts_with('#') { Within::Comment } else { Within::Sample };
            }
            // Most pieces are short and have no end of line.
            let end = rest.bytes().position(|byte| byte == b'\n');
            let (line, after) = end.and_then(|end| rest.split_at_checked(end + 1)).unwrap_or((rest, ""));
            match self.within {
                Within::Comment => self.line.push_str(line),
                _ => self.text.push_str(line),
            }
            if end.is_some() {
                if self.within == Within::Comment {
                    self.end_comment()?;
                }
                self.within = Within::LineStart;
            }
            rest = after;
        }
        Ok(())
    }
}

impl Classic {
    fn end_comment(&mut self) -> fmt::Result {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_end_matches('\n');
        if let Some((_, help)) = line.strip_prefix("# HELP ").and_then(|described| described.split_once(' ')) {
            help.clone_into(&mut self.help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let help = std::mem::take(&mut self.help);
            writeln!(self.text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_gets_its_suffix_and_the_end_mark_goes() {
        let openmetrics = "# HELP up Up\n# TYPE up gauge\nup 1\n# HELP seen Seen\n# TYPE seen counter\nseen_total{a=\"# EOF\"} 3\n# HELP none None\n# TYPE none gauge\n# EOF\n";
        let expected = "# HELP up Up\n# TYPE up gauge\nup 1\n# HELP seen_total Seen\n# TYPE seen_total counter\nseen_total{a=\"# EOF\"} 3\n# HELP none None\n# TYPE none gauge\n";
        for piece in 1..openmetrics.len() {
            let mut classic =
                Classic { text: String::new(), line: String::new(), help: String::new(), within: Within::LineStart };
            for piece in openmetrics.as_bytes().chunks(piece) {
                classic.write_str(std::str::from_utf8(piece).unwrap()).unwrap();
            }
            assert_eq!(classic.text, expected, "in pieces of {piece}");
        }
    }
}
