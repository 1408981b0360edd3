//! promtool, which checks pages.

use std::{
    io::Write,
    process::{Command, Stdio},
};

/// promtool's complaints about a page: empty if there are none.
pub fn lint(page: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: install it with scripts/install-tools.sh test");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    format!("{}{}", String::from_utf8_lossy(&said), if output.status.success() { "" } else { "promtool failed" })
}
