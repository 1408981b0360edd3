//! A shell in which redis-cli speaks to the Redis of the test, so that commands run as they are printed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

pub struct Shell {
    /// Holds the programs that come first in PATH.
    dir: TempDir,
    path: String,
    home: PathBuf,
}

impl Shell {
    /// redis-cli, as if typed in the pod of the Redis on this port. An error that Redis answers is a failure here.
    pub fn for_redis(port: u16) -> Self {
        let dir = TempDir::new().unwrap();
        let path = std::env::var("PATH").unwrap();
        let home = dir.path().to_owned();
        let shell = Self { path: format!("{}:{path}", dir.path().display()), dir, home };
        let real = which("redis-cli", &path);
        shell.program("redis-cli", &format!("exec '{real}' -e -p {port} \"$@\""));
        shell
    }

    /// Where the configuration of tools is looked for.
    pub fn set_home(&mut self, home: &Path) {
        home.clone_into(&mut self.home);
    }

    /// Puts a program first in PATH.
    pub fn program(&self, name: &str, script: &str) {
        let file = self.dir.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What the lines say, or what they said when one failed.
    pub fn run(&self, lines: &str) -> Result<String, String> {
        let output =
            Command::new("sh").args(["-ec", lines]).env("PATH", &self.path).env("HOME", &self.home).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }
}

fn which(program: &str, path: &str) -> String {
    let mut found = path.split(':').map(|dir| Path::new(dir).join(program)).filter(|file| file.exists());
    let file =
        found.next().unwrap_or_else(|| panic!("{program} is missing: install it with scripts/install-tools.sh test"));
    file.display().to_string()
}
