//! Erasing a tenant, looked for byte by byte: a thousand markers in all that a tenant can give, and then in every file
//! that the server, its database and its bucket have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;

use crate::support::{Archive, S3Server, Style, User, World, archive_of, postgres_command, quick};

/// Markers, each another word.
const MARKERS: usize = 1_000;
/// Bytes of one.
const MARKER_BYTES: usize = "mk0000-0123456789abcdef".len();

fn marker(number: usize) -> String {
    format!("mk{number:04}-{:016x}", (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Which markers are in these bytes.
fn markers_in(bytes: &[u8], found: &mut BTreeSet<usize>) {
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|byte| *byte == b'm') {
        at += next + 1;
        let Some(word) = bytes.get(at - 1..at - 1 + MARKER_BYTES) else { return };
        let number = std::str::from_utf8(&word[2..6]).ok().and_then(|digits| digits.parse().ok());
        if number.is_some_and(|number| number < MARKERS && marker(number).as_bytes() == word) {
            found.extend(number);
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() && !path.is_symlink() { files_below(&path) } else { vec![path] }).collect()
}

/// Which markers are in files below a folder, their names included.
fn markers_below(folder: &Path) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for file in files_below(folder) {
        markers_in(file.as_os_str().as_encoded_bytes(), &mut found);
        // What a server removes meanwhile is not there.
        markers_in(&fs::read(&file).unwrap_or_default(), &mut found);
    }
    found
}

/// Every place of an installation, by name.
struct Places {
    data: PathBuf,
    bucket: PathBuf,
    home: PathBuf,
}

impl Places {
    fn of(world: &World, bucket: &Path) -> Self {
        Self { data: world.data(), bucket: bucket.to_owned(), home: world.home().to_owned() }
    }

    /// Markers by place. The log that a database server writes ahead is a place of its own.
    fn search(&self, world: &World) -> BTreeMap<&'static str, BTreeSet<usize>> {
        let mut found = BTreeMap::new();
        found.insert("data folder", markers_below(&self.data));
        found.insert("bucket", markers_below(&self.bucket));
        let mut logs = BTreeSet::new();
        for log in ["stderr.log", "stdout.log"] {
            markers_in(&fs::read(self.home.join(log)).unwrap(), &mut logs);
        }
        found.insert("log", logs);
        if world.is_on_postgres() {
            // So that what was written is in files, and files of tables that were replaced are gone.
            psql("postgres", "CHECKPOINT");
            let cluster = PathBuf::from(std::env::var("ATELIER_TEST_POSTGRES").unwrap()).join("data");
            let mut tables = BTreeSet::new();
            for part in ["base", "global", "pg_stat", "pg_xact"] {
                tables.extend(markers_below(&cluster.join(part)));
            }
            assert!(!fs::read(cluster.join("PG_VERSION")).unwrap().is_empty(), "its files can be read");
            found.insert("database files", tables);
            found.insert("write-ahead log", markers_below(&cluster.join("pg_wal")));
        }
        found
    }
}

fn psql(database: &str, sql: &str) {
    done(
        postgres_command("psql")
            .args(["-qX", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql])
            .output(),
    );
}

fn done(output: std::io::Result<Output>) {
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, target).map(|_| ()).unwrap() }
    }
}

/// Which markers lie in what a tenant chose to be called, and are columns that are not sealed.
struct Planted {
    plain: BTreeSet<usize>,
    next: usize,
}

impl Planted {
    fn next(&mut self) -> String {
        self.next += 1;
        assert!(self.next <= MARKERS);
        marker(self.next - 1)
    }

    /// One for a name, which the database holds as it is.
    fn name(&mut self) -> String {
        self.plain.insert(self.next);
        self.next()
    }
}

