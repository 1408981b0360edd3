//! Where Redis is and how to log in: one server, the master that Sentinels name, or a Cluster.
//!
//! Checks what was typed, and makes connections. A secret that comes in here never goes out: [`Endpoint`] shows itself
//! without one. Files are read again at every connect, so that a rotated secret or certificate needs no restart.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, TlsCertificates,
    cluster::ClusterClientBuilder,
    io::tcp::TcpSettings,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

use crate::{
    cli::PASSWORD_VARIABLE,
    model::error::{Error, Kind},
    redis::connection::Connection,
    web::tls,
};

/// How long what was sent may stay unconfirmed by the other machine. It tells a connection whose other end vanished
/// without a word, while there is still time to make a new one. A Redis that is merely busy is confirmed for by its
/// machine, as long as what we send fits into the buffers there.
const UNCONFIRMED_FOR: Duration = Duration::from_secs(2);

/// A node of a Cluster is asked again this often, with so many milliseconds in between, before it is given up: it may
/// just be handing a slot over. A collection has its own deadline.
const CLUSTER_RETRIES: u32 = 3;
const CLUSTER_RETRY_WAIT: (u64, u64) = (20, 200);

/// What the addresses are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// Sentinels, which know where the master of this name is.
    Sentinel(String),
    /// Some nodes of a Cluster.
    Cluster,
}

/// Who we are to Redis, besides what the URL says.
#[derive(Default)]
pub struct Credentials {
    /// The ACL user.
    pub username: Option<String>,
    /// The password itself.
    pub password: Option<String>,
    /// A file that holds the password, read at every connect.
    pub password_file: Option<PathBuf>,
}

/// The files that TLS needs, in PEM, read at every connect.
#[derive(Debug, Default)]
pub struct TlsFiles {
    /// The certificate authority to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Where Redis is and how to log in.
pub struct Endpoint {
    topology: Topology,
    /// One for a single server; several Sentinels, or nodes of a Cluster.
    addresses: Vec<ConnectionAddr>,
    login: RedisConnectionInfo,
    /// How to log in to the Sentinels, which may differ from the master.
    sentinel_login: RedisConnectionInfo,
    password_file: Option<PathBuf>,
    tls: TlsFiles,
}

impl Endpoint {
    /// Checks that URLs, credentials and files go together, and that the files can be read.
    ///
    /// # Errors
    /// A sentence without any secret.
    pub fn new(urls: &[String], topology: Topology, credentials: Credentials, tls: TlsFiles) -> Result<Self, String> {
        let infos = urls.iter().map(|url| parse(url)).collect::<Result<Vec<_>, _>>()?;
        let first = infos.first().ok_or("--redis.url is missing: say redis://host:6379")?;
        let from_url = first.redis_settings().clone().set_skip_set_lib_name();
        let addresses: Vec<_> = infos.iter().map(|info| info.addr().clone()).collect();
        check_topology(&topology, &addresses)?;
        check_tls(first.addr(), &tls)?;

        // What a URL says of a login is for whom the URL leads to: with Sentinels, that is not the master.
        let (to_server, sentinel_login) = match topology {
            Topology::Sentinel(_) => {
                (RedisConnectionInfo::default().set_db(from_url.db()).set_skip_set_lib_name(), from_url)
            }
            _ => (from_url, RedisConnectionInfo::default()),
        };
        let login = log_in(to_server, &credentials)?;
        let password_file = credentials.password_file;
        let endpoint = Self { topology, addresses, login, sentinel_login, password_file, tls };
        endpoint.current_login().map_err(|error| error.to_string())?;
        let certificates = endpoint.tls.certificates().map_err(|error| error.to_string())?;
        if endpoint.is_tls() {
            let info = first.clone();
            Client::build_with_tls(info, certificates)
                .map_err(|error| format!("the TLS files cannot be used: {error}"))?;
        }
        Ok(endpoint)
    }

    /// Is it a Cluster, of which no one server can speak for all?
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.topology == Topology::Cluster
    }

    /// Connects and logs in. Has no deadline of its own: the caller has one.
    pub(crate) async fn connect(&self) -> Result<Connection, Error> {
        let connection = match &self.topology {
            Topology::Single => self.connect_to(self.client()?).await,
            Topology::Sentinel(master) => self.connect_to(self.ask_sentinels(master).await?).await,
            Topology::Cluster => self.connect_to_cluster().await,
        };
        connection.map_err(|error| self.cannot_connect(error))
    }

