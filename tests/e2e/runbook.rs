//! The runbook: each command in it, and each line that an alert prints, is typed on a real Redis.
//!
//! How the file is written: a block marked `redis` is typed at the prompt of redis-cli, a block marked `sh` in a shell. One
//! marked `redis-8.2` is typed on a Redis of that version.
//! `<!-- given: COMMAND -->` above a block is what had happened before. kubectl is played: `kubectl exec` runs the
//! program here, and the rest has nothing to say. amtool is real, with a real Alertmanager.

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    fixture::{GROUP, STREAM},
    grafana::panels,
    shell::Shell,
    shipped::{ALERTS, CAPACITY, OBSERVING, RUNBOOK, alert, rules, text},
    stack::{Generation, Process, Receiver, start_alertmanager},
    support::{Flavor, Server},
};

/// A line of a description that can be typed as it is.
pub fn is_command(line: &str) -> bool {
    line.starts_with("redis-cli ") || line.starts_with("timeout 5 redis-cli ")
}

/// A fenced block.
#[derive(Debug)]
struct Block {
    section: String,
    language: String,
    given: Vec<String>,
    lines: Vec<String>,
}

fn blocks() -> Vec<Block> {
    let text = text(RUNBOOK);
    let (mut blocks, mut section, mut given) = (Vec::new(), String::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix('#') {
            heading.trim_start_matches('#').trim().clone_into(&mut section);
        } else if let Some(command) = line.strip_prefix("<!-- given: ") {
            given.push(command.strip_suffix(" -->").unwrap().to_owned());
        } else if let Some(language) = line.strip_prefix("```") {
            let lines = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
            let (section, language) = (section.clone(), language.to_owned());
            blocks.push(Block { section, language, given: std::mem::take(&mut given), lines });
        }
    }
    blocks
}

/// The only block of a section that changes something by a script.
fn script(section: &str) -> Block {
    let is_script = |block: &Block| block.section == section && block.lines[0].starts_with("EVAL");
    blocks().into_iter().find(is_script).unwrap_or_else(|| panic!("no script in {section}"))
}

/// The anchors of all headings, as GitHub makes them.
pub fn anchors() -> BTreeSet<String> {
    let text = text(RUNBOOK);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_';
    let anchor =
        |line: &str| line.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>();
    headings.map(|line| anchor(line).replace(' ', "-")).collect()
}

/// A Redis and a shell to type in.
struct RedisShell {
    server: Server,
    shell: Shell,
}

impl RedisShell {
    fn new() -> Self {
        Self::on(Server::redis7())
    }

    fn on(server: Server) -> Self {
        let shell = Shell::for_redis(server.port);
        shell.program(
            "kubectl",
            "case \"$1\" in\n\
             exec) [ \"$2 $3 $4 $5 $6\" = '-it prompt-redis-0 -n prompt-redis --' ] || exit 1; shift 6; exec \"$@\" ;;\n\
             get | describe | logs | annotate) ;;\n\
             rollout) [ \"$3 $4 $5 $6\" = 'statefulset prompt-redis -n prompt-redis' ] ;;\n\
             *) exit 1 ;;\n\
             esac",
        );
        Self { server, shell }
    }

    /// Bootstrapped, with traffic: 40 entries, of which 30 were read and two of these not acknowledged.
    fn prepare(&self) {
        self.server.run("FLUSHALL");
        for instrument in ["hsc", "latiss", "lsstcam"] {
            self.server.run(&format!("XGROUP CREATE instrument:{instrument} {instrument}_consumer_group $ MKSTREAM"));
        }
        self.server.add(STREAM, 1..=40);
        self.server.read(STREAM, GROUP, "dead", 2);
        self.server.run(&format!("XREADGROUP GROUP {GROUP} alive COUNT 28 NOACK STREAMS {STREAM} >"));
    }

    /// Types a line at the prompt of redis-cli. There an error is an answer like any other.
    fn prompt(&self, line: &str) -> Result<String, String> {
        let answer = self.shell.run(&format!("redis-cli --no-raw <<'END'\n{line}\nEND"))?;
        if answer.lines().any(|line| line.starts_with("(error)")) { Err(answer) } else { Ok(answer) }
    }

