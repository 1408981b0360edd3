//! What a request's headers ask for: the text format, gzip, and how long the page may take.

use std::time::Duration;

use hyper::{
    HeaderMap,
    header::{self, HeaderName},
};

use crate::exposition::format::Format;

/// Prometheus sends it: the seconds after which the scraper gives up.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// How long the page may take: half a second less than the scraper waits, or half of that time where it is short.
pub(super) fn time_limit(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(SCRAPE_TIMEOUT)?.to_str().ok()?.trim().parse().ok()?;
    let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())?;
    Some(timeout.saturating_sub(Duration::from_millis(500)).max(timeout / 2))
}

/// The format that the client prefers; the classic one if it has no preference.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let (mut openmetrics, mut classic) = (0.0_f32, 0.0_f32);
    for (media_type, parameters) in list(headers, &header::ACCEPT) {
        let version = parameter(parameters, "version");
        match media_type.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" if version.is_none_or(|v| v == "1.0.0") => {
                openmetrics = openmetrics.max(quality(parameters));
            }
            "text/plain" if version.is_none_or(|v| v == "0.0.4") => classic = classic.max(quality(parameters)),
            "text/*" | "*/*" => classic = classic.max(quality(parameters)),
            _ => {}
        }
    }
    if openmetrics > 0.0 && openmetrics >= classic { Format::OpenMetrics } else { Format::Classic }
}

/// Whether the client accepts gzip.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepts = |coding: &str| {
        list(headers, &header::ACCEPT_ENCODING)
            .find(|(name, _)| name.eq_ignore_ascii_case(coding))
            .map(|(_, parameters)| quality(parameters) > 0.0)
    };
    // The entry for gzip itself comes before the one for any coding.
    accepts("gzip").or_else(|| accepts("*")).unwrap_or(false)
}

/// The items of a header's list, each with its parameters.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = (&'a str, &'a str)> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|item| {
        let (item, parameters) = item.split_once(';').unwrap_or((item, ""));
        (item.trim(), parameters)
    })
}

fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let pairs = parameters.split(';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.trim().trim_matches('"'))
}

fn quality(parameters: &str) -> f32 {
    parameter(parameters, "q").map_or(1.0, |q| q.parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_format_is_the_one_the_client_prefers() {
        for (accept, format) in [
            ("", Format::Classic),
            ("*/*", Format::Classic),
            ("text/html,*/*;q=0.8", Format::Classic),
            ("text/plain;version=0.0.4", Format::Classic),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
            ("application/openmetrics-text;version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Classic),
            ("application/openmetrics-text;version=1.0.0;q=0", Format::Classic),
            ("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;q=0.9", Format::Classic),
            // Prometheus 2.42 and Prometheus 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(super::format(&headers("accept", accept)), format, "{accept}");
        }
        assert_eq!(super::format(&HeaderMap::new()), Format::Classic);
    }

    #[test]
    fn gzip_is_sent_only_to_clients_that_accept_it() {
        for (accept, accepts) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("*, gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("identity", false),
            ("br", false),
        ] {
            assert_eq!(accepts_gzip(&headers("accept-encoding", accept)), accepts, "{accept}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn the_page_is_ready_before_the_scraper_gives_up() {
        let time_limit = |seconds| time_limit(&headers("x-prometheus-scrape-timeout-seconds", seconds));
        assert_eq!(time_limit("10"), Some(Duration::from_millis(9_500)));
        assert_eq!(time_limit("0.6"), Some(Duration::from_millis(300)), "never less than half");
        for invalid in ["", "soon", "-1", "0", "NaN", "inf", "1e300"] {
            assert_eq!(time_limit(invalid), None, "{invalid}");
        }
    }
}
