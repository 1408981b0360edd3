//! The two text formats, written sample by sample.
//!
//! A page has some twenty samples for each stream, so the labels of a row are written once and copied from there.
//! prometheus-client escapes them anew for each sample, and knows only OpenMetrics; the tests hold this writer against it.

use super::{
    format::Format,
    rows::{Metric, Number, Row},
};

/// What kind a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// Labels as they stand in a sample, braces included; nothing where there are none.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(String);

impl Labels {
    /// These labels and one more, behind them.
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let mut text = String::with_capacity(self.0.len() + name.len() + value.len() + "{=\"\"}".len());
        match self.0.strip_suffix('}') {
            Some(before) => text.extend([before, ","]),
            None => text.push('{'),
        }
        text.extend([name, "=\""]);
        let mut rest = value;
        let special = |byte: u8| matches!(byte, b'\\' | b'"' | b'\n');
        while let Some((plain, after)) = rest.bytes().position(special).and_then(|at| rest.split_at_checked(at)) {
            let (escaped, after) = after.split_at_checked(1).unwrap_or_default();
            text.extend([plain, "\\", if escaped == "\n" { "n" } else { escaped }]);
            rest = after;
        }
        text.extend([rest, "\"}"]);
        Self(text)
    }
}

/// A page that is being written.
pub(super) struct Text {
    text: String,
    format: Format,
}