    fn type_block(&self, block: &Block) -> String {
        for command in &block.given {
            self.prompt(command).unwrap_or_else(|said| panic!("{}: {command}: {said}", block.section));
        }
        let answers = block.lines.iter().map(|line| {
            let answer = if block.language == "sh" { self.shell.run(line) } else { self.prompt(line) };
            answer.unwrap_or_else(|said| panic!("{}: {line}: {said}", block.section))
        });
        answers.collect()
    }

    /// A fact of XINFO GROUPS.
    fn fact(&self, name: &str) -> Option<String> {
        let facts: Vec<std::collections::HashMap<String, redis::Value>> =
            redis::cmd("XINFO").arg("GROUPS").arg(STREAM).query(&mut self.server.connection()).unwrap();
        redis::from_redis_value(facts[0][name].clone()).unwrap()
    }
}

/// A Redis and an Alertmanager to type in, found by amtool where the runbook says.
struct RedisAndAlertmanager {
    redis: RedisShell,
    _alertmanager: Process,
    _dir: TempDir,
}

impl RedisAndAlertmanager {
    fn new() -> Self {
        let (mut redis, dir) = (RedisShell::new(), TempDir::new().unwrap());
        let (alertmanager, address) = start_alertmanager(Generation::Three, dir.path(), Receiver::start().address());
        // The second name is Debian's.
        for name in ["amtool/config.yml", "prometheus/amtool.yml"] {
            let file = dir.path().join(".config").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("alertmanager.url: http://{address}\nauthor: runbook\n")).unwrap();
        }
        let amtool = Generation::Three.program("amtool");
        redis.shell.program("amtool", &format!("exec '{}' \"$@\"", amtool.display()));
        redis.shell.set_home(dir.path());
        Self { redis, _alertmanager: alertmanager, _dir: dir }
    }
}

#[test]
fn every_block_can_be_typed() {
    let RedisAndAlertmanager { redis, .. } = &RedisAndAlertmanager::new();
    let blocks = blocks();
    assert!(blocks.len() > 50, "{}", blocks.len());
    let redis_8 = RedisShell::on(Server::start(Flavor::Redis8));
    for block in &blocks {
        assert!(["redis", "redis-8.2", "sh"].contains(&&*block.language), "{block:?}");
        let redis = if block.language == "redis-8.2" { &redis_8 } else { redis };
        redis.prepare();
        let said = redis.type_block(block);
        assert!(!said.contains("nothing"), "{} did nothing, so this tried nothing: {said}", block.section);
    }
}

#[test]
fn a_silence_is_made_and_ended_as_the_runbook_says() {
    let RedisAndAlertmanager { redis, .. } = &RedisAndAlertmanager::new();
    let blocks: Vec<_> = blocks().into_iter().filter(|block| block.section == "Maintenance").collect();
    let [begin, end] = &*blocks else { panic!("{blocks:?}") };
    let said = redis.type_block(begin);
    let silence = said.lines().next().unwrap();
    assert_eq!(said.matches(silence).count(), 2, "it is made, and found: {said}");
    redis.type_block(end);
    let query = begin.lines.last().unwrap();
    assert!(!redis.shell.run(query).unwrap().contains(silence), "it is over");
}

#[test]
fn every_line_that_an_alert_prints_can_be_typed() {
    let redis = RedisShell::new();
    for alert in rules(ALERTS) {
        let description =
            alert.annotation("description").replace("{{ $stream }}", STREAM).replace("{{ $group }}", GROUP);
        // StreamMissing makes the name of the group out of that of the stream.
        let description = description.replace(&format!("'{GROUP}_consumer_group'"), &format!("'{GROUP}'"));
        // What ends or begins another case of a description stands beside the line. A line that asks Prometheus for a value
        // is typed where its incident is played.
        let line_of = |line: &str| line.split("{{ else").next().unwrap().trim_end_matches("{{ end }}").to_owned();
        let lines = description.lines().filter(|line| is_command(line)).map(line_of);
        for line in lines.filter(|line| !line.contains("{{") && !line.ends_with("ACKED")) {
            redis.prepare();
            if line.contains("XGROUP CREATE") {
                redis.server.run(&format!("XGROUP DESTROY {STREAM} {GROUP}"));
            }
            redis.shell.run(&line).unwrap_or_else(|said| panic!("{}: {line}: {said}", alert.name()));
        }
    }
}

