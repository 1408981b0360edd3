//! One connection to Redis: where it goes, how it logs in, and how questions travel over it.
//!
//! Knows nothing of streams. A secret that comes in here never goes out: [`Endpoint`] shows itself without one.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
    vec,
};

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::TcpSettings,
};

use crate::{
    cli::PASSWORD_VARIABLE,
    error::{Error, Kind},
};

/// Questions that travel in one write. Two such writes are on their way at a time, so that a thousand streams take one
/// round trip, and ten thousand don't pile up in Redis's output buffer, nor in our memory.
const QUESTIONS_A_WRITE: usize = 1024;
const WRITES_UNDER_WAY: usize = 2;

/// How long what was sent may stay unconfirmed by the other machine (not by Redis: a busy Redis loses nothing). It
/// tells a connection whose other end vanished without a word, while there is still time to make a new one.
const UNCONFIRMED_FOR: Duration = Duration::from_secs(2);

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
    address: ConnectionAddr,
    login: RedisConnectionInfo,
    password_file: Option<PathBuf>,
    tls: TlsFiles,
}

impl Endpoint {
    /// Checks that URL, credentials and files go together, and that the files can be read.
    ///
    /// # Errors
    /// A sentence without any secret.
    pub fn new(url: &str, credentials: Credentials, tls: TlsFiles) -> Result<Self, String> {
        let info = parse(url)?;
        let address = info.addr().clone();
        let login = log_in(info.redis_settings().clone().set_skip_set_lib_name(), &credentials)?;
        check_tls(&address, &tls)?;
        let endpoint = Self { address, login, password_file: credentials.password_file, tls };
        endpoint.client().map_err(|error| error.to_string())?;
        Ok(endpoint)
    }

    /// Connects and logs in. Has no deadline of its own: the caller has one.
    pub(crate) async fn connect(&self) -> Result<Connection, Error> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = self
            .client()?
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| Error::from(error).context(format_args!("cannot connect to {self}")))?;
        Ok(Connection { inner: connection, peer: self.to_string(), may_count: AtomicBool::new(true) })
    }

    /// Reads the files as they are now, and puts everything together.
    fn client(&self) -> Result<Client, Error> {
        let login = match &self.password_file {
            Some(file) => self.login.clone().set_password(password_in(file)?),
            None => self.login.clone(),
        };
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(UNCONFIRMED_FOR);
        let info = self
            .address
            .clone()
            .into_connection_info()
            .map(|info| info.set_redis_settings(login).set_tcp_settings(tcp))?;
        let client = match (&self.address, self.tls.certificates()?) {
            (ConnectionAddr::TcpTls { .. }, certificates) => Client::build_with_tls(info, certificates),
            _ => Client::open(info),
        };
        client.map_err(|error| Error::from(error).context("cannot use the TLS files"))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            ConnectionAddr::Tcp(host, port) => write!(f, "redis://{host}:{port}/{}", self.login.db()),
            ConnectionAddr::TcpTls { host, port, .. } => write!(f, "rediss://{host}:{port}/{}", self.login.db()),
            ConnectionAddr::Unix(path) => write!(f, "unix://{}", path.display()),
            _ => f.write_str("redis"),
        }
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

impl TlsFiles {
    fn certificates(&self) -> Result<TlsCertificates, Error> {
        let root_cert = self.ca.as_deref().map(|file| read(file, "--redis.tls-ca-file")).transpose()?;
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

/// A connection that is made and logged in. Dropping it closes it, whatever is still under way.
#[derive(Debug)]
pub(crate) struct Connection {
    inner: MultiplexedConnection,
    /// Who is at the other end, for the log.
    peer: String,
    may_count: AtomicBool,
}

impl Connection {
    /// Sends the questions, in as few writes as is good for Redis, and gives their replies in order.
    pub(crate) fn ask<'a>(&'a self, questions: impl Iterator<Item = Cmd> + Send + 'a) -> Replies<'a> {
        let mut questions = questions.fuse();
        let writes = std::iter::from_fn(move || {
            let mut write = Pipeline::new();
            questions.by_ref().take(QUESTIONS_A_WRITE).for_each(|question| {
                write.add_command(question);
            });
            (!write.is_empty()).then_some(write)
        });
        let answers = stream::iter(writes).map(|write| self.send(write)).buffered(WRITES_UNDER_WAY);
        Replies { answers: answers.boxed(), ready: Vec::new().into_iter() }
    }

    async fn send(&self, write: Pipeline) -> Result<Vec<Value>, Error> {
        let replies = self.inner.clone().req_packed_commands(&write, 0, write.len()).await;
        // That the connection is lost is also what redis-rs says when it cannot read what came.
        replies.map_err(|error| Error::from(error).context(format_args!("lost the connection to {}", self.peer)))
    }

    /// Does the server let us count with a script, as far as we know?
    pub(crate) fn may_count(&self) -> bool {
        self.may_count.load(Ordering::Relaxed)
    }

    /// The server does not let us count with a script: not to be tried again over this connection.
    pub(crate) fn stop_counting(&self) {
        self.may_count.store(false, Ordering::Relaxed);
    }
}

/// Replies on their way.
pub(crate) struct Replies<'a> {
    answers: BoxStream<'a, Result<Vec<Value>, Error>>,
    ready: vec::IntoIter<Value>,
}

impl Replies<'_> {
    /// The next reply, which may be an error of Redis's; the error here is that there is no reply.
    pub(crate) async fn next(&mut self) -> Result<Value, Error> {
        loop {
            if let Some(reply) = self.ready.next() {
                return Ok(reply);
            }
            let more = self.answers.try_next().await?;
            self.ready = more.ok_or_else(|| Error::protocol("one reply for each question"))?.into_iter();
        }
    }
}
