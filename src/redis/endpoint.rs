//! Where Redis is and how to log in: one server, the master that Sentinels name, or a Cluster.
//!
//! Checks what was typed. A secret that comes in here never goes out: [`Endpoint`] shows itself without one. Files are
//! read again at every connect, so that a rotated secret or certificate needs no restart.

use std::{fmt, path::Path};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use super::tls;
use crate::{
    config::{PASSWORD_VARIABLE, RedisConfig, TlsFiles, Topology},
    model::{
        error::{Error, Kind},
        text::shell_word,
    },
};

/// Where Redis is and how to log in.
pub struct Endpoint {
    pub(super) topology: Topology,
    /// One for a single server; several Sentinels, or nodes of a Cluster.
    pub(super) addresses: Vec<ConnectionAddr>,
    login: RedisConnectionInfo,
    /// How to log in to the Sentinels, which may differ from the master.
    pub(super) sentinel_login: RedisConnectionInfo,
    password_file: Option<std::path::PathBuf>,
    pub(super) tls: TlsFiles,
}

impl Endpoint {
    /// Checks that URLs, credentials and files go together, and that the files can be read. Connects to nothing.
    ///
    /// # Errors
    /// A sentence without any secret.
    pub fn new(config: RedisConfig) -> Result<Self, String> {
        let infos = config.urls.iter().map(|url| parse(url)).collect::<Result<Vec<_>, _>>()?;
        let first = infos.first().ok_or("--redis.url is missing: say redis://host:6379")?;
        let from_url = first.redis_settings().clone().set_skip_set_lib_name();
        let addresses: Vec<_> = infos.iter().map(|info| info.addr().clone()).collect();
        check_topology(&config.topology, &addresses)?;
        check_tls(first.addr(), &config.tls)?;

        // A login in a URL is for the server that the URL leads to: with Sentinels, that is not the master. They have no
        // databases.
        let (to_server, sentinel_login) = match config.topology {
            Topology::Sentinel(_) => {
                (RedisConnectionInfo::default().set_db(from_url.db()).set_skip_set_lib_name(), from_url.set_db(0))
            }
            _ => (from_url, RedisConnectionInfo::default()),
        };
        let login = log_in(to_server, &config)?;
        let RedisConfig { topology, password_file, tls, .. } = config;
        let endpoint = Self { topology, addresses, login, sentinel_login, password_file, tls };
        endpoint.current_login().map_err(|error| error.to_string())?;
        if endpoint.is_tls() {
            tls::client_config(&endpoint.tls).map_err(|error| error.to_string())?;
        }
        Ok(endpoint)
    }

    /// Is it a Cluster, of which no one server can speak for all?
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.topology == Topology::Cluster
    }

    /// The ACL user to log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        self.login.username().unwrap_or("default")
    }

    /// How a person reaches the same Redis: the beginning of a command in a shell, without secrets. Behind Sentinels the
    /// master may be anywhere, so no address is given.
    #[must_use]
    pub fn redis_cli(&self) -> String {
        let mut words = vec!["redis-cli".to_owned()];
        match (&self.topology, self.addresses.first()) {
            (Topology::Sentinel(_), _) | (_, None) => {}
            (_, Some(ConnectionAddr::Tcp(host, port))) => words.extend(host_and_port(host, *port)),
            (_, Some(ConnectionAddr::TcpTls { host, port, .. })) => {
                words.push("--tls".into());
                let ca = self.tls.ca.iter().filter_map(|ca| shell_word(&ca.to_str()?.into()));
                words.extend(ca.flat_map(|ca| ["--cacert".into(), ca]));
                words.extend(host_and_port(host, *port));
            }
            (_, Some(ConnectionAddr::Unix(path))) => {
                let path = path.to_str().and_then(|path| shell_word(&path.into()));
                words.extend(path.into_iter().flat_map(|path| ["-s".into(), path]));
            }
            _ => {}
        }
        if self.is_cluster() {
            words.push("-c".into());
        }
        if self.login.db() != 0 {
            words.push(format!("-n {}", self.login.db()));
        }
        words.join(" ")
    }

    /// The login, with the password file as it is now.
    pub(super) fn current_login(&self) -> Result<RedisConnectionInfo, Error> {
        match &self.password_file {
            Some(file) => Ok(self.login.clone().set_password(password_in(file)?)),
            None => Ok(self.login.clone()),
        }
    }

    /// Is TLS spoken to it?
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.addresses.first(), Some(ConnectionAddr::TcpTls { .. }))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topology {
            Topology::Single => {}
            Topology::Sentinel(master) => write!(f, "master {master} of the Sentinels ")?,
            Topology::Cluster => f.write_str("the Cluster of ")?,
        }
        for (index, address) in self.addresses.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            match address {
                ConnectionAddr::Tcp(host, port) => write!(f, "{separator}redis://{host}:{port}")?,
                ConnectionAddr::TcpTls { host, port, .. } => write!(f, "{separator}rediss://{host}:{port}")?,
                ConnectionAddr::Unix(path) => write!(f, "{separator}unix://{}", path.display())?,
                _ => write!(f, "{separator}redis")?,
            }
        }
        if self.login.db() == 0 { Ok(()) } else { write!(f, ", database {}", self.login.db()) }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn host_and_port(host: &str, port: u16) -> Vec<String> {
    let mut words = Vec::new();
    if !["127.0.0.1", "localhost"].contains(&host) {
        words.extend(shell_word(&host.into()).into_iter().flat_map(|host| ["-h".into(), host]));
    }
    if port != 6379 {
        words.push(format!("-p {port}"));
    }
    words
}