    async fn connect_to(&self, client: Client) -> Result<Connection, Error> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Connection::to_one(connection, self.to_string()))
    }

    async fn connect_to_cluster(&self) -> Result<Connection, Error> {
        let login = self.current_login()?;
        let (shortest, longest) = CLUSTER_RETRY_WAIT;
        let mut builder = ClusterClientBuilder::new(self.addresses.clone())
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(shortest)
            .max_retry_wait(longest)
            // Our own deadline is the one that counts.
            .response_timeout(Duration::MAX)
            .tcp_settings(tcp_settings());
        if let Some(username) = login.username() {
            builder = builder.username(username);
        }
        if let Some(password) = login.password() {
            builder = builder.password(password);
        }
        if self.is_tls() {
            builder = builder.certs(self.tls.certificates()?);
        }
        let connection = builder.build()?.get_async_connection().await?;
        Ok(Connection::to_cluster(connection, self.to_string()))
    }

    /// The client of the server that the Sentinels call the master, and that calls itself so.
    async fn ask_sentinels(&self, master: &str) -> Result<Client, Error> {
        let login = self.current_login()?;
        let mut builder = SentinelClientBuilder::new(self.addresses.clone(), master, SentinelServerType::Master)?
            .set_client_to_redis_db(login.db())
            .set_client_to_redis_tcp_settings(tcp_settings())
            .set_client_to_sentinel_tcp_settings(tcp_settings());
        if let Some(username) = login.username() {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = login.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(username) = self.sentinel_login.username() {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = self.sentinel_login.password() {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if self.is_tls() {
            let certificates = self.tls.certificates()?;
            builder = builder
                .set_client_to_redis_tls_mode(redis::TlsMode::Secure)
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
        let found = builder.build()?.async_get_client().await;
        found.map_err(|error| self.cannot_connect(error.into()))
    }

    /// The client of a single server, with the files as they are now.
    fn client(&self) -> Result<Client, Error> {
        let address = self.addresses.first().ok_or_else(|| Error::new(Kind::Connect, "no address"))?;
        let login = self.current_login()?;
        let info = address.clone().into_connection_info()?.set_redis_settings(login).set_tcp_settings(tcp_settings());
        Ok(if self.is_tls() { Client::build_with_tls(info, self.tls.certificates()?)? } else { Client::open(info)? })
    }

    /// The login, with the password file as it is now.
    fn current_login(&self) -> Result<RedisConnectionInfo, Error> {
        match &self.password_file {
            Some(file) => Ok(self.login.clone().set_password(password_in(file)?)),
            None => Ok(self.login.clone()),
        }
    }

    fn is_tls(&self) -> bool {
        matches!(self.addresses.first(), Some(ConnectionAddr::TcpTls { .. }))
    }

    fn cannot_connect(&self, error: Error) -> Error {
        error.context(format_args!("cannot connect to {self}"))
    }
}

fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNCONFIRMED_FOR);
    settings
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

fn log_in(mut login: RedisConnectionInfo, credentials: &Credentials) -> Result<RedisConnectionInfo, String> {
    let sources = [
        ("the password in --redis.url", login.password().is_some()),
        (PASSWORD_VARIABLE, credentials.password.is_some()),
        ("--redis.password-file", credentials.password_file.is_some()),
    ];
    let given: Vec<_> = sources.iter().filter(|(_, given)| *given).map(|(source, _)| *source).collect();
    if given.len() > 1 {
        return Err(format!("the password is given more than once: keep one of {}", given.join(" and ")));
    }
    if let Some(username) = &credentials.username {
        if login.username().is_some() {
            return Err("the user is given twice: in --redis.url and by --redis.username; keep one of them".into());
        }
        login = login.set_username(username);
    }
    if login.username().is_some() && given.is_empty() {
        return Err(format!("--redis.username needs a password: set --redis.password-file or {PASSWORD_VARIABLE}"));
    }
    if let Some(password) = &credentials.password {
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
    let bytes = read(file, "--redis.password-file")?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Auth, format!("--redis.password-file {} is not UTF-8", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read(file: &Path, option: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| {
        Error::new(
            if option == "--redis.password-file" { Kind::Auth } else { Kind::Connect },
            format!("{option} {} cannot be read: {error}", file.display()),
        )
    })
}

/// The authorities in a file, which are at least one: without any, every server would be refused.
fn authorities_in(file: &Path) -> Result<Vec<u8>, Error> {
    let pem = read(file, "--redis.tls-ca-file")?;
    tls::certificates(&pem)
        .map_err(|error| Error::new(Kind::Connect, format!("--redis.tls-ca-file {}: {error}", file.display())))?;
    Ok(pem)
}

impl TlsFiles {
    fn certificates(&self) -> Result<TlsCertificates, Error> {
        let root_cert = self.ca.as_deref().map(authorities_in).transpose()?;
        let client_tls = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig {
                client_cert: read(cert, "--redis.tls-cert-file")?,
                client_key: read(key, "--redis.tls-key-file")?,
            }),
            _ => None,
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }
}
