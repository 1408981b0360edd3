//! The web configuration file, read again when it or a file that it names changes.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    WebConfig,
    build::{Files, read},
};
use crate::web::lock;

/// A refused configuration is tried again after this time even if no file has changed: the reason may be elsewhere, like
/// a lack of file descriptors.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The file, and the configuration that is in use.
pub struct ReloadingConfig {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    config: Arc<WebConfig>,
    /// The files that were read, as they were then.
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// Why the files as they are now cannot be used, and when that was found.
    refused: Option<(String, Instant)>,
}

impl ReloadingConfig {
    /// Reads the file and those that it names.
    ///
    /// # Errors
    /// A sentence with file and line, without any secret.
    pub fn load(file: Option<PathBuf>) -> Result<Self, String> {
        let mut state = State::default();
        if let Some(file) = &file {
            state.config = Arc::new(state.read(file)?);
        }
        Ok(Self { file, state: Mutex::new(state) })
    }

    /// The configuration of this moment. Looks at each file's metadata, and reads the files again if one has changed.
    ///
    /// As long as the files cannot be used, the previous configuration stays in use, and the log says so once.
    pub fn current(&self) -> Arc<WebConfig> {
        let mut state = lock(&self.state);
        if let Some(file) = &self.file
            && state.is_stale()
        {
            state.reload(file);
        }
        Arc::clone(&state.config)
    }
}

impl fmt::Debug for ReloadingConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReloadingConfig").field(&self.file).finish()
    }
}

impl State {
    fn is_stale(&self) -> bool {
        self.refused.as_ref().is_some_and(|(_, found)| found.elapsed() > RETRY_AFTER)
            || self.files.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    fn read(&mut self, file: &Path) -> Result<WebConfig, String> {
        let mut files = Files::beside(file);
        let config = read(file, &mut files);
        self.files = files.read;
        config
    }

    fn reload(&mut self, file: &Path) {
        let config = self.read(file).and_then(|config| {
            let weaker = |reason| format!("--web.config.file {} {reason}", file.display());
            config.check_not_weaker(&self.config).map_err(weaker).map(|()| config)
        });
        match config {
            Ok(config) => {
                tracing::info!(tls = config.tls.is_some(), users = config.users(), "read the web configuration again");
                (self.config, self.refused) = (Arc::new(config), None);
            }
            Err(error) => {
                if self.refused.as_ref().is_none_or(|(before, _)| *before != error) {
                    tracing::error!(error, "the web configuration cannot be used: the previous one stays in use");
                }
                self.refused = Some((error, Instant::now()));
            }
        }
    }
}

/// A file's metadata. Whatever rotates a secret or edits a file changes it.
#[derive(Debug, PartialEq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None` for a file that is not there.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            inode: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_configuration_is_tried_again_even_if_no_file_has_changed() {
        let found = Instant::now();
        let mut state = State { refused: Some(("out of file descriptors".into(), found)), ..State::default() };
        assert!(!state.is_stale());
        state.refused = found.checked_sub(2 * RETRY_AFTER).map(|before| ("out of file descriptors".into(), before));
        assert!(state.is_stale());
    }
}
