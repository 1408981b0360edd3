//! What the program runs on: every option checked, or refused with a sentence before anything is bound.
//!
//! Knows what a person may type ([`crate::cli`]) and what the modules need. Reads no environment and no files, and opens
//! no socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

pub use crate::cli::PASSWORD_VARIABLE;
use crate::{
    cli::{Cli, CollectorArgs, LogFormat, LogLevel, RedisArgs},
    model::snapshot::Name,
};

/// A wrong option: what was wrong, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// Everything the exporter runs on.
#[derive(Debug)]
pub struct Config {
    /// Where Redis is and how to log in, as it was typed: [`crate::redis::endpoint::Endpoint`] checks it.
    pub redis: RedisConfig,
    /// The longest one collection may take.
    pub timeout: Duration,
    /// Which streams and groups to watch.
    pub selection: Selection,
    /// What to ask about them.
    pub collect: Collect,
    /// Where to listen.
    pub listen_addresses: Vec<ListenAddress>,
    /// Where the metrics are.
    pub telemetry_path: String,
    /// TLS, users and headers of the HTTP server.
    pub web_config_file: Option<PathBuf>,
    /// How much to log.
    pub log_level: LogLevel,
    /// How to write the log.
    pub log_format: LogFormat,
}

impl Config {
    /// Checks what was typed. `password` is the value of [`crate::cli::PASSWORD_VARIABLE`].
    ///
    /// # Errors
    /// A sentence for the first option that is wrong. It never holds a password.
    pub fn new(cli: Cli, password: Option<String>) -> Result<Self, ConfigError> {
        Ok(Self {
            timeout: timeout(&cli.redis.timeout)?,
            redis: redis(cli.redis, password)?,
            selection: Selection::parse(&cli.streams)?,
            collect: Collect::new(&cli.collector)?,
            listen_addresses: cli.web.listen_addresses.iter().map(|a| a.parse()).collect::<Result<_, _>>()?,
            telemetry_path: telemetry_path(cli.web.telemetry_path)?,
            web_config_file: cli.web.config_file,
            log_level: cli.log.level,
            log_format: cli.log.format,
        })
    }
}

/// No scraper waits longer.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

fn timeout(typed: &str) -> Result<Duration, ConfigError> {
    match duration("--redis.timeout", typed, "5s")? {
        Duration::ZERO => Err(ConfigError::new("--redis.timeout is 0: no collection could ever end; say 5s")),
        timeout if timeout > LONGEST_TIMEOUT => {
            Err(ConfigError::new(format!("--redis.timeout '{typed}' is longer than an hour; say 5s")))
        }
        timeout => Ok(timeout),
    }
}

fn duration(option: &str, typed: &str, example: &str) -> Result<Duration, ConfigError> {
    humantime::parse_duration(typed)
        .map_err(|error| ConfigError::new(format!("{option} '{typed}' is no duration ({error}): say {example}")))
}

fn redis(typed: RedisArgs, password: Option<String>) -> Result<RedisConfig, ConfigError> {
    let topology = match (typed.sentinel_master, typed.cluster) {
        (Some(_), true) => {
            return Err(ConfigError::new(
                "--redis.sentinel-master and --redis.cluster exclude each other: a Cluster has no Sentinels",
            ));
        }
        (Some(name), false) if name.is_empty() => {
            return Err(ConfigError::new(
                "--redis.sentinel-master is empty: say the master's name, as in sentinel.conf",
            ));
        }
        (Some(name), false) => Topology::Sentinel(name),
        (None, true) => Topology::Cluster,
        (None, false) => Topology::Single,
    };
    Ok(RedisConfig {
        urls: typed.urls,
        topology,
        username: typed.username,
        password: password.filter(|password| !password.is_empty()),
        password_file: typed.password_file,
        tls: TlsFiles { ca: typed.tls_ca_file, cert: typed.tls_cert_file, key: typed.tls_key_file },
    })
}

