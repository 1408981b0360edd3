//! The two text formats of a page.

use super::{metrics, page::Page, text::Text};

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
#[must_use]
pub fn render(page: &Page, format: Format) -> String {
    let streams = page.outcome.as_ref().as_ref().map_or(0, |snapshot| snapshot.streams.len());
    let mut text = Text::new(format, FIRST_BYTES + streams * BYTES_A_STREAM);
    metrics::write(page, &mut text);
    text.finish()
}
