//! What each kind of server makes of the same commands, as golden files: the table of what its counters can be trusted
//! for.

use crate::{
    golden::compare,
    support::{Exporter, Flavor, Server},
};

/// A stream for each state in which servers count differently, named after it.
fn play_the_states(server: &Server) {
    for stream in ["bootstrapped", "unread", "trimmed", "trimmed-read-on", "deleted", "deleted-read-on", "pending"] {
        server.run(&format!("XGROUP CREATE {stream} g $ MKSTREAM"));
        if stream != "bootstrapped" {
            server.add(stream, 1..=10);
        }
    }
    for stream in ["trimmed", "trimmed-read-on"] {
        server.read(stream, "g", "w", 4);
        server.run(&format!("XTRIM {stream} MAXLEN 1"));
    }
    for stream in ["deleted", "deleted-read-on"] {
        server.read(stream, "g", "w", 3);
        server.run(&format!("XDEL {stream} 7-0"));
    }
    for stream in ["trimmed-read-on", "deleted-read-on"] {
        server.read(stream, "g", "w", 10);
    }
    server.read("pending", "g", "w", 10);
    server.run("XACK pending g 1-0 2-0 3-0");
    server.add("set-by-hand", 1..=10);
    server.run_all("XGROUP CREATE set-by-hand middle 5-0\nXGROUP CREATE set-by-hand back $");
    server.run("XGROUP SETID set-by-hand back 2-0");
}

#[test]
fn the_same_states_on_each_kind_of_server() {
    for (flavor, name) in [
        (Flavor::Redis8, "states.redis-8.2.txt"),
        (Flavor::Redis7, "states.redis-7.0.txt"),
        (Flavor::Redis6, "states.redis-6.2.txt"),
        (Flavor::Valkey9, "states.valkey-9.txt"),
    ] {
        let server = Server::start(flavor);
        play_the_states(&server);
        let page = Exporter::start(&server, &["--stream=*"]).scrape();
        // The ids are no times, so that there are no ages; how long a message is pending differs from run to run.
        let constant = |line: &&str| line.starts_with("redis_stream_") && !line.contains("_idle_seconds{");
        let samples: String = page.0.lines().filter(constant).flat_map(|line| [line, "\n"]).collect();
        compare(name, &samples);
    }
}