fn telemetry_path(path: String) -> Result<String, ConfigError> {
    let taken = path == "/" || path.starts_with("/-/");
    let plain = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
    if taken {
        Err(ConfigError::new(format!("--web.telemetry-path '{path}' is taken by another page: say /metrics")))
    } else if plain {
        Ok(path)
    } else {
        Err(ConfigError::new(format!(
            "--web.telemetry-path '{path}' is no path: it starts with / and has no space, ? or #, like /metrics"
        )))
    }
}

/// Where Redis is and how to log in, as it was typed.
#[derive(Default)]
pub struct RedisConfig {
    /// One for a single server; several Sentinels, or nodes of a Cluster. They may hold passwords.
    pub urls: Vec<String>,
    /// What the URLs are.
    pub topology: Topology,
    /// The ACL user.
    pub username: Option<String>,
    /// The password itself.
    pub password: Option<String>,
    /// A file that holds the password, read at every connect.
    pub password_file: Option<PathBuf>,
    /// For rediss://.
    pub tls: TlsFiles,
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig").field("topology", &self.topology).finish_non_exhaustive()
    }
}

/// What the URLs of Redis are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    #[default]
    Single,
    /// Sentinels, which know where the master of this name is.
    Sentinel(String),
    /// Some nodes of a Cluster.
    Cluster,
}

/// The files that TLS to Redis needs, in PEM, read at every connect.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The certificate authority to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// What to ask about the streams, and how much of it at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collect {
    /// Ask `INFO`.
    pub server: bool,
    /// The most entries counted on the server; 0 never counts.
    pub undelivered_max: u32,
    /// The most time that all counting of one collection may take Redis.
    pub undelivered_budget: Duration,
    /// The most consumers shown for a group; `None` asks for no consumer.
    pub consumers_max: Option<usize>,
}

impl Collect {
    fn new(args: &CollectorArgs) -> Result<Self, ConfigError> {
        Ok(Self {
            server: args.server.unwrap_or(true) && !args.no_server,
            undelivered_max: args.undelivered_max,
            undelivered_budget: duration("--collector.undelivered-budget", &args.undelivered_budget, "25ms")?,
            consumers_max: (args.consumers.unwrap_or(false) && !args.no_consumers).then_some(args.consumers_max),
        })
    }
}

/// Which groups of a stream are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Every group that is found.
    pub every: bool,
    /// Groups that must exist.
    pub named: BTreeSet<Name>,
}

impl Groups {
    /// Is this group to be shown?
    #[must_use]
    pub fn wants(&self, group: &Name) -> bool {
        self.every || self.named.contains(group)
    }

    /// The stream was chosen twice: what either choice wants is wanted.
    pub fn merge(&mut self, other: &Self) {
        self.every |= other.every;
        self.named.extend(other.named.iter().cloned());
    }
}

/// Which streams are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Streams that must exist.
    pub exact: BTreeMap<Name, Groups>,
    /// Streams that are looked for, by a pattern of `SCAN MATCH`.
    pub patterns: BTreeMap<String, Groups>,
}

impl Selection {
    /// Reads each `KEY[=GROUP]`.
    ///
    /// # Errors
    /// A sentence where the key or the group is empty.
    pub fn parse(typed: &[String]) -> Result<Self, ConfigError> {
        let mut selection = Self::default();
        for one in typed {
            selection.add(one)?;
        }
        Ok(selection)
    }

