//! The fields of the web configuration file, as Prometheus's exporter-toolkit defines them.
//!
//! The file is full of secrets, so no message of serde or of the YAML parser is passed on: both quote values.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_path_to_error::{Path, Segment};
use yaml_serde::Value;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "fields, each a name, a colon, a space and a value")]
pub(super) struct File {
    pub(super) tls_server_config: Option<TlsServerConfig>,
    pub(super) http_server_config: Option<HttpServerConfig>,
    /// Bcrypt hashes by user name.
    pub(super) basic_auth_users: Option<BTreeMap<String, Option<String>>>,
    pub(super) rate_limit: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, expecting = "fields, each a name, a colon, a space and a value")]
pub(super) struct TlsServerConfig {
    pub(super) cert: Option<String>,
    pub(super) cert_file: Option<String>,
    pub(super) key: Option<String>,
    pub(super) key_file: Option<String>,
    pub(super) client_auth_type: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) client_ca_file: Option<String>,
    pub(super) client_allowed_sans: Option<IgnoredAny>,
    pub(super) min_version: Option<String>,
    pub(super) max_version: Option<String>,
    pub(super) cipher_suites: Option<Vec<String>>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    pub(super) curve_preferences: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "fields, each a name, a colon, a space and a value")]
pub(super) struct HttpServerConfig {
    pub(super) http2: Option<bool>,
    pub(super) headers: Option<Headers>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "fields, each a name, a colon, a space and a value")]
pub(super) struct Headers {
    #[serde(rename = "Content-Security-Policy")]
    pub(super) content_security_policy: Option<String>,
    #[serde(rename = "Strict-Transport-Security")]
    pub(super) strict_transport_security: Option<String>,
    #[serde(rename = "X-Content-Type-Options")]
    pub(super) x_content_type_options: Option<String>,
    #[serde(rename = "X-Frame-Options")]
    pub(super) x_frame_options: Option<String>,
    #[serde(rename = "X-XSS-Protection")]
    pub(super) x_xss_protection: Option<String>,
}

/// Why a file is refused, and the line, if it is known. Holds names of fields, never a secret.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) line: Option<usize>,
    pub(super) reason: String,
}

/// Reads the fields. An empty file has none.
pub(super) fn parse(text: &str) -> Result<File, Refused> {
    // First as plain YAML: a map of users alone would take the last of two equal names.
    let syntax: Result<Value, _> = yaml_serde::from_str(text);
    syntax.map_err(|error| Refused {
        line: error.location().map(|location| location.line()),
        reason: "this is not YAML, or a name stands twice in one section".into(),
    })?;
    let file: Result<Option<File>, _> = serde_path_to_error::deserialize(yaml_serde::Deserializer::from_str(text));
    file.map(Option::unwrap_or_default).map_err(|error| {
        let line = line_of(text, &names(error.path())).or(error.inner().location().map(|location| location.line()));
        Refused { line, reason: format!("{} {}", shown(error.path()), requirement(&error.inner().to_string())) }
    })
}

/// Reads any text, but none of the files that it names.
#[cfg(any(test, fuzzing))]
pub(in crate::web) fn read_any(text: &str) {
    if let Err(Refused { line: Some(line), .. }) = parse(text) {
        // To YAML a carriage return is a line too.
        assert!((1..=text.len() + 1).contains(&line), "line {line}");
    }
    let _ = line_of(text, &["tls_server_config", "cert_file"]);
}

/// The names on a path. An item of a list has none.
fn names(path: &Path) -> Vec<&str> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(key.as_str()),
            Segment::Unknown => Some("?"),
            Segment::Seq { .. } | Segment::Enum { .. } => None,
        })
        .collect()
}

/// A path without names that may be secrets: a hash becomes a name where the space behind the colon is missing.
fn shown(path: &Path) -> String {
    let is_plain = |name: &str| {
        name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let shown = |name| if is_plain(name) { name } else { "(name not shown)" };
    match names(path).as_slice() {
        [] => "the file".into(),
        names => names.iter().map(|name| shown(name)).collect::<Vec<_>>().join("."),
    }
}

/// What serde's message says should be there. It stands at the end, and comes from the types above; what stands before
/// it may come from the file.
fn requirement(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return "cannot be read".into() };
    let expected = expected.split(" at line ").next().unwrap_or(expected).replace('`', "");
    match expected.strip_prefix("one of ") {
        Some(names) if found.contains("unknown field") => format!("is no field: there are {names}"),
        _ => format!("should be {expected}"),
    }
}

/// The line of the name at the end of a path.
pub(super) fn line_of(text: &str, path: &[&str]) -> Option<usize> {
    let failed = Fields(path).deserialize(yaml_serde::Deserializer::from_str(text)).err()?;
    failed.location().map(|location| location.line())
}

/// Follows a path and fails at its last name, because the parser tells a line only with an error.
struct Fields<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<(), M::Error> {
        let Some((name, rest)) = self.0.split_first() else { return Ok(()) };
        while let Some(found) = fields.next_key_seed(Name { name, is_last: rest.is_empty() })? {
            if found {
                fields.next_value_seed(Fields(rest))?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Whether a field has this name. Fails if it has, and is the last of the path.
struct Name<'a> {
    name: &'a str,
    is_last: bool,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, found: &str) -> Result<bool, E> {
        let found = found == self.name;
        if found && self.is_last { Err(E::custom("the end of the path")) } else { Ok(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_that_of_the_name_however_the_file_is_written() {
        let text = "a: &x {b: c}\n# a\n\"d\":\n  - b\n  - {b: c}\ne: *x\n1: 2\nf:\n\n  b: >\n    f\n    b: c\n  c: d\n";
        for (path, line) in [
            (&["a"][..], Some(1)),
            (&["a", "b"], Some(1)),
            (&["d"], Some(3)),
            (&["e"], Some(6)),
            (&["f"], Some(8)),
            (&["f", "b"], Some(10)),
            (&["f", "c"], Some(13)),
            (&["g"], None),
            (&["f", "g"], None),
        ] {
            assert_eq!(line_of(text, path), line, "{path:?}");
        }
    }

    #[test]
    fn no_reason_quotes_the_file() {
        for text in [
            "basic_auth_users: {a: [s3cret]}",
            "basic_auth_users: {'alice:s3cret': [x]}",
            "basic_auth_users: ', expected s3cret'",
            "basic_auth_users: {a: *s3cret}",
            "basic_auth_users: {s3cret: a, s3cret: b}",
            "'alice:s3cret': x",
            "s3cret",
            "tls_server_config: s3cret",
            "tls_server_config: {prefer_server_cipher_suites: s3cret}",
            "tls_server_config: {cipher_suites: s3cret}",
            "- s3cret",
            "[s3cret]: s3cret",
        ] {
            let refused = parse(text).unwrap_err();
            assert!(!refused.reason.contains("s3cret"), "{text}: {}", refused.reason);
            assert!(refused.line.is_some(), "{text}: {}", refused.reason);
        }
    }
}
