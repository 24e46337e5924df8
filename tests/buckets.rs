//! Blobs in a bucket, through the front door: learning, serving, moving and erasing; and a store that is away.

use serde_json::json;

use crate::support::{Archive, S3Server, SECRET_KEY, SHARED_BUCKET, SHARED_PREFIX, Style, World, archive_of, quick};

/// Files of a tenant in a folder of the server's.
fn blobs_of(folder: &std::path::Path, id: &str) -> usize {
    let folder = folder.join(id.trim_start_matches("org_"));
    if folder.exists() { files_in(&folder) } else { 0 }
}

fn files_in(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_in(&path) } else { 1 }).sum()
}

#[test]
fn a_tenant_learns_into_a_bucket_moves_and_is_erased_there() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start(folder.path());
    let mut world = World::start_on_s3(&s3, &[]);
    let acme = world.tenant("acme", "tuned");
    let id = world.operator().get("/v1/tenants/acme").ok()["id"].as_str().unwrap().to_owned();
    let run = world.learn(&acme, &archive_of(Style::Gated, 14), quick());
    assert_eq!(run["status"], "live", "{run:#}");
    let adapter = acme.get("/v1/versions/1/adapter");
    assert_eq!(adapter.status, 200);
    let prompt = json!({"model": "atelier", "prompt": "def f(", "max_tokens": 8, "seed": 1, "temperature": 0});
    let said = acme.complete(&prompt);
    let shared = s3.bucket(SHARED_BUCKET).join(SHARED_PREFIX);
    let blobs = blobs_of(&shared, &id);
    assert!(blobs >= 2, "{blobs}");
    assert_eq!(files_in(&world.data().join("blobs")), 0);

    // To a bucket of its own: one that is not there is refused, and everything goes on as it was.
    let refused = world.cli(&["tenant", "move", "acme", "--bucket", "acme-code"]);
    assert!(refused.refusal().contains("acme-code"), "{refused:?}");
    s3.make_bucket("acme-code");
    assert_eq!(world.cli(&["tenant", "move", "acme", "--bucket", "acme-code"]).object()["bucket"], "acme-code");
    assert_eq!((blobs_of(&shared, &id), blobs_of(&s3.bucket("acme-code"), &id)), (0, blobs));
    // From the bucket, not from memory.
    world.stop();
    world.serve();
    assert_eq!(acme.complete(&prompt), said);
    assert!(acme.get("/v1/versions/1/adapter").body == adapter.body);

    world.cli(&["tenant", "delete", "acme", "--yes"]).object();
    assert_eq!(blobs_of(&s3.bucket("acme-code"), &id), 0);
    world.stop();
    assert!(!world.log().contains(SECRET_KEY), "no credential in the log");
}

#[test]
fn while_the_store_is_away_requests_are_told_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut s3 = S3Server::start(folder.path());
    let world = World::start_on_s3(&s3, &["--workers", "0"]);
    let acme = world.tenant("acme", "tuned");
    let archive = Archive::new().file("a.py", b"x = 1\n").gzip();
    acme.upload("/v1/sources?name=before", &archive).ok();
    assert_eq!(world.anon().get("/readyz").status, 200);
    s3.stop();
    let refused = acme.upload("/v1/sources?name=during", &archive);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some() && refused.text().contains("storage"), "{refused:?}");
    for word in ["s3://", "127.0.0.1", SHARED_BUCKET, SECRET_KEY] {
        assert!(!refused.text().contains(word), "{word}: {refused:?}");
    }
    // What was found last is remembered for some seconds.
    let started = std::time::Instant::now();
    while world.anon().get("/readyz").status == 200 {
        assert!(started.elapsed().as_secs() < 60, "readiness never says so");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(world.anon().get("/readyz").json()["status"], "blobs_unreachable");
    assert_eq!(world.anon().get("/healthz").status, 200);
    assert_eq!(acme.get("/v1/sources").ok()["data"].as_array().unwrap().len(), 1);
    // What needs no blob goes on.
    acme.complete(&json!({"model": "atelier-base", "prompt": "def f(", "max_tokens": 2}));
    s3.resume();
    acme.upload("/v1/sources?name=after", &archive).ok();
    while world.anon().get("/readyz").status != 200 {
        assert!(started.elapsed().as_secs() < 120, "readiness never comes back");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[test]
fn a_server_without_its_bucket_says_why_it_does_not_start() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("data");
    let start = |more: &[&str]| {
        let arguments = ["--data", path.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"];
        let arguments: Vec<&str> = arguments.into_iter().chain(more.iter().copied()).collect();
        crate::support::Command::run(&arguments).refusal().to_owned()
    };
    assert!(start(&["--blobs", "gs://code"]).contains("--blobs"));
    let plain = start(&["--blobs", "s3://code-of-ours", "--blobs-endpoint", "http://127.0.0.1:9"]);
    assert!(plain.contains("--blobs-allow-http"), "{plain}");
}