    fn add(&mut self, typed: &str) -> Result<(), ConfigError> {
        let (key, groups) = match typed.rsplit_once('=') {
            None => (typed, Groups { every: true, named: BTreeSet::new() }),
            Some((_, "")) => {
                return Err(ConfigError::new(format!(
                    "--stream '{typed}' names no group behind the =: say KEY=GROUP, or KEY for every group"
                )));
            }
            Some((key, group)) => (key, Groups { every: false, named: BTreeSet::from([group.into()]) }),
        };
        if key.is_empty() {
            return Err(ConfigError::new(format!(
                "--stream '{typed}' names no key: say KEY or KEY=GROUP, like instrument:lsstcam"
            )));
        }
        if key.contains(['*', '?', '[']) {
            self.patterns.entry(key.to_owned()).or_default().merge(&groups);
        } else {
            self.exact.entry(key.into()).or_default().merge(&groups);
        }
        Ok(())
    }
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// A name or address; `None` is every address, IPv6 and IPv4.
    pub host: Option<String>,
    /// 0 lets the system choose.
    pub port: u16,
}

impl FromStr for ListenAddress {
    type Err = ConfigError;

    fn from_str(typed: &str) -> Result<Self, ConfigError> {
        let wrong = || {
            ConfigError::new(format!(
                "--web.listen-address '{typed}' is no address: say :10036, 127.0.0.1:10036 or [::1]:10036"
            ))
        };
        let (host, port) = typed.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(bare) if bare.parse::<std::net::Ipv6Addr>().is_ok() => bare,
            // A colon outside brackets is an IPv6 address whose port cannot be told from it.
            None if !host.contains([':', '/', ' ', '[', ']']) => host,
            _ => return Err(wrong()),
        };
        Ok(Self { host: (!host.is_empty()).then(|| host.to_owned()), port })
    }
}

