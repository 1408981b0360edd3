//! The web configuration file: what it asks for, checked field by field, and read again when it changes.
//!
//! The format is that of Prometheus's exporter-toolkit. A field that we can't honour is refused by its name: none is
//! ignored. Knows YAML, and which field means what; what TLS and passwords are made of is for [`crate::web::tls`] and
//! [`crate::web::basic_auth`] to know. No message holds more of the file than names: it is full of secrets.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use yaml_serde::{Mapping, Value};

use crate::{
    web::basic_auth::{Hash, Users},
    web::tls::{self, Clients, Settings, Tls, Version},
};

/// While the files are wrong, they are tried again this often even if they seem to be as they were: the reason may lie
/// outside of them.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Headers that may be put on every answer, and the values they may have; none means any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// What the file asks for. Without a file: nothing.
#[derive(Debug, Default)]
pub struct Rules {
    /// How a client is spoken to; `None` is in plain.
    pub tls: Option<Tls>,
    /// Who may come in; `None` is everybody.
    pub users: Option<Users>,
    /// What stands on every answer.
    pub headers: Vec<(&'static str, String)>,
}

impl Rules {
    /// How many users there are.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.as_ref().map_or(0, Users::count)
    }

    /// Rules that are read later may not open the door: a file that is half written may look like one that asks for less.
    fn may_follow(self, before: &Self) -> Result<Self, String> {
        let gone = |what| Err(format!("has no {what} any more: to serve without takes a restart"));
        match (&before.tls, &before.users) {
            (Some(_), _) if self.tls.is_none() => gone("tls_server_config"),
            (_, Some(_)) if self.users.is_none() => gone("basic_auth_users"),
            _ => Ok(self),
        }
    }
}

/// The file, and what it asks for now.
pub struct WebConfig {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Arc<Rules>,
    /// The files that were looked at, as they were then.
    seen: Vec<Seen>,
    /// Why the files as they are cannot be used, and when that was found.
    refused: Option<(String, Instant)>,
}

impl WebConfig {
    /// Reads the file and those that it names.
    ///
    /// # Errors
    /// A sentence with file and line, without any secret.
    pub fn new(file: Option<PathBuf>) -> Result<Self, String> {
        let mut state = State::default();
        if let Some(file) = &file {
            let (seen, rules) = read(file);
            (state.seen, state.rules) = (seen, Arc::new(rules?));
        }
        Ok(Self { file, state: Mutex::new(state) })
    }

    /// What the file asks for now. Looks whether it has changed, which takes no more than a look at each file.
    ///
    /// As long as the files are wrong, the rules before hold; the log says so once.
    pub fn rules(&self) -> Arc<Rules> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file
            && state.is_stale()
        {
            state.read_again(file);
        }
        Arc::clone(&state.rules)
    }
}

impl fmt::Debug for WebConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebConfig").field(&self.file).finish()
    }
}

impl State {
    fn is_stale(&self) -> bool {
        self.refused.as_ref().is_some_and(|(_, found)| found.elapsed() > RETRY_AFTER)
            || self.seen.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    fn read_again(&mut self, file: &Path) {
        let (seen, rules) = read(file);
        self.seen = seen;
        let rules = rules.and_then(|rules| {
            rules.may_follow(&self.rules).map_err(|sentence| format!("--web.config.file {} {sentence}", file.display()))
        });
        match rules {
            Ok(rules) => {
                tracing::info!(tls = rules.tls.is_some(), users = rules.users(), "read the web configuration again");
                (self.rules, self.refused) = (Arc::new(rules), None);
            }
            Err(error) => {
                if self.refused.as_ref().is_none_or(|(before, _)| *before != error) {
                    tracing::error!(error, "the web configuration cannot be used: the one before holds");
                }
                self.refused = Some((error, Instant::now()));
            }
        }
    }
}

/// A file and how it looked, or that it was not there.
type Seen = (PathBuf, Option<Stamp>);

/// How a file looks from outside. What a rotated secret or an editor changes, changes this.
#[derive(PartialEq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            inode: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// Reads files, and remembers which.
struct Files {
    /// Where relative paths begin: beside the configuration file.
    directory: PathBuf,
    seen: Vec<Seen>,
}

impl Files {
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        // First how it looks, then what it holds: a change between the two is seen the next time.
        self.seen.push((path.to_owned(), Stamp::of(path)));
        fs::read(path)
    }
}

