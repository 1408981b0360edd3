//! Basic authentication: users, the bcrypt hashes of their passwords, and the check.
//!
//! No password is kept, and the time that a check takes does not tell which users exist.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bcrypt::HashParts;
use ring::{hmac, rand::SystemRandom};
use tokio::task::spawn_blocking;

use crate::web::{lock, password_queue::PasswordQueue};

/// The highest cost that is accepted. Each step doubles the time: 16 takes seconds, 20 a minute.
const COST_MAX: u32 = 16;

/// One for all users, also across a reload.
static QUEUE: PasswordQueue = PasswordQueue::new();

/// The bcrypt hash of a password.
pub struct Hash(String);

impl Hash {
    /// Reads a hash as htpasswd writes it.
    ///
    /// # Errors
    /// What is wrong and what would be right, without the hash.
    pub fn new(text: &str) -> Result<Self, String> {
        let advice = "htpasswd -nBC 10 \"\" makes one";
        let parts: HashParts = text.parse().map_err(|_| format!("is no bcrypt hash: {advice}"))?;
        match parts.get_cost() {
            4..=COST_MAX => Ok(Self(text.to_owned())),
            cost @ 0..4 => Err(format!("has a cost of {cost}, and bcrypt begins at 4: {advice}")),
            cost => Err(format!(
                "has a cost of {cost}, which takes longer than a scraper waits: {COST_MAX} at most; {advice}"
            )),
        }
    }
}

/// The name and password that a client sent.
pub struct Login {
    name: String,
    password: Vec<u8>,
}

impl Login {
    /// Reads the value of an Authorization header, if it is of the Basic scheme.
    #[must_use]
    pub fn from_header(value: &[u8]) -> Option<Self> {
        let (scheme, encoded) = value.split_at_checked("Basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let mut name = STANDARD.decode(encoded.trim_ascii()).ok()?;
        let colon = name.iter().position(|byte| *byte == b':')?;
        let password = name.split_off(colon + 1);
        name.truncate(colon);
        Some(Self { name: String::from_utf8(name).ok()?, password })
    }
}

struct User {
    hash: Hash,
    /// The digest of the last right password. One a user, so that wrong passwords cannot remove it.
    accepted: Mutex<Option<hmac::Tag>>,
}

impl User {
    /// Whether this pair was accepted last. Compares in constant time.
    fn accepted(&self, key: &hmac::Key, pair: &[u8]) -> bool {
        let accepted = *lock(&self.accepted);
        accepted.is_some_and(|digest| hmac::verify(key, pair, digest.as_ref()).is_ok())
    }

    fn accept(&self, digest: hmac::Tag) {
        *lock(&self.accepted) = Some(digest);
    }
}

/// The result of a password check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The name and the password are right.
    Admitted,
    /// They are not.
    Refused,
    /// Too many other passwords wait for their check.
    Busy,
}

/// All users.
pub struct Users {
    users: BTreeMap<String, Arc<User>>,
    /// For the digests: new each time the users are read, and never written anywhere.
    key: hmac::Key,
}

impl Users {
    /// These users. No password of theirs has been checked yet.
    ///
    /// # Errors
    /// A sentence where the system has no random numbers.
    pub fn new(hashes: BTreeMap<String, Hash>) -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "the system gives no random numbers for the digests of passwords")?;
        let user = |hash| Arc::new(User { hash, accepted: Mutex::default() });
        Ok(Self { users: hashes.into_iter().map(|(name, hash)| (name, user(hash))).collect(), key })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.users.len()
    }

    /// Checks a login that came from this address. A password that was accepted before is not checked with bcrypt again.
    pub async fn admit(&self, login: Login, client: IpAddr) -> Admission {
        let known = self.users.get(&login.name);
        let Some(user) = known.or_else(|| self.substitute(&login.name)) else { return Admission::Refused };
        let pair = pair(&login, &user.hash);
        let result = |accepted| if accepted && known.is_some() { Admission::Admitted } else { Admission::Refused };
        if user.accepted(&self.key, &pair) {
            return result(true);
        }
        let Some(turn) = QUEUE.turn(client).await else { return Admission::Busy };
        // Several scrapers with the same password may wait after a start: the first one's check is enough.
        if user.accepted(&self.key, &pair) {
            return result(true);
        }
        let (user, digest, is_known) = (Arc::clone(user), hmac::sign(&self.key, &pair), known.is_some());
        // On a thread of its own, and to the end: where a check takes longer than its scraper waits, the next scrape
        // finds the password accepted.
        let check = spawn_blocking(move || {
            let right = bcrypt::verify(login.password, &user.hash.0).unwrap_or(false);
            if right && is_known {
                user.accept(digest);
            }
            drop(turn);
            right
        });
        result(check.await.unwrap_or(false))
    }

    /// Whose hash is checked for an unknown name, so that the time does not tell which names exist. A name has the same
    /// substitute each time, as a real user has the same cost each time.
    fn substitute(&self, name: &str) -> Option<&Arc<User>> {
        let digest = hmac::sign(&self.key, name.as_bytes());
        let first = digest.as_ref().first().copied().map_or(0, usize::from);
        self.users.values().nth(first.checked_rem(self.users.len())?)
    }
}

