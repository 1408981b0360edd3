//! The program, as users run it, ended when dropped.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use super::{Page, Response, Server, request, until};

/// The program, as users run it, on a port of its own.
pub struct Exporter {
    child: Child,
    pub address: String,
    log: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Exporter {
    /// Watches this server with these options.
    pub fn start(server: &Server, args: &[&str]) -> Self {
        let url = format!("--redis.url={}", server.url());
        Self::start_bare(&[&[url.as_str()], args].concat())
    }

    pub fn start_bare(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"));
        command.arg("--web.listen-address=127.0.0.1:0").args(args);
        Self::spawn(&mut command)
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().unwrap();
        let reader = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let _ = writeln!(log.lock().unwrap(), "{line}");
                }
            }
        });
        let mut exporter = Self { child, address: String::new(), log, reader: Some(reader) };
        until("the exporter serves", || {
            if let Some(status) = exporter.child.try_wait().unwrap() {
                panic!("the exporter ended with {status}:\n{}", exporter.log());
            }
            exporter.address = serving(&exporter.log()).unwrap_or_default();
            !exporter.address.is_empty()
        });
        exporter
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log contains this text, since its lines come a moment after the page, and returns the log.
    pub fn logged(&self, text: &str) -> String {
        until(&format!("the log says {text}"), || self.log().contains(text));
        self.log()
    }

    /// Ends the exporter and returns its whole log.
    pub fn whole_log(mut self) -> String {
        self.signal("-TERM");
        self.wait();
        self.reader.take().unwrap().join().unwrap();
        self.log()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn scrape(&self) -> Page {
        Page(self.get("/metrics", &[]).text())
    }

    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", path, headers)
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        request(&self.address, method, path, headers)
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap().success());
    }

    /// The exit status, soon.
    pub fn wait(&mut self) -> i32 {
        let mut status = None;
        until("the exporter ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in the log line that says where we serve.
fn serving(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("message=serving") || line.contains("\"serving\""))?;
    let addresses = line.split_once("127.0.0.1:")?.1;
    let port: String = addresses.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("127.0.0.1:{port}"))
}
