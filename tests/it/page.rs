//! The page for people, as it is sent. tests/browser looks at it in a browser.

use crate::support::{Exporter, Page, Server};

#[test]
fn the_page_is_html_with_a_strict_policy_and_no_inline_script() {
    let server = Server::redis7();
    server.run("XGROUP CREATE instrument:s g $ MKSTREAM");
    let exporter = Exporter::start(&server, &["--stream=instrument:*", "--stream=missing=g"]);
    let response = exporter.get("/", &[]);
    let policy = response.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(response.header("cache-control"), "no-store");
    let page = response.text();
    assert!(page.len() < 50_000, "{}", page.len());
    for part in ["instrument:s", "XGROUP CREATE missing g", "<noscript><meta http-equiv=\"refresh\"", "docs/runbook.md"]
    {
        assert!(page.contains(part), "{part} is not on the page:\n{page}");
    }
    assert!(!page.contains(" style=") && !page.contains("<style") && !page.contains(" onclick="), "{page}");
    assert_eq!(page.matches("<script").count(), 1);
    for (path, content_type) in
        [("/-/page.css", "text/css; charset=utf-8"), ("/-/page.js", "text/javascript; charset=utf-8")]
    {
        let part = exporter.get(path, &[]);
        assert!(part.header("content-type") == content_type && !part.text().is_empty());
    }
}

#[test]
fn hostile_names_are_text() {
    let server = Server::redis7();
    for name in ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "a\u{202e}b", "c\u{1b}[2Jd"] {
        server.run_args(&[b"XGROUP", b"CREATE", name.as_bytes(), b"<b>&\"'", b"$", b"MKSTREAM"]);
    }
    let page = Exporter::start(&server, &["--stream=*", "--stream=<i>=g"]).get("/", &[]).text();
    for raw in ["<script>alert", "<img", "<b>", "<i>", "\u{202e}", "\u{1b}"] {
        assert!(!page.contains(raw), "{raw:?} is on the page:\n{page}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)") && page.contains("a\\u{202e}b"), "{page}");
}

#[test]
fn a_page_costs_one_collection_and_holds_no_secret() {
    let mut server = Server::redis7();
    server.run("ACL SETUSER reader on >s3cret ~* +@all");
    let url = format!("--redis.url=redis://reader:s3cret@127.0.0.1:{}", server.port);
    let exporter = Exporter::start_bare(&[&url]);
    let collections = || exporter.scrape().value("prompt_redis_exporter_collections_total").unwrap();
    let before = collections();
    let page = exporter.get("/", &[]).text();
    assert_eq!(collections(), before + 2.0, "one for the page, one for the scrape");
    assert!(page.contains("reader") && !page.contains("s3cret"));
    server.kill();
    let page = exporter.get("/", &[]).text();
    assert!(page.contains("Redis is not reached") && !page.contains("<tbody>"), "nothing stale:\n{page}");
}

#[test]
fn a_thousand_streams_stay_below_a_megabyte() {
    let server = Server::redis7();
    let mut pipeline = redis::pipe();
    for number in 0..1000 {
        let stream = format!("instrument:{number:04}");
        pipeline.cmd("XGROUP").arg(&["CREATE", &stream, "some_consumer_group", "$", "MKSTREAM"]).ignore();
    }
    pipeline.query::<()>(&mut server.connection()).unwrap();
    let page = Page(Exporter::start(&server, &[]).get("/", &[]).text());
    assert_eq!(page.0.matches("<th scope=\"row\">").count(), 1000);
    assert!(page.0.len() < 1_000_000, "{}", page.0.len());
}