impl Text {
    /// Begins a page, with room for so many bytes.
    pub(super) fn new(format: Format, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), format }
    }

    /// Writes these metrics, each with its samples of all rows. A metric without samples is left out.
    pub(super) fn write<T>(&mut self, metrics: &[Metric<T>], rows: &[Row<T>]) {
        for metric in metrics {
            let mut samples = rows.iter().filter_map(|row| Some((&row.labels, (metric.value)(&row.facts)?))).peekable();
            if samples.peek().is_some() {
                self.describe(metric.name, metric.kind, metric.help);
            }
            for (labels, number) in samples {
                self.text.push_str(metric.name);
                self.text.push_str(&labels.0);
                self.text.push(' ');
                self.number(number);
                self.text.push('\n');
            }
        }
    }

    /// In OpenMetrics the family of a counter has a name without the `_total` of its samples.
    fn describe(&mut self, name: &str, kind: Kind, help: &str) {
        let family = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        self.text.extend(["# HELP ", family, " ", help, "\n# TYPE ", family, " ", kind.as_str(), "\n"]);
    }

    fn number(&mut self, number: Number) {
        match number {
            Number::Count(count) => self.text.push_str(itoa::Buffer::new().format(count)),
            Number::Int(int) => self.text.push_str(itoa::Buffer::new().format(int)),
            Number::Float(float) => self.text.push_str(zmij::Buffer::new().format(float)),
        }
    }

    /// The page.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use prometheus_client::{
        collector::Collector,
        encoding::{DescriptorEncoder, EncodeMetric, text::encode},
        metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
        registry::Registry,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::exposition::{
        metrics::families,
        rows::{counter, gauge},
    };

    type Sample = (Vec<(&'static str, String)>, Option<Number>);

    const GAUGE: &str = "a_gauge";
    const COUNTER: &str = "a_counter";
    const HELP: &str = "What it says";

    fn count_of(number: Number) -> Option<u64> {
        if let Number::Count(count) = number { Some(count) } else { None }
    }

    fn ours(samples: &[Sample], format: Format) -> String {
        let row = |(labels, number): &Sample| {
            let labels = labels.iter().fold(Labels::default(), |labels, (name, value)| labels.with(name, value));
            Row { labels, facts: *number }
        };
        let metrics: [Metric<Option<Number>>; 2] = [
            gauge(GAUGE, HELP, "", |number| *number),
            counter("a_counter_total", HELP, "", |number| count_of((*number)?).map(Number::Count)),
        ];
        let mut text = Text::new(format, 0);
        text.write(&metrics, &samples.iter().map(row).collect::<Vec<_>>());
        text.finish()
    }

    /// The same by prometheus-client.
    #[derive(Debug)]
    struct Theirs(Vec<Sample>);

    impl Collector for Theirs {
        fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
            let samples = || self.0.iter().filter_map(|(labels, number)| Some((labels, (*number)?)));
            if samples().next().is_some() {
                let mut family = to.encode_descriptor(GAUGE, HELP, None, MetricType::Gauge)?;
                for (labels, number) in samples() {
                    let sample = family.encode_family(labels)?;
                    match number {
                        Number::Count(count) => ConstGauge::new(count).encode(sample)?,
                        Number::Int(int) => ConstGauge::new(int).encode(sample)?,
                        Number::Float(float) => ConstGauge::new(float).encode(sample)?,
                    }
                }
            }
            let counts = || samples().filter_map(|(labels, number)| Some((labels, count_of(number)?)));
            if counts().next().is_some() {
                let mut family = to.encode_descriptor(COUNTER, HELP, None, MetricType::Counter)?;
                for (labels, count) in counts() {
                    ConstCounter::new(count).encode(family.encode_family(labels)?)?;
                }
            }
            Ok(())
        }
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        let value = prop_oneof!["[a-z:]{0,8}", "[\\\\\"\n{},=# ]{0,6}", any::<String>()];
        let labels = prop::collection::vec(value, 1..4);
        let labels = labels.prop_map(|values| ["stream", "group", "consumer"].into_iter().zip(values).collect());
        let number = prop_oneof![
            any::<u64>().prop_map(Number::Count),
            any::<i64>().prop_map(Number::Int),
            (0..1_u64 << 42).prop_map(|ms| Number::Float(std::time::Duration::from_millis(ms).as_secs_f64())),
        ];
        (labels, proptest::option::of(number))
    }

    /// Lines that are alike but for how a fraction is written, which both may do in a digit more than is needed.
    fn assert_alike(ours: &str, theirs: &str) {
        let (ours, theirs): (Vec<_>, Vec<_>) = (ours.lines().collect(), theirs.lines().collect());
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            let fraction = |line: &str| {
                let (sample, number) = line.rsplit_once(' ')?;
                number.contains('.').then(|| Some((sample.to_owned(), number.parse::<f64>().ok()?)))?
            };
            assert!(
                ours == theirs || fraction(ours).is_some() && fraction(ours) == fraction(theirs),
                "{ours}\n{theirs}"
            );
        }
    }

    proptest! {
        #[test]
        fn samples_are_written_as_prometheus_client_writes_them(samples in prop::collection::vec(any_sample(), 0..6)) {
            let openmetrics = ours(&samples, Format::OpenMetrics);
            let mut registry = Registry::default();
            registry.register_collector(Box::new(Theirs(samples.clone())));
            let mut theirs = String::new();
            encode(&mut theirs, &registry).unwrap();
            assert_alike(&openmetrics, &theirs);

            // In the classic format a counter's family has the name of its samples, and the page has no end mark.
            let classic = ours(&samples, Format::Classic);
            let comment = |kind: &str| format!("# {kind} {COUNTER} ");
            let renamed = |line: &str| match ["HELP", "TYPE"].into_iter().find(|kind| line.starts_with(&comment(kind))) {
                Some(_) => line.replacen(COUNTER, &format!("{COUNTER}_total"), 1),
                None => line.to_owned(),
            };
            let expected: Vec<_> = openmetrics.lines().filter(|line| *line != "# EOF").map(renamed).collect();
            prop_assert_eq!(classic.lines().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_sample_without_labels_has_no_braces_and_a_metric_without_samples_is_left_out() {
        let text = ours(&[(vec![], Some(Number::Float(0.0)))], Format::Classic);
        assert_eq!(text, "# HELP a_gauge What it says\n# TYPE a_gauge gauge\na_gauge 0.0\n");
        assert_eq!(ours(&[(vec![], None)], Format::OpenMetrics), "# EOF\n");
    }

    #[test]
    fn no_help_has_to_be_escaped() {
        assert!(families().iter().all(|family| !family.help.contains(['\\', '"', '\n'])));
    }
}