/// A thousand, over everything that a tenant can give.
fn plant(world: &World, user: &User) -> Planted {
    let mut planted = Planted { plain: BTreeSet::new(), next: 1 };
    // The first is the tenant's name.
    planted.plain.insert(0);
    for source in 0..20 {
        let mut archive = Archive::new();
        for _ in 0..16 {
            let (path, content) = (planted.next(), planted.next());
            archive = archive.file(&format!("{path}/main.py"), format!("# {content}\nx = 1\n").as_bytes());
        }
        let name = planted.next();
        let path = format!("/v1/sources?name={name}-{source}");
        user.upload(&path, &archive.gzip()).ok();
    }
    for at in 0..60 {
        let key = user.post("/v1/keys", &json!({"name": planted.name(), "role": "reader"})).ok();
        if at % 3 == 0 {
            user.patch(&format!("/v1/keys/{}", key["id"].as_str().unwrap()), &json!({"name": planted.name()})).ok();
        }
        if at % 4 == 0 {
            user.delete(&format!("/v1/keys/{}", key["id"].as_str().unwrap())).ok();
        }
    }
    for _ in 0..30 {
        let prompt = planted.next();
        let stop = planted.next();
        user.complete(&json!({"model": "atelier-base", "prompt": prompt, "stop": [stop], "max_tokens": 1}));
    }
    // Requests that are refused, whose text is in an error's way: bodies, names of models, paths, headers.
    for at in 0..30 {
        let text = planted.next();
        let answer = match at % 5 {
            0 => user.post("/v1/completions", &json!({"model": text, "prompt": "x"})),
            1 => user.post("/v1/completions", &json!({"model": "atelier", "prompt": "x", "max_tokens": text})),
            2 => user.get(&format!("/v1/runs/{text}")),
            3 => user.post("/v1/runs", &json!({"source": text})),
            _ => user.upload(&format!("/v1/sources?name={text}"), text.as_bytes()),
        };
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    // Learning, from code whose markers are trained on.
    let mut archive = Archive::new();
    for (path, text) in crate::support::files(Style::Gated, 14) {
        archive = archive.file(&path, format!("{text}\n# {}\n", planted.next()).as_bytes());
    }
    let source = user.upload(&format!("/v1/sources?name={}", planted.next()), &archive.gzip()).ok();
    let body = json!({"source": source["id"], "kind": "learn", "options": quick()});
    let run = user.with_header("idempotency-key", &planted.next()).post("/v1/runs", &body).ok();
    let id = run["id"].as_str().unwrap();
    world.wait_for_run(user, id, |run| !matches!(run["status"].as_str(), Some("queued" | "running")));
    // The rest in one more archive.
    let mut archive = Archive::new();
    while planted.next < MARKERS {
        let content = planted.next();
        archive = archive.file(&format!("rest/{}.py", planted.next), format!("y = '{content}'\n").as_bytes());
    }
    user.upload("/v1/sources?name=rest", &archive.gzip()).ok();
    planted
}

#[test]
fn case_44_a_thousand_markers_are_found_nowhere_after_erasing_nor_after_a_restore() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start(&folder.path().join("s3"));
    let log = folder.path().join("erasures.jsonl");
    let mut world = World::start_on_s3(&s3, &["--erasure-log", log.to_str().unwrap()]);
    if world.separation().is_some() {
        // A schema or database of its own is dropped, which the store's tests see; this one is about shared tables.
        return;
    }
    let acme = world.tenant(&marker(0), "tuned");
    let other = world.tenant("other", "tuned");
    other.upload("/v1/sources?name=code", &archive_of(Style::Gated, 2)).ok();
    let planted = plant(&world, &acme);
    let places = Places::of(&world, &folder.path().join("s3"));
    let before = places.search(&world);
    report("before erasing", &before);
    let found: BTreeSet<usize> = before.values().flatten().copied().collect();
    assert!(found.len() > 50 && found.is_subset(&planted.plain), "names lie there as they are, and nothing else");

    // A backup of everything.
    world.stop();
    let (data, bucket) = (folder.path().join("backup-data"), folder.path().join("backup-s3"));
    copy(&places.data, &data);
    copy(&places.bucket, &bucket);
    let dump = folder.path().join("dump");
    if let Some(database) = world.database() {
        let to = dump.to_str().unwrap();
        done(postgres_command("pg_dump").args(["-U", "postgres", "-Fc", "-f", to, &database.name]).output());
    }
    world.serve();
    let erased = world.operator().delete(&format!("/v1/tenants/{}", marker(0))).ok();
    assert!(erased["erasure"]["completed_at"].is_i64(), "{erased}");
    let after = places.search(&world);
    report("after erasing", &after);
    none(&after, &planted);
    world.stop();
    let closed = places.search(&world);
    report("after the server has stopped", &closed);
    none(&closed, &planted);

    // Everything as it was in the backup; the log of erasures lies elsewhere and stays.
    for (backup, place) in [(&data, &places.data), (&bucket, &places.bucket)] {
        for file in files_below(place) {
            fs::remove_file(file).unwrap();
        }
        copy(backup, place);
        fs::remove_dir_all(backup).unwrap();
    }
    if let Some(database) = world.database() {
        psql(&database.name, "DROP SCHEMA atelier CASCADE");
        psql(&database.name, "DROP SCHEMA atelier_tenants CASCADE");
        done(
            postgres_command("pg_restore")
                .args(["-U", "postgres", "-d", &database.name, dump.to_str().unwrap()])
                .output(),
        );
        fs::remove_file(&dump).unwrap();
    }
    let restored = places.search(&world);
    report("in the restored backup", &restored);
    let found = |place: &str| restored.get(place).map_or(0, BTreeSet::len);
    assert!(found("data folder") + found("database files") > 50, "the backup brings them back");
    world.serve();
    let replayed = places.search(&world);
    report("after its first start", &replayed);
    none(&replayed, &planted);
    assert_eq!(acme.get("/v1/sources").status, 401);
    assert_eq!(other.get("/v1/sources").ok()["data"].as_array().unwrap().len(), 1);
}

fn report(when: &str, found: &BTreeMap<&'static str, BTreeSet<usize>>) {
    let counts: Vec<String> = found.iter().map(|(place, markers)| format!("{place} {}", markers.len())).collect();
    eprintln!("markers of {MARKERS} {when}: {}", counts.join(", "));
}

/// No marker anywhere, but for names in PostgreSQL's write-ahead log, which the server writes over in its own time. The
/// ledger, which stays, has asked for no version by name.
fn none(found: &BTreeMap<&'static str, BTreeSet<usize>>, planted: &Planted) {
    for (place, markers) in found {
        if *place == "write-ahead log" {
            assert!(markers.is_subset(&planted.plain), "{place}: {markers:?}");
        } else {
            assert_eq!(*markers, BTreeSet::new(), "{place}");
        }
    }
}