impl Config {
    /// The options as they are in effect, for people: no secret is among them.
    #[must_use]
    pub fn shown(&self, redis: &impl fmt::Display, user: &str) -> Vec<(&'static str, String)> {
        let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
        let consumers = self.collect.consumers_max.map_or("off".into(), |max| format!("at most {max} a group"));
        let listen: Vec<_> = self.listen_addresses.iter().map(ToString::to_string).collect();
        let web = self.web_config_file.as_ref().map_or("none".into(), |file| file.display().to_string());
        vec![
            ("Redis", redis.to_string()),
            ("user", user.to_owned()),
            ("timeout", humantime::format_duration(self.timeout).to_string()),
            ("streams", self.selection.to_string()),
            ("INFO", switch(self.collect.server)),
            ("series per consumer", consumers),
            (
                "counting",
                format!(
                    "at most {} entries, {}",
                    self.collect.undelivered_max,
                    humantime::format_duration(self.collect.undelivered_budget)
                ),
            ),
            ("listens on", listen.join(", ")),
            ("web configuration", web),
        ]
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = self.exact.iter().map(|(key, groups)| (key.shown(), groups));
        let patterns = self.patterns.iter().map(|(pattern, groups)| (pattern.as_str().into(), groups));
        for (index, (key, groups)) in exact.chain(patterns).enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            if groups.every {
                f.write_str(&key)?;
            }
            for (index, group) in groups.named.iter().enumerate() {
                let comma = if groups.every || index > 0 { ", " } else { "" };
                write!(f, "{comma}{key}={}", group.shown())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref() {
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{}:{}", host.unwrap_or_default(), self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("prompt-redis-exporter").chain(args.iter().copied());
        let cli = Cli::from_args(args).map_err(|error| error.to_string())?;
        Config::new(cli, None).map_err(|error| error.to_string())
    }

    fn selection(typed: &[&str]) -> Selection {
        Selection::parse(&typed.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = config(&[]).unwrap();
        assert_eq!(config.redis.urls, ["redis://127.0.0.1:6379"]);
        assert_eq!(config.timeout, Duration::from_secs(5));
        assert_eq!(config.selection, selection(&["instrument:*"]));
        assert_eq!(
            config.collect,
            Collect {
                server: true,
                undelivered_max: 1000,
                undelivered_budget: Duration::from_millis(25),
                consumers_max: None
            }
        );
        assert_eq!(config.listen_addresses, [ListenAddress { host: None, port: 10036 }]);
        assert_eq!(config.telemetry_path, "/metrics");
        assert_eq!((config.log_level, config.log_format), (LogLevel::Info, LogFormat::Logfmt));
    }

    #[test]
    fn a_stream_is_split_at_the_last_equals_sign() {
        let chosen = selection(&["a=b=g"]);
        assert_eq!(chosen.exact[&"a=b".into()].named, BTreeSet::from(["g".into()]));
        assert!(!chosen.exact[&"a=b".into()].every);
    }

    #[test]
    fn a_stream_chosen_twice_wants_what_either_choice_wants() {
        let chosen = selection(&["s=g", "s=h", "t=g", "t"]);
        assert_eq!(chosen.exact[&"s".into()].named, BTreeSet::from(["g".into(), "h".into()]));
        assert!(!chosen.exact[&"s".into()].wants(&"other".into()));
        assert!(chosen.exact[&"t".into()].wants(&"other".into()));
    }

    #[test]
    fn a_key_with_wildcards_is_a_pattern() {
        for pattern in ["instrument:*", "s?", "s[ab]"] {
            assert!(selection(&[pattern]).patterns.contains_key(pattern), "{pattern}");
        }
    }

    #[test]
    fn a_collector_can_be_switched_both_ways_and_the_last_word_wins() {
        let server = |args: &[&str]| config(args).unwrap().collect.server;
        assert!(server(&["--collector.server"]));
        assert!(!server(&["--no-collector.server"]));
        assert!(server(&["--no-collector.server", "--collector.server"]));
        assert!(!server(&["--collector.server", "--no-collector.server"]));
        let consumers = |args: &[&str]| config(args).unwrap().collect.consumers_max;
        assert_eq!(consumers(&["--collector.consumers"]), Some(100));
        assert_eq!(consumers(&["--collector.consumers", "--collector.consumers-max=7"]), Some(7));
        assert_eq!(consumers(&["--collector.consumers", "--no-collector.consumers"]), None);
    }

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for typed in [":10036", "127.0.0.1:0", "localhost:9090", "[::]:80", "[::1]:10036"] {
            assert_eq!(typed.parse::<ListenAddress>().unwrap().to_string(), typed);
        }
        for typed in ["", "10036", "::1:10036", "host:", "host:99999", "[host]:1", "[::1:1", "a b:1"] {
            let error = typed.parse::<ListenAddress>().unwrap_err().to_string();
            assert!(error.contains(":10036") && error.contains(typed), "{typed}: {error}");
        }
    }

    #[test]
    fn wrong_values_say_what_is_wrong_and_what_would_be_right() {
        for (args, wrong, right) in [
            (&["--redis.timeout=0s"][..], "--redis.timeout", "5s"),
            (&["--redis.timeout=soon"], "'soon'", "5s"),
            (&["--redis.timeout=18446744073709551615s"], "hour", "5s"),
            (&["--redis.sentinel-master="], "empty", "name"),
            (&["--stream="], "names no key", "instrument:lsstcam"),
            (&["--stream==g"], "names no key", "KEY=GROUP"),
            (&["--stream=s="], "names no group", "KEY=GROUP"),
            (&["--web.telemetry-path=metrics"], "'metrics'", "/metrics"),
            (&["--web.telemetry-path=/"], "taken", "/metrics"),
            (&["--web.listen-address=10036"], "'10036'", ":10036"),
            (&["--redis.cluster", "--redis.sentinel-master=m"], "--redis.cluster", "--redis.sentinel-master"),
            (&["--collector.undelivered-budget=much"], "'much'", "25ms"),
            (&["--collector.undelivered-max=-1"], "-1", "--collector.undelivered-max"),
            (&["--log.level=loud"], "loud", "info"),
            (&["--nonsense"], "--nonsense", "--help"),
        ] {
            let error = config(args).unwrap_err();
            assert!(error.contains(wrong) && error.contains(right), "{args:?}: {error}");
        }
    }
}
