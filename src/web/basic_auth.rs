//! Who may come in: users, the bcrypt hashes of their passwords, and the check.
//!
//! No password is kept, and no time that a check takes tells who is a user. Knows bcrypt, and nothing of files or HTTP
//! but what the Authorization header holds.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bcrypt::HashParts;
use ring::{hmac, rand::SystemRandom};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// The highest cost that we take. It doubles the time with every step: this one takes seconds, 20 a minute.
const COST_MAX: u32 = 16;

/// A check keeps a core busy, so there is one at a time: a flood of wrong passwords takes one thread, not hundreds.
static TURN: Semaphore = Semaphore::const_new(1);

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
            cost @ 0..4 => Err(format!("has a cost of {cost}, and bcrypt begins at 4: {advice}")),
            4..=COST_MAX => Ok(Self(text.to_owned())),
            cost => {
                Err(format!("has a cost of {cost}, more than a scraper has time for: {COST_MAX} at most; {advice}"))
            }
        }
    }
}

/// What a client says it is.
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
    /// The digest of the password that was right last. One a user, so there is nothing to bound, and no flood of wrong
    /// passwords puts a right one out.
    accepted: Mutex<Option<hmac::Tag>>,
}

impl User {
    /// Was this the last to be right? Compares in constant time.
    fn accepted(&self, key: &hmac::Key, pair: &[u8]) -> bool {
        let accepted = *self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.is_some_and(|digest| hmac::verify(key, pair, digest.as_ref()).is_ok())
    }

    fn accept(&self, digest: hmac::Tag) {
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
    }
}

/// Everybody who may come in.
pub struct Users {
    users: BTreeMap<String, Arc<User>>,
    /// For the digests: made anew each time the users are read, and never written down.
    key: hmac::Key,
}

impl Users {
    /// These users, of whom nobody has been checked yet.
    ///
    /// # Errors
    /// A sentence where the system has no random numbers.
    pub fn new(hashes: BTreeMap<String, Hash>) -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "the system gives no random numbers to keep passwords with")?;
        let user = |hash| Arc::new(User { hash, accepted: Mutex::default() });
        Ok(Self { users: hashes.into_iter().map(|(name, hash)| (name, user(hash))).collect(), key })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.users.len()
    }

    /// May this one come in? Takes the time of bcrypt, but for a pair that was right before.
    pub async fn admit(&self, login: Login) -> bool {
        let known = self.users.get(&login.name);
        let Some(user) = known.or_else(|| self.stand_in(&login.name)) else { return false };
        let pair = pair(&login, &user.hash);
        if user.accepted(&self.key, &pair) {
            return known.is_some();
        }
        let Ok(turn) = TURN.acquire().await else { return false };
        // Several scrapers come at once after a start: the second finds what the first has paid for.
        if user.accepted(&self.key, &pair) {
            return known.is_some();
        }
        let (user, digest, known) = (Arc::clone(user), hmac::sign(&self.key, &pair), known.is_some());
        // Beside the other work, and to the end: where a check takes longer than its scraper waits, the next one finds
        // it done.
        let check = spawn_blocking(move || {
            let right = bcrypt::verify(login.password, &user.hash.0).unwrap_or(false);
            if right && known {
                user.accept(digest);
            }
            drop(turn);
            right && known
        });
        check.await.unwrap_or(false)
    }

    /// Whose hash is checked for a name that nobody has, so that it takes no other time than one that somebody has. A
    /// name has the same stand-in each time, as a real user has the same cost each time.
    fn stand_in(&self, name: &str) -> Option<&Arc<User>> {
        let digest = hmac::sign(&self.key, name.as_bytes());
        let any = digest.as_ref().first().copied().map_or(0, usize::from);
        self.users.values().nth(any.checked_rem(self.users.len())?)
    }
}

/// What the digest is made of. The length keeps the end of a name from passing for the beginning of a password.
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
    use std::time::{Duration, Instant};

    use super::*;

    fn users(passwords: &[(&str, &str, u32)]) -> Users {
        let hash = |password: &str, cost| Hash::new(&bcrypt::hash(password, cost).unwrap()).unwrap();
        let hashes = passwords.iter().map(|(name, password, cost)| ((*name).to_owned(), hash(password, *cost)));
        Users::new(hashes.collect()).unwrap()
    }

    fn login(name: &str, password: &str) -> Login {
        Login { name: name.into(), password: password.into() }
    }

    fn header(value: &str) -> Option<(String, Vec<u8>)> {
        Login::from_header(value.as_bytes()).map(|login| (login.name, login.password))
    }

    #[test]
    fn the_header_is_read_as_it_is_written() {
        let alice = Some(("alice".to_owned(), b"a:b".to_vec()));
        assert_eq!(header("Basic YWxpY2U6YTpi"), alice, "alice:a:b");
        assert_eq!(header("bAsIc  YWxpY2U6YTpi "), alice);
        assert_eq!(header("Basic Og=="), Some((String::new(), vec![])), "no name, no password");
        assert_eq!(header("Basic YTr//g=="), Some(("a".into(), vec![0xff, 0xfe])), "a password need not be UTF-8");
        for nonsense in ["", "Basic", "Basic ", "Basic YWxpY2U", "Basic YWxpY2U=", "Basic ###", "Basic //46YQ=="] {
            assert_eq!(header(nonsense), None, "{nonsense}");
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
            assert!(users.admit(login("alice", "a")).await);
            assert!(users.admit(login("bob", "b")).await);
            for (name, password) in [("alice", "b"), ("alice", ""), ("", "a"), ("Alice", "a"), ("alicea", "")] {
                assert!(!users.admit(login(name, password)).await, "{name}:{password}");
            }
        }
        // Whoever stands in for them, its password opens nothing.
        for stranger in ["carol", "dave", "eve", "frank", "grace", "heidi"] {
            for password in ["a", "b"] {
                assert!(!users.admit(login(stranger, password)).await, "{stranger}:{password}");
            }
        }
    }

    #[tokio::test]
    async fn a_pair_that_was_right_is_not_paid_for_again() {
        let users = users(&[("alice", "right", 8)]);
        let began = Instant::now();
        assert!(users.admit(login("alice", "right")).await);
        let first = began.elapsed();
        for number in 0..3 {
            assert!(!users.admit(login("alice", &format!("wrong{number}"))).await);
        }
        let began = Instant::now();
        assert!(users.admit(login("alice", "right")).await);
        assert!(began.elapsed() * 5 < first, "{:?} after {first:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_check_that_nobody_waits_for_is_not_in_vain() {
        let users = users(&[("alice", "right", 8)]);
        let hurried = || tokio::time::timeout(Duration::from_millis(1), users.admit(login("alice", "right")));
        assert!(hurried().await.is_err());
        let began = Instant::now();
        while hurried().await != Ok(true) {
            assert!(began.elapsed() < Duration::from_secs(10), "somebody's check should have come to an end");
        }
    }

    #[test]
    fn what_is_shown_of_users_is_their_names() {
        assert_eq!(format!("{:?}", users(&[("alice", "s3cret", 4)])), "{\"alice\"}");
    }
}