/// What the digest is made of. The length separates the name from the password.
fn pair(login: &Login, hash: &Hash) -> Vec<u8> {
    [&login.name.len().to_le_bytes(), login.name.as_bytes(), hash.0.as_bytes(), &login.password].concat()
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.users.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        time::{Duration, Instant},
    };

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn users(passwords: &[(&str, &str, u32)]) -> Users {
        let hash = |password: &str, cost| Hash::new(&bcrypt::hash(password, cost).unwrap()).unwrap();
        let hashes = passwords.iter().map(|(name, password, cost)| ((*name).to_owned(), hash(password, *cost)));
        Users::new(hashes.collect()).unwrap()
    }

    fn login(name: &str, password: &str) -> Login {
        Login { name: name.into(), password: password.into() }
    }

    /// Whether this login is admitted, in the end.
    async fn admits(users: &Users, name: &str, password: &str) -> bool {
        users.admit(login(name, password), LOCALHOST).await == Admission::Admitted
    }

    fn header(value: &str) -> Option<(String, Vec<u8>)> {
        Login::from_header(value.as_bytes()).map(|login| (login.name, login.password))
    }

    #[test]
    fn the_authorization_header_is_parsed() {
        let alice = Some(("alice".to_owned(), b"a:b".to_vec()));
        assert_eq!(header("Basic YWxpY2U6YTpi"), alice, "alice:a:b");
        assert_eq!(header("bAsIc  YWxpY2U6YTpi "), alice);
        assert_eq!(header("Basic Og=="), Some((String::new(), vec![])), "no name, no password");
        assert_eq!(header("Basic YTr//g=="), Some(("a".into(), vec![0xff, 0xfe])), "a password need not be UTF-8");
        for invalid in ["", "Basic", "Basic ", "Basic YWxpY2U", "Basic YWxpY2U=", "Basic ###", "Basic //46YQ=="] {
            assert_eq!(header(invalid), None, "{invalid}");
        }
        assert_eq!(header("Bearer YWxpY2U6YTpi"), None);
    }

    #[test]
    fn a_hash_that_cannot_be_checked_is_refused_without_showing_it() {
        let good = bcrypt::hash("s3cret", 4).unwrap();
        assert!(Hash::new(&good).is_ok());
        for (version, cost) in [("2y", "10"), ("2a", "16"), ("2x", "04")] {
            assert!(Hash::new(&format!("${version}${cost}{}", &good[6..])).is_ok(), "{version} {cost}");
        }
        for (hash, why) in [
            ("s3cret", "no bcrypt hash"),
            ("", "no bcrypt hash"),
            (&good[..59], "no bcrypt hash"),
            (&good.replace("$2b", "$1b"), "no bcrypt hash"),
            (&format!("$2b$03{}", &good[6..]), "begins at 4"),
            (&format!("$2b$17{}", &good[6..]), "a cost of 17"),
            (&format!("$2b$99{}", &good[6..]), "a cost of 99"),
        ] {
            let error = Hash::new(hash).err().unwrap();
            assert!(error.contains(why) && error.contains("htpasswd"), "{error}");
            assert!(hash.is_empty() || !error.contains(hash), "{error}");
        }
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_is_admitted() {
        let users = users(&[("alice", "a", 4), ("bob", "b", 5)]);
        for _ in 0..2 {
            assert!(admits(&users, "alice", "a").await);
            assert!(admits(&users, "bob", "b").await);
            for (name, password) in [("alice", "b"), ("alice", ""), ("", "a"), ("Alice", "a"), ("alicea", "")] {
                assert!(!admits(&users, name, password).await, "{name}:{password}");
            }
        }
        // Their substitute's password is not theirs.
        for unknown in ["carol", "dave", "eve", "frank", "grace", "heidi"] {
            for password in ["a", "b"] {
                assert!(!admits(&users, unknown, password).await, "{unknown}:{password}");
            }
        }
    }

    #[tokio::test]
    async fn a_right_password_is_not_hashed_again() {
        let users = users(&[("alice", "right", 8)]);
        let began = Instant::now();
        assert!(admits(&users, "alice", "right").await);
        let first = began.elapsed();
        for number in 0..3 {
            assert!(!admits(&users, "alice", &format!("wrong{number}")).await);
        }
        let began = Instant::now();
        assert!(admits(&users, "alice", "right").await);
        assert!(began.elapsed() * 5 < first, "{:?} after {first:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_check_goes_on_when_its_client_leaves() {
        let users = users(&[("alice", "right", 8)]);
        let hurried = || tokio::time::timeout(Duration::from_millis(1), admits(&users, "alice", "right"));
        assert!(hurried().await.is_err());
        let began = Instant::now();
        while hurried().await != Ok(true) {
            assert!(began.elapsed() < Duration::from_secs(10), "a check should have come to its end");
        }
    }

    #[test]
    fn debug_output_shows_only_names() {
        assert_eq!(format!("{:?}", users(&[("alice", "s3cret", 4)])), "{\"alice\"}");
    }
}