fn parse(url: &str) -> Result<ConnectionInfo, String> {
    const FORMS: &str = "say redis://[user:password@]host[:port][/database], the same with rediss:// for TLS, \
                         or unix:///path/to/socket";
    match url.split_once("://") {
        Some(("redis" | "rediss" | "unix", _)) => {}
        // A URL may hold a password, so no more than its scheme is shown.
        Some((scheme, _)) => return Err(format!("--redis.url starts with '{scheme}://': {FORMS}")),
        None => return Err(format!("--redis.url has no scheme: {FORMS}")),
    }
    // What redis-rs says of a URL may quote it.
    let info = url.into_connection_info().map_err(|_| format!("--redis.url cannot be read: {FORMS}"))?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err("--redis.url asks not to check the server's certificate (#insecure), which we always do: \
                    name its authority with --redis.tls-ca-file"
            .into());
    }
    Ok(info)
}

fn check_topology(topology: &Topology, addresses: &[ConnectionAddr]) -> Result<(), String> {
    let has_tls = |address: &ConnectionAddr| matches!(address, ConnectionAddr::TcpTls { .. });
    if *topology == Topology::Single {
        return match addresses.len() {
            1 => Ok(()),
            _ => Err("--redis.url is given several times: say --redis.sentinel-master NAME if they are Sentinels, \
                      --redis.cluster if they are nodes of a Cluster, or give one"
                .into()),
        };
    }
    if addresses.iter().any(|address| matches!(address, ConnectionAddr::Unix(_))) {
        return Err("Sentinels and Clusters are not reached through a unix:// socket: say redis:// or rediss://".into());
    }
    if addresses.iter().any(has_tls) && !addresses.iter().all(has_tls) {
        return Err("--redis.url is redis:// in one place and rediss:// in another: say the same for all".into());
    }
    Ok(())
}

fn log_in(mut login: RedisConnectionInfo, config: &RedisConfig) -> Result<RedisConnectionInfo, String> {
    let sources = [
        ("the password in --redis.url", login.password().is_some()),
        (PASSWORD_VARIABLE, config.password.is_some()),
        ("--redis.password-file", config.password_file.is_some()),
    ];
    let given: Vec<_> = sources.iter().filter(|(_, given)| *given).map(|(source, _)| *source).collect();
    if given.len() > 1 {
        return Err(format!("the password is given more than once: keep one of {}", given.join(" and ")));
    }
    if let Some(username) = &config.username {
        if login.username().is_some() {
            return Err("the user is given twice: in --redis.url and by --redis.username; keep one of them".into());
        }
        login = login.set_username(username);
    }
    if login.username().is_some() && given.is_empty() {
        return Err(format!("--redis.username needs a password: set --redis.password-file or {PASSWORD_VARIABLE}"));
    }
    if let Some(password) = &config.password {
        login = login.set_password(password);
    }
    Ok(login)
}

fn check_tls(address: &ConnectionAddr, tls: &TlsFiles) -> Result<(), String> {
    let given =
        [("--redis.tls-ca-file", &tls.ca), ("--redis.tls-cert-file", &tls.cert), ("--redis.tls-key-file", &tls.key)];
    let first = given.iter().find(|(_, file)| file.is_some()).map(|(option, _)| *option);
    match first {
        Some(option) if !matches!(address, ConnectionAddr::TcpTls { .. }) => {
            Err(format!("{option} needs TLS, and --redis.url does not ask for it: say rediss://"))
        }
        _ if tls.cert.is_some() != tls.key.is_some() => {
            Err("--redis.tls-cert-file and --redis.tls-key-file go together: give both or neither".into())
        }
        _ => Ok(()),
    }
}