fn read(file: &Path) -> (Vec<Seen>, Result<Rules, String>) {
    let directory = file.parent().unwrap_or(Path::new("")).to_owned();
    let mut files = Files { directory, seen: Vec::new() };
    let rules = read_rules(file, &mut files).map_err(|(line, sentence)| {
        let line = line.map_or(String::new(), |line| format!(", line {line}"));
        format!("--web.config.file {}{line}: {sentence}", file.display())
    });
    (files.seen, rules)
}

/// An error is a line, if there is one, and a sentence.
fn read_rules(file: &Path, files: &mut Files) -> Result<Rules, (Option<usize>, String)> {
    let bytes = files.read(file).map_err(|error| (None, format!("it cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| (None, "it is not UTF-8".into()))?;
    let whole: Value = yaml_serde::from_str(&text)
        .map_err(|error| (error.location().map(|place| place.line()), format!("this is not YAML: {error}")))?;
    let rules = match Section::new(&[], &whole) {
        Ok(whole) => whole.map_or_else(|| Ok(Rules::default()), |whole| rules(&whole, files)),
        Err(wrong) => Err(wrong),
    };
    rules.map_err(|wrong| (line_of(&text, &wrong.path), wrong.to_string()))
}

/// A field that cannot be honoured, by its way through the file, and why.
struct Wrong {
    path: Vec<String>,
    sentence: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_slice() {
            [] => write!(f, "the file {}", self.sentence),
            path => write!(f, "{} {}", path.join("."), self.sentence),
        }
    }
}

/// A part of the file that has fields. What is null, or empty, is as if it were not there.
struct Section<'a> {
    path: Vec<String>,
    fields: &'a Mapping,
}

impl<'a> Section<'a> {
    fn new(path: &[&str], value: &'a Value) -> Result<Option<Self>, Wrong> {
        let path: Vec<_> = path.iter().map(ToString::to_string).collect();
        match value {
            Value::Null => Ok(None),
            Value::Mapping(fields) => Ok(Some(Self { path, fields }).filter(|section| !section.fields.is_empty())),
            _ => Err(Wrong { path, sentence: "should hold fields, each a name, a colon, a space and a value".into() }),
        }
    }

    fn wrong(&self, field: &str, sentence: impl Into<String>) -> Wrong {
        let path = self.path.iter().cloned().chain([field.to_owned()]).collect();
        Wrong { path, sentence: sentence.into() }
    }

    /// Nothing but these fields may stand here.
    fn has_only(&self, known: &[&str]) -> Result<(), Wrong> {
        for name in self.fields.keys() {
            match name.as_str() {
                Some(name) if known.contains(&name) => {}
                Some(name) => return Err(self.wrong(name, format!("is no field: there are {}", known.join(", ")))),
                None => return Err(Wrong { path: self.path.clone(), sentence: "has a name that is no text".into() }),
            }
        }
        Ok(())
    }

    fn refuse(&self, field: &str, why: &str) -> Result<(), Wrong> {
        if self.field(field).is_some() { Err(self.wrong(field, format!("is not supported: {why}"))) } else { Ok(()) }
    }

    fn field(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn section(&self, name: &str) -> Result<Option<Self>, Wrong> {
        let path: Vec<_> = self.path.iter().map(String::as_str).chain([name]).collect();
        self.field(name).map_or(Ok(None), |value| Section::new(&path, value))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, Wrong> {
        let Some(value) = self.field(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| self.wrong(name, "should be a text"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn switch(&self, name: &str) -> Result<Option<bool>, Wrong> {
        let Some(value) = self.field(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(name, "should be true or false"))
    }

    fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, Wrong> {
        let Some(value) = self.field(name) else { return Ok(None) };
        let texts = value.as_sequence().and_then(|texts| texts.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let texts = texts.ok_or_else(|| self.wrong(name, "should be a list of texts"))?;
        Ok(Some(texts).filter(|texts| !texts.is_empty()))
    }

    /// A PEM text and the field that gave it: `NAME_file`, which names a file, or `NAME`, which holds it.
    fn pem(&self, name: &str, files: &mut Files) -> Result<Option<(String, Vec<u8>)>, Wrong> {
        let naming = format!("{name}_file");
        match (self.text(&naming)?, self.text(name)?) {
            (None, None) => Ok(None),
            (None, Some(text)) => Ok(Some((name.into(), text.into()))),
            (Some(_), Some(_)) => Err(self.wrong(&naming, format!("is given, and so is {name}: keep one of them"))),
            (Some(file), None) => {
                let file = files.directory.join(file);
                let sentence = |error| format!("names {}, which cannot be read: {error}", file.display());
                let pem = files.read(&file).map_err(|error| self.wrong(&naming, sentence(error)))?;
                Ok(Some((naming, pem)))
            }
        }
    }
}

fn rules(whole: &Section<'_>, files: &mut Files) -> Result<Rules, Wrong> {
    whole.has_only(&["tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"])?;
    whole.refuse("rate_limit", "scrapes at the same moment share one collection as it is")?;
    Ok(Rules {
        tls: whole.section("tls_server_config")?.map(|section| tls(&section, files)).transpose()?,
        users: whole.section("basic_auth_users")?.map(|section| users(&section)).transpose()?,
        headers: whole.section("http_server_config")?.map_or(Ok(Vec::new()), |section| headers(&section))?,
    })
}

fn tls(section: &Section<'_>, files: &mut Files) -> Result<Tls, Wrong> {
    section.has_only(&[
        "cert",
        "cert_file",
        "key",
        "key_file",
        "client_auth_type",
        "client_ca",
        "client_ca_file",
        "client_allowed_sans",
        "min_version",
        "max_version",
        "cipher_suites",
        "prefer_server_cipher_suites",
        "curve_preferences",
    ])?;
    section.refuse("client_allowed_sans", "give those who may come in an authority of their own (client_ca_file)")?;
    let missing = |name| Wrong {
        path: section.path.clone(),
        sentence: format!("has no {name}: TLS needs a certificate and its key, cert_file and key_file"),
    };
    let (cert_field, cert) = section.pem("cert", files)?.ok_or_else(|| missing("cert_file"))?;
    let (key_field, key) = section.pem("key", files)?.ok_or_else(|| missing("key_file"))?;
    let settings = Settings {
        chain: tls::certificates(&cert).map_err(|sentence| section.wrong(&cert_field, sentence))?,
        key: tls::private_key(&key).map_err(|sentence| section.wrong(&key_field, sentence))?,
        clients: clients(section, files)?,
        versions: versions(section)?,
        cipher_suites: chosen(section, "cipher_suites", tls::cipher_suites)?,
        curves: chosen(section, "curve_preferences", tls::curves)?,
        our_order: section.switch("prefer_server_cipher_suites")?.unwrap_or(true),
    };
    Tls::new(settings).map_err(|sentence| section.wrong(&key_field, sentence))
}

fn clients(section: &Section<'_>, files: &mut Files) -> Result<Clients, Wrong> {
    let asked = section.text("client_auth_type")?.unwrap_or("NoClientCert");
    let authorities = match section.pem("client_ca", files)? {
        None => None,
        Some((field, _)) if asked == "NoClientCert" => {
            let sentence = "is given, and no client is asked for a certificate: say client_auth_type: \
                            RequireAndVerifyClientCert";
            return Err(section.wrong(&field, sentence));
        }
        Some((field, pem)) => Some(tls::authorities(&pem).map_err(|sentence| section.wrong(&field, sentence))?),
    };
    let wrong = |sentence| Err(section.wrong("client_auth_type", sentence));
    match (asked, authorities) {
        ("NoClientCert", _) => Ok(Clients::Unknown),
        ("VerifyClientCertIfGiven", Some(authorities)) => Ok(Clients::MayBeKnown(authorities)),
        ("RequireAndVerifyClientCert", Some(authorities)) => Ok(Clients::Known(authorities)),
        ("VerifyClientCertIfGiven" | "RequireAndVerifyClientCert", None) => {
            wrong(format!("is {asked}, and there is no authority to verify them with: say client_ca_file"))
        }
        ("RequestClientCert" | "RequireAnyClientCert" | "RequireClientCert", _) => wrong(format!(
            "is {asked}, which takes any certificate and keeps nobody out: say RequireAndVerifyClientCert or \
             VerifyClientCertIfGiven"
        )),
        _ => wrong(format!("is '{asked}': say NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert")),
    }
}

fn versions(section: &Section<'_>) -> Result<(Version, Version), Wrong> {
    let version = |field, default| match section.text(field)? {
        None => Ok(default),
        Some(name) => Version::new(name).map_err(|sentence| section.wrong(field, sentence)),
    };
    let (first, last) = (version("min_version", Version::Tls12)?, version("max_version", Version::Tls13)?);
    if first > last {
        return Err(section.wrong("min_version", "is above max_version: no version is left"));
    }
    Ok((first, last))
}

fn chosen<T>(
    section: &Section<'_>,
    field: &str,
    choose: impl Fn(&[&str]) -> Result<T, String>,
) -> Result<Option<T>, Wrong> {
    let names = section.texts(field)?;
    names.map(|names| choose(&names)).transpose().map_err(|sentence| section.wrong(field, sentence))
}

fn users(section: &Section<'_>) -> Result<Users, Wrong> {
    let wrong = |sentence: &str| Wrong { path: section.path.clone(), sentence: sentence.into() };
    let mut hashes = BTreeMap::new();
    for name in section.fields.keys() {
        let name = name.as_str().ok_or_else(|| wrong("has a name that is no text: put it into quotes"))?;
        // Not shown: a colon without a space behind it makes a name of a hash.
        if name.contains(':') {
            return Err(wrong("has a name with a colon, which no client can send: say USER: HASH, with a space"));
        }
        let hash = section.text(name)?.ok_or_else(|| section.wrong(name, "has no hash"))?;
        let hash = Hash::new(hash).map_err(|sentence| section.wrong(name, sentence))?;
        hashes.insert(name.to_owned(), hash);
    }
    Users::new(hashes).map_err(|sentence| wrong(&format!("cannot be used: {sentence}")))
}

fn headers(section: &Section<'_>) -> Result<Vec<(&'static str, String)>, Wrong> {
    section.has_only(&["http2", "headers"])?;
    if section.switch("http2")? == Some(true) {
        return Err(section.wrong("http2", "is true, and we speak HTTP/1.1 alone: say false, or leave it out"));
    }
    let Some(section) = section.section("headers")? else { return Ok(Vec::new()) };
    section.has_only(&HEADERS.map(|(name, _)| name))?;
    let mut headers = Vec::new();
    for (name, values) in HEADERS {
        let Some(value) = section.text(name)? else { continue };
        if !values.is_empty() && !values.contains(&value) {
            return Err(section.wrong(name, format!("is '{value}': say {}", values.join(" or "))));
        }
        if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(section.wrong(name, "holds a character that a header cannot"));
        }
        headers.push((name, value.to_owned()));
    }
    Ok(headers)
}

/// The line of a field's name: the parser reads the text again, and is made to fail there.
fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let failed = To(path).deserialize(yaml_serde::Deserializer::from_str(text)).err()?;
    failed.location().map(|place| place.line())
}

/// Walks to the name at the end of a path.
struct To<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for To<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for To<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<(), M::Error> {
        let Some((name, rest)) = self.0.split_first() else { return Ok(()) };
        while let Some(found) = fields.next_key_seed(Name { name, fail: rest.is_empty() })? {
            if found {
                fields.next_value_seed(To(rest))?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Tells whether this is the name; fails there if it is the last one of the path.
struct Name<'a> {
    name: &'a str,
    fail: bool,
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

    fn visit_str<E: serde::de::Error>(self, found: &str) -> Result<bool, E> {
        let found = found == self.name;
        if found && self.fail { Err(E::custom("here")) } else { Ok(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_were_refused_are_tried_again_even_if_they_look_the_same() {
        let found = Instant::now();
        let mut state = State { refused: Some(("out of file descriptors".into(), found)), ..State::default() };
        assert!(!state.is_stale());
        state.refused = found.checked_sub(2 * RETRY_AFTER).map(|long_ago| ("out of file descriptors".into(), long_ago));
        assert!(state.is_stale());
    }

    #[test]
    fn a_line_is_that_of_the_name_however_the_file_is_written() {
        let text = "a: &x {b: c}\n# a\n\"d\":\n  - b\n  - {b: c}\ne: *x\n1: 2\nf:\n\n  b: >\n    f\n    b: c\n  c: d\n";
        let line = |path: &[&str]| line_of(text, &path.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!((line(&["a"]), line(&["a", "b"]), line(&["d"])), (Some(1), Some(1), Some(3)));
        assert_eq!(
            (line(&["e"]), line(&["f"]), line(&["f", "b"]), line(&["f", "c"])),
            (Some(6), Some(8), Some(10), Some(13))
        );
        assert_eq!((line(&["g"]), line(&["f", "g"])), (None, None));
    }
}