#[test]
fn the_script_of_an_alert_is_the_one_in_its_section() {
    for name in ["PromptRedisWrongType", "PromptRedisOrphanedPending", "PromptRedisPhantomLag", "PromptRedisLagUnknown"]
    {
        let description = alert(name).annotation("description").to_owned();
        let printed = description.lines().find_map(|line| line.strip_prefix("redis-cli EVAL")).unwrap();
        let printed = printed.replace("'{{ $stream }}'", STREAM).replace("'{{ $group }}'", GROUP);
        let printed = printed.replace("'moved:{{ $stream }}'", &format!("moved:{STREAM}"));
        // PromptRedisWrongType asks Prometheus for the group.
        let printed =
            printed.split_once("'{{ with query").map_or(printed.clone(), |(line, _)| format!("{line}{GROUP}"));
        assert_eq!(script(name).lines, [format!("EVAL{printed}")], "{name}");
    }
}

#[test]
fn every_alert_has_its_section_and_every_link_leads_somewhere() {
    let (text, anchors) = (text(RUNBOOK), anchors());
    for alert in rules(ALERTS) {
        let section = text.split("\n### ").find(|section| section.starts_with(alert.name())).unwrap();
        for part in ["**Tonight.**", "**See.**", "**Do.**", "**Stop**"] {
            assert!(section.contains(part), "{} has no {part}", alert.name());
        }
    }
    for link in text.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        assert!(anchors.contains(anchor), "{anchor} is no heading");
    }
}

/// In the runbook and in the alerts a panel of the boards is written as: panel "Title".
#[test]
fn every_panel_that_is_named_is_on_a_board() {
    let boards = [OBSERVING, CAPACITY].map(|name| serde_json::from_str::<Value>(&text(name)).unwrap());
    let titles: BTreeSet<_> = boards.iter().flat_map(panels).map(|panel| panel["title"].as_str().unwrap()).collect();
    let texts = [text(RUNBOOK), text(ALERTS)];
    // A line may end between the two words.
    let texts = texts.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let named: Vec<_> = texts.iter().flat_map(|text| text.split("panel \"").skip(1)).collect();
    assert!(named.len() >= 5, "{named:?}");
    for after in named {
        let name = after.split('"').next().unwrap();
        assert!(titles.contains(name), "no board has a panel {name}");
    }
}

#[test]
fn no_section_is_longer_than_can_be_read_in_a_minute() {
    let text = text(RUNBOOK);
    for section in text.split("\n## ").flat_map(|chapter| chapter.split("\n### ")) {
        let prose = section.split("```").step_by(2);
        let words = prose.flat_map(str::split_whitespace).count();
        assert!(words <= 150, "{words} words: {}", section.lines().next().unwrap_or_default());
    }
}

#[test]
fn scripts_touch_nothing_while_messages_wait() {
    let redis = RedisShell::new();
    for section in ["PromptRedisPhantomLag", "Trimming", "Dropping old consumers"] {
        redis.prepare();
        let before = redis.prompt(&format!("XINFO STREAM {STREAM} FULL")).unwrap();
        let said = redis.prompt(&script(section).lines[0]).unwrap();
        assert!(said.contains("nothing"), "{section}: {said}");
        assert_eq!(redis.prompt(&format!("XINFO STREAM {STREAM} FULL")).unwrap(), before, "{section}");
    }
}

#[test]
fn dropping_consumers_keeps_what_waits() {
    let redis = RedisShell::new();
    redis.prepare();
    let before = ["lag", "entries-read", "last-delivered-id"].map(|name| redis.fact(name));
    assert_eq!((redis.fact("consumers").as_deref(), before[0].as_deref()), (Some("2"), Some("10")));
    redis.type_block(&script("Dropping old consumers"));
    assert_eq!(redis.fact("consumers").as_deref(), Some("0"));
    assert_eq!(["lag", "entries-read", "last-delivered-id"].map(|name| redis.fact(name)), before);
}

#[test]
fn counting_again_gives_the_true_lag() {
    let redis = RedisShell::new();
    for damage in ["XDEL instrument:lsstcam 35-0", "XGROUP SETID instrument:lsstcam lsstcam_consumer_group 25-0"] {
        redis.prepare();
        redis.server.run(damage);
        assert_eq!(redis.fact("lag"), None, "{damage}");
        redis.type_block(&script("PromptRedisLagUnknown"));
        let waits = if damage.starts_with("XDEL") { "9" } else { "15" };
        assert_eq!(redis.fact("lag").as_deref(), Some(waits), "{damage}");
    }
}