/// The password in a file, without the newline that editors and secrets put behind it.
fn password_in(file: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(file).map_err(|error| {
        Error::new(Kind::Auth, format!("--redis.password-file {} cannot be read: {error}", file.display()))
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Auth, format!("--redis.password-file {} is not UTF-8", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(urls: &[&str]) -> RedisConfig {
        RedisConfig { urls: urls.iter().map(ToString::to_string).collect(), ..RedisConfig::default() }
    }

    fn refusal(config: RedisConfig) -> String {
        Endpoint::new(config).err().unwrap()
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_what_would_be_right() {
        let file = |file: &str| Some(file.into());
        let ca = |ca| TlsFiles { ca: file(ca), ..TlsFiles::default() };
        let cert = || TlsFiles { cert: file("/c"), ..TlsFiles::default() };
        let cluster = |urls| RedisConfig { topology: Topology::Cluster, ..config(urls) };
        for (config, wrong, right) in [
            (config(&["http://x"]), "http://", "redis://"),
            (config(&["rediss://h#insecure"]), "insecure", "--redis.tls-ca-file"),
            (config(&["redis://a", "redis://b"]), "several times", "--redis.cluster"),
            (RedisConfig { tls: ca("/dev/null"), ..config(&["rediss://h"]) }, "no certificate", "--redis.tls-ca-file"),
            (RedisConfig { tls: ca("/ca"), ..config(&["redis://h"]) }, "--redis.tls-ca-file", "rediss://"),
            (RedisConfig { tls: cert(), ..config(&["rediss://h"]) }, "--redis.tls-cert-file", "--redis.tls-key-file"),
            (cluster(&["redis://a", "rediss://b"]), "rediss://", "the same"),
            (cluster(&["unix:///s"]), "unix://", "redis://"),
            (
                RedisConfig { username: Some("u".into()), ..config(&["redis://h"]) },
                "--redis.username",
                "--redis.password-file",
            ),
            (
                RedisConfig { password_file: file("/nowhere"), ..config(&["redis://h"]) },
                "/nowhere",
                "--redis.password-file",
            ),
        ] {
            let error = refusal(config);
            assert!(error.contains(wrong) && error.contains(right), "{error}");
        }
    }

    #[test]
    fn no_error_shows_a_password() {
        for url in
            ["redis://u:s3cret@h:port", "http://u:s3cret@h", "redis://:s3cret@", "redis://u:s3cret@h/db", "s3cret"]
        {
            let error = refusal(config(&[url]));
            assert!(!error.contains("s3cret"), "{url}: {error}");
        }
        let endpoint = Endpoint::new(config(&["redis://u:s3cret@h/2"])).unwrap();
        assert_eq!(format!("{endpoint} {endpoint:?}"), "redis://h:6379, database 2 redis://h:6379, database 2");
    }

    #[test]
    fn redis_cli_reaches_the_same_server() {
        for (urls, line) in [
            (&["redis://127.0.0.1:6379"][..], "redis-cli"),
            (&["redis://u:s3cret@redis:6400/2"], "redis-cli -h redis -p 6400 -n 2"),
            (&["rediss://redis"], "redis-cli --tls -h redis"),
            (&["unix:///tmp/a socket"], "redis-cli -s '/tmp/a socket'"),
        ] {
            assert_eq!(Endpoint::new(config(urls)).unwrap().redis_cli(), line);
        }
        let topology = |topology| RedisConfig { topology, ..config(&["redis://a", "redis://b"]) };
        assert_eq!(Endpoint::new(topology(Topology::Cluster)).unwrap().redis_cli(), "redis-cli -h a -c");
        assert_eq!(Endpoint::new(topology(Topology::Sentinel("m".into()))).unwrap().redis_cli(), "redis-cli");
    }

    #[test]
    fn a_password_has_one_source() {
        let password = |urls, password: &str| RedisConfig { password: Some(password.into()), ..config(urls) };
        let error = refusal(password(&["redis://:a@h"], "b"));
        assert!(error.contains(PASSWORD_VARIABLE), "{error}");
        let user = RedisConfig { username: Some("u".into()), ..password(&["redis://h"], "b") };
        assert!(Endpoint::new(user).is_ok());
    }
}
