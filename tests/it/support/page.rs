//! A page of metrics, and its samples.

/// A page in the classic format.
#[derive(Clone, Debug)]
pub struct Page(pub String);

impl Page {
    /// The value of the one sample with this name and these labels, written as on the page: `name{label="value"}`.
    pub fn value(&self, series: &str) -> Option<f64> {
        let mut values = self.0.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = values.next().map(|value| value.parse().unwrap());
        assert!(values.next().is_none(), "{series} is twice on the page:\n{}", self.0);
        value
    }

    pub fn has(&self, text: &str) -> bool {
        self.0.contains(text)
    }

    pub fn up(&self) -> bool {
        self.value("redis_up").unwrap() > 0.5
    }

    pub fn errors(&self, kind: &str) -> f64 {
        self.value(&format!("prompt_redis_exporter_collection_errors_total{{kind=\"{kind}\"}}")).unwrap()
    }

    /// A sample of a group, by the end of its metric's name.
    pub fn group(&self, metric: &str, stream: &str, group: &str) -> Option<f64> {
        self.value(&format!("redis_stream_group_{metric}{{stream=\"{stream}\",group=\"{group}\"}}"))
    }

    /// A sample of a stream, by the end of its metric's name.
    pub fn stream(&self, metric: &str, stream: &str) -> Option<f64> {
        self.value(&format!("redis_stream_{metric}{{stream=\"{stream}\"}}"))
    }

    pub fn collected(&self, stream: &str) -> Option<f64> {
        self.value(&format!("prompt_redis_exporter_stream_collected{{stream=\"{stream}\"}}"))
    }
}
