//! What people and attackers get wrong: each has its clear error, and the server goes on.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use tar::EntryType;

use crate::support::{Answer, Archive, Command, Style, User, World, archive_of, runtime, shipped_base};

const CODE: &[u8] = b"def f(x):\n    return x + 1\n";
/// A file that no source wants.
const HUGE_FILE_BYTES: u64 = 200 << 20;
/// A body that no endpoint but the upload's takes: its limit is 4 MiB.
const HUGE_BODY_BYTES: usize = 6 << 20;

/// The server still answers, and answers right.
#[track_caller]
fn check_alive(world: &World, user: &User) {
    assert_eq!(world.anon().get("/healthz").status, 200);
    let ask = json!({"model": "atelier", "prompt": "a", "max_tokens": 1});
    assert_eq!(user.post("/v1/completions", &ask).status, 200);
}

#[track_caller]
fn check_refused(answer: &Answer, status: u16, code: &str, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = answer.error();
    assert_eq!(error["code"], json!(code), "{answer:?}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(words), "{message:?} lacks {words:?}");
}

#[test]
fn sources_that_are_no_code() {
    let world = World::start();
    let acme = world.tenant("acme", "tuned");
    let good = || Archive::new().file("a.py", CODE);
    let noise: Vec<u8> = (0..40_000_u32).flat_map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let whole = Archive::new().file("a.py", CODE).file("noise.bin", &noise).gzip();
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("leads out", good().file("../../etc/cron.d/evil.py", CODE).gzip(), "'..'"),
        ("absolute", good().file("/etc/cron.d/evil.py", CODE).gzip(), "absolute path"),
        ("link", good().link("passwd.py", EntryType::Symlink).gzip(), "is a link"),
        ("hard link", good().link("passwd.py", EntryType::Link).gzip(), "is a link"),
        ("device", good().link("null.py", EntryType::Char).gzip(), "device"),
        ("no text", Archive::new().file("logo.png", b"\x89PNG\r\n\x1a\n\0\0").gzip(), "no text to learn from"),
        ("prose", Archive::new().file("README.md", b"# Hello\n").gzip(), "prose or data"),
        ("not UTF-8", Archive::new().file("a.py", b"caf\xe9 = 1\n").gzip(), "not UTF-8"),
        ("no files", Archive::new().gzip(), "empty"),
        ("no bytes", Vec::new(), "empty"),
        ("a zip", b"PK\x03\x04 and so on".to_vec(), "tar.gz"),
        ("cut", whole[..whole.len() / 2].to_vec(), "tar.gz"),
        ("a bomb", bomb(), "times its size"),
    ];
    for (what, archive, words) in cases {
        let answer = acme.upload("/v1/sources?name=bad", &archive);
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        check_refused(&answer, 400, "invalid_source", words);
    }
    assert_eq!(acme.get("/v1/sources").ok()["data"], json!([]), "nothing of them was kept");
    let etc = PathBuf::from("/etc/cron.d/evil.py");
    assert!(!etc.exists());
    // Bad files among good ones are left out, and said so.
    let mixed = good().file("b.py", b"caf\xe9 = 1\n").file("c.bin", b"\0\x01").gzip();
    assert_eq!(acme.upload("/v1/sources?name=mixed", &mixed).status, 201);
    let names = ["", "%00", &"n".repeat(300)];
    for name in names {
        check_refused(&acme.upload(&format!("/v1/sources?name={name}"), &good().gzip()), 400, "invalid_value", "name");
    }
    for path in ["/etc", "/", "relative", "/nowhere", &world.data().display().to_string()] {
        let answer = world.operator().acting_for("acme").post("/v1/sources", &json!({"path": path}));
        check_refused(&answer, 400, "invalid_source", "does not allow that path");
    }
    check_alive(&world, &acme);
}

/// A tar.gz with a file of 200 MB of zeros, put together from one small piece: gzip members follow each other.
fn bomb() -> Vec<u8> {
    const PIECE: usize = 1 << 20;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut header = tar::Header::new_gnu();
    header.set_path("huge.py").unwrap();
    header.set_size(HUGE_FILE_BYTES);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = gzip(header.as_bytes());
    let piece = gzip(&vec![0; PIECE]);
    for _ in 0..HUGE_FILE_BYTES / PIECE as u64 {
        archive.extend(&piece);
    }
    archive.extend(gzip(&[0; 1024]));
    archive
}

#[test]
fn folders_that_the_command_line_is_given() {
    let world = World::start_with(&["--workers", "0"], &[]);
    world.tenant("acme", "tuned");
    let folder = |name: &str| {
        let folder = world.home().join(name);
        fs::create_dir(&folder).unwrap();
        folder
    };
    let learn = |folder: &Path| world.cli(&["learn", "--tenant", "acme", folder.to_str().unwrap()]);
    assert!(learn(&folder("empty")).refusal().contains("empty"));
    assert!(learn(Path::new("/nowhere/at/all")).refusal().contains("no file or folder"));
    let textless = folder("textless");
    fs::write(textless.join("a.bin"), b"\0\x01\x02").unwrap();
    fs::write(textless.join("b.py"), b"caf\xe9 = 1\n").unwrap();
    assert!(learn(&textless).refusal().contains("1 binary, 1 not UTF-8"));
    // A file of 200 MB that takes no place, a link out, and a file worth learning from.
    let mixed = folder("mixed");
    File::create(mixed.join("huge.py")).unwrap().set_len(HUGE_FILE_BYTES).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", mixed.join("link.py")).unwrap();
    std::os::unix::fs::symlink("/etc", mixed.join("linked")).unwrap();
    fs::write(mixed.join("good.py"), CODE).unwrap();
    let queued = learn(&mixed).object();
    assert_eq!(queued["status"], "queued");
    let source = world.operator().acting_for("acme").get("/v1/sources").ok()["data"][0].clone();
    assert!(source["bytes"].as_u64().unwrap() < 10_000, "only the good file is there: {source}");
    let unknown = world.cli(&["learn", "--tenant", "nobody", mixed.to_str().unwrap()]);
    assert!(unknown.refusal().contains("There is no tenant `nobody`"), "{unknown:?}");
    let unnamed = world.cli(&["learn", mixed.to_str().unwrap()]);
    assert!(unnamed.refusal().contains("--tenant"), "{unnamed:?}");
}

#[test]
fn requests_that_are_no_requests() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let json_body = |body: &[u8]| Some(("application/json", body.to_vec()));
    let nested = format!("{{\"model\": \"atelier\", \"prompt\": {}", "[".repeat(200_000));
    let bodies: [(&str, &[u8], &str); 8] = [
        ("cut", b"{\"model\": \"atelier\", \"prompt\": \"a", "EOF"),
        ("nothing", b"", "EOF"),
        ("no JSON", b"model=atelier", "expected value"),
        ("not UTF-8", b"{\"model\": \"atelier\", \"prompt\": \"caf\xe9\"}", "unicode"),
        ("a list", b"[1, 2]", "parse the JSON"),
        ("no model", b"{\"prompt\": \"a\"}", "missing field `model`"),
        ("wrong type", b"{\"model\": \"atelier\", \"prompt\": {\"a\": 1}}", "a list of token ids"),
        ("deep", nested.as_bytes(), "recursion limit"),
    ];
    for (what, body, words) in bodies {
        let answer = acme.send("POST", "/v1/completions", json_body(body));
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        check_refused(&answer, 400, "invalid_json", words);
    }
    let huge = vec![b' '; HUGE_BODY_BYTES];
    check_refused(&acme.send("POST", "/v1/completions", json_body(&huge)), 413, "request_too_large", "");
    check_alive(&world, &acme);
}

/// A completion of a good request with these fields in place of its own.
fn complete(user: &User, fields: &Value) -> Answer {
    let mut body = json!({"model": "atelier", "prompt": "a", "max_tokens": 2});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    user.post("/v1/completions", &body)
}

#[test]
fn parameters_that_cannot_be() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let parameters = [
        (json!({"n": 0}), "n"),
        (json!({"n": 1_000}), "n"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": 2.5}), "temperature"),
        (json!({"top_p": 7}), "top_p"),
        (json!({"max_tokens": 1_000_000}), "max_tokens"),
        (json!({"logprobs": 6}), "logprobs"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": ["x".repeat(1_000)]}), "stop"),
        (json!({"prompt": vec!["a"; 64]}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [4_000_000_000_u32]}), "prompt"),
        (json!({"presence_penalty": 1}), "presence_penalty"),
        (json!({"logit_bias": {"1": 2}}), "logit_bias"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"suffix": "b", "echo": true}), "echo"),
    ];
    for (extra, param) in parameters {
        let answer = complete(&acme, &extra);
        assert_eq!(answer.status, 400, "{extra}: {answer:?}");
        assert_eq!(answer.error()["param"], json!(param), "{extra}: {answer:?}");
    }
    // Editors send fields of their own to completions; our own resources have no such excuse.
    assert_eq!(complete(&acme, &json!({"x_editor": true, "prompt": ""})).status, 200);
    let long = "x = 1\n".repeat(4_000);
    check_refused(&complete(&acme, &json!({"prompt": long})), 400, "context_length_exceeded", "2048");
    check_alive(&world, &acme);
}

#[test]
fn resources_that_are_misnamed_or_misused() {
    let world = World::start();
    let (acme, operator) = (world.tenant("acme", "shared"), world.operator());
    let unknown = [
        operator.post("/v1/tenants", &json!({"name": "other", "plan": "shared", "colour": "red"})),
        acme.post("/v1/runs", &json!({"source": "src_1", "options": {}, "colour": "red"})),
        acme.post("/v1/runs", &json!({"source": "src_1", "options": {"colour": "red"}})),
        acme.put("/v1/aliases/live", &json!({"version": 1, "colour": "red"})),
        operator.patch("/v1/tenants/acme", &json!({"plan": "tuned", "colour": "red"})),
    ];
    for answer in unknown {
        check_refused(&answer, 400, "invalid_json", "colour");
    }
    for name in ["", "Acme", "a b", "../x", "-a", &"a".repeat(41), "ä"] {
        check_refused(
            &operator.post("/v1/tenants", &json!({"name": name, "plan": "shared"})),
            400,
            "invalid_value",
            "",
        );
    }
    check_refused(&operator.post("/v1/tenants", &json!({"name": "b", "plan": "gold"})), 400, "invalid_value", "plan");
    check_refused(&operator.post("/v1/tenants", &json!({"name": "acme", "plan": "shared"})), 409, "name_taken", "");
    let moved = |body: &Value| operator.patch("/v1/tenants/acme", body);
    check_refused(&moved(&json!({"separation": "far"})), 400, "invalid_value", "separation");
    check_refused(&moved(&json!({"separation": "file", "plan": "gold"})), 400, "invalid_value", "plan");
    assert_eq!(moved(&json!({})).ok()["plan"], "shared", "a change of nothing changes nothing");
    check_refused(&acme.get("/v1/runs/run_%00"), 404, "not_found", "");
    check_refused(&acme.get("/v1/sources/src_0123"), 404, "not_found", "");
    check_refused(&acme.get("/v1/nonsense"), 404, "unknown_url", "");
    check_refused(&acme.send("PATCH", "/v1/models", None), 405, "method_not_allowed", "");
    check_refused(&acme.put("/v1/aliases/dead", &json!({"version": 1})), 404, "alias_not_found", "live");
    check_refused(&acme.get("/v1/organization/usage/completions"), 400, "invalid_value", "start_time");
    check_refused(&acme.get("/v1/organization/usage/completions?start_time=x"), 400, "invalid_query", "");
    check_refused(
        &acme.send("POST", "/v1/sources", Some(("text/html", b"<p>".to_vec()))),
        415,
        "unsupported_media_type",
        "",
    );
    check_alive(&world, &acme);
}

/// Sends bytes as they are; the status line's number, if an answer came.
fn raw(world: &World, request: &[u8]) -> Option<u16> {
    let address = world.url();
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server that has read enough may close before all is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[test]
fn bytes_that_are_no_http() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let key = acme.key();
    let with_header =
        |header: &[u8]| [b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", header, b"\r\n\r\n"].concat();
    let bearer = |text: &str| format!("Authorization: {text}").into_bytes();
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("a good one, to compare with", with_header(&bearer(&format!("Bearer {key}"))), &[200]),
        ("a header without a colon", with_header(b"what is this"), &[400]),
        ("a NUL in a header", with_header(b"X-A: a\0b"), &[400]),
        ("a key that is not ASCII", with_header(b"Authorization: Bearer atl_\xff\xfe"), &[401]),
        ("another scheme", with_header(&bearer(&format!("Basic {key}"))), &[401]),
        ("no key after the scheme", with_header(&bearer("Bearer ")), &[401]),
        ("a key of a megabyte", with_header(&bearer(&format!("Bearer {}", "a".repeat(1 << 20)))), &[431, 400]),
        (
            "an organization that is not ASCII",
            with_header(&[&bearer(&format!("Bearer {key}")), &b"\r\nOpenAI-Organization: \xc3\xa9"[..]].concat()),
            &[400],
        ),
        (
            "two lengths",
            b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 9\r\n\r\nabc".to_vec(),
            &[400],
        ),
        (
            "a length that is no number",
            b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".to_vec(),
            &[400],
        ),
        ("another protocol", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n".to_vec(), &[400]),
        ("an odd path", b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(), &[404]),
    ];
    for (what, request, expected) in cases {
        let status = raw(&world, &request);
        assert!(status.is_some_and(|status| expected.contains(&status)), "{what}: {status:?}");
    }
    // Half a request, and gone.
    for half in [&b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Le"[..], b"G"] {
        let address = world.url();
        TcpStream::connect(address.trim_start_matches("http://")).unwrap().write_all(half).unwrap();
    }
    check_alive(&world, &acme);
}

/// A copy of the shipped base: links for what stays, so that it costs nothing.
fn copy_of_base(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for entry in fs::read_dir(shipped_base()).unwrap() {
        let path = entry.unwrap().path();
        std::os::unix::fs::symlink(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
}

fn replace(folder: &Path, name: &str, content: &[u8]) {
    fs::remove_file(folder.join(name)).unwrap();
    fs::write(folder.join(name), content).unwrap();
}

fn change_config(folder: &Path, change: impl Fn(&mut Value)) {
    let mut config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    change(&mut config);
    replace(folder, "config.json", config.to_string().as_bytes());
}

#[test]
fn bases_that_do_not_load() {
    let home = tempfile::TempDir::new().unwrap();
    let weights = "model.safetensors";
    let whole = fs::read(shipped_base().join(weights)).unwrap();
    let header_bytes = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    type Spoil<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: Vec<(&str, Spoil, &str)> = vec![
        ("cut in the weights", Box::new(|folder| replace(folder, weights, &whole[..header_bytes + 5_000])), "damaged"),
        ("cut in the header", Box::new(|folder| replace(folder, weights, &whole[..header_bytes / 2])), "damaged"),
        ("an empty file", Box::new(|folder| replace(folder, weights, b"")), "damaged"),
        ("noise", Box::new(|folder| replace(folder, weights, &[0xff; 4_096])), "bytes, more than"),
        (
            "another shape",
            Box::new(|folder| change_config(folder, |config| config["intermediate_size"] = json!(768))),
            "has shape",
        ),
        (
            "more layers than there are",
            Box::new(|folder| change_config(folder, |config| config["num_hidden_layers"] = json!(9))),
            "missing",
        ),
        (
            "another family",
            Box::new(|folder| change_config(folder, |config| config["model_type"] = json!("mamba"))),
            "mamba",
        ),
        ("no tokenizer", Box::new(|folder| fs::remove_file(folder.join("tokenizer.json")).unwrap()), "tokenizer.json"),
        ("no weights", Box::new(|folder| fs::remove_file(folder.join(weights)).unwrap()), weights),
        ("no config", Box::new(|folder| fs::remove_file(folder.join("config.json")).unwrap()), "config.json"),
        ("a broken config", Box::new(|folder| replace(folder, "config.json", b"{\"model_type\": ")), "config.json"),
        ("a broken tokenizer", Box::new(|folder| replace(folder, "tokenizer.json", b"{}")), "tokenizer"),
    ];
    for (what, spoil, words) in cases {
        let folder = home.path().join(what.replace(' ', "-"));
        copy_of_base(&folder);
        spoil(&folder);
        let data = home.path().join("data");
        let refused = serve(&data, &["--base", folder.to_str().unwrap()]);
        let said = refused.refusal();
        assert!(said.contains(words), "{what}: {said}");
        assert!(!data.join("operator-key").exists(), "{what}: nothing was begun");
    }
    let nowhere = serve(&home.path().join("data"), &["--base", "/nowhere/at/all"]);
    assert!(nowhere.refusal().contains("/nowhere/at/all"));
    let doctor = Command::run(&["doctor", "--json", "--base", "/nowhere/at/all", "--data", "/nowhere/data"]);
    assert!(!doctor.succeeded);
    assert_eq!(doctor.any_object()["ok"], false);
}

/// Runs a server that is expected to refuse to start.
fn serve(data: &Path, arguments: &[&str]) -> Command {
    let mut all = vec!["serve", "--listen", "127.0.0.1:0", "--threads", "1", "--data", data.to_str().unwrap()];
    all.extend(arguments);
    Command::run(&all)
}

#[test]
fn an_adapter_of_another_base_is_not_served() {
    let mut world = World::start();
    let acme = world.tenant("acme", "tuned");
    let run = world.learn(&acme, &archive_of(Style::Gated, 14), crate::support::quick());
    assert_eq!(run["status"], "live", "{run:#}\n{}", world.log());
    let ask = |model: &str| json!({"model": model, "prompt": "from harbor", "max_tokens": 24, "temperature": 0});
    let own = acme.complete(&ask("atelier"));
    let version = acme.get("/v1/versions").ok()["data"][0]["id"].as_str().unwrap().to_owned();
    world.stop();

    let other = world.home().join("atelier-base");
    copy_of_base(&other);
    change_config(&other, |config| config["rms_norm_eps"] = json!(1e-4));
    world.set_arguments(&["--base", other.to_str().unwrap()]);
    world.serve();
    assert_eq!(acme.complete(&ask("atelier")), acme.complete(&ask("atelier-base")), "the base alone answers");
    check_refused(&acme.post("/v1/completions", &ask(&version)), 409, "other_base", "another base");
    check_refused(&acme.put("/v1/aliases/live", &json!({"version": 1})), 409, "other_base", "another base");
    assert!(world.log().contains("another base"), "the operator is warned: {}", world.log());
    check_alive(&world, &acme);
    world.stop();

    world.set_arguments(&[]);
    world.serve();
    assert_eq!(acme.complete(&ask("atelier")), own, "with its base it is served again");
    assert_eq!(acme.complete(&ask(&version)), own);
}

#[test]
fn folders_and_ports_that_are_taken() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let second = serve(&world.data(), &[]);
    assert!(second.refusal().contains("in use by another server"), "{second:?}");
    assert_eq!(fs::read_to_string(world.data().join("server-url")).unwrap().trim(), world.url());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let elsewhere = world.home().join("elsewhere");
    let refused =
        Command::run(&["serve", "--data", elsewhere.to_str().unwrap(), "--threads", "1", "--listen", &address]);
    assert!(refused.refusal().contains(&format!("Cannot listen on {address}")), "{refused:?}");
    assert!(!elsewhere.exists(), "nothing was begun");
    for tier in ["sse9", ""] {
        let refused = serve(&elsewhere, &["--simd", tier]);
        assert!(refused.refusal().contains("ATELIER_SIMD"), "{refused:?}");
    }
    check_alive(&world, &acme);
}

#[test]
fn a_folder_of_a_newer_version_is_left_as_it_is() {
    let mut world = World::start();
    let acme = world.tenant("acme", "shared");
    world.stop();
    let file = world.data().join("control.db");
    let change = |statement: &'static str| {
        runtime().block_on(async {
            let url = format!("sqlite://{}", file.display());
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        });
    };
    change("INSERT INTO schema_history (version, name, script, applied_at) VALUES (900, 'later', '', 0)");
    let before = fs::read(&file).unwrap();
    let refused = serve(&world.data(), &[]);
    let said = refused.refusal();
    assert!(said.contains("schema 900") && said.contains("newer atelier"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), before);
    change("DELETE FROM schema_history WHERE version = 900");
    world.serve();
    check_alive(&world, &acme);
    world.stop();
    // Without its secret no key can be checked: better no server than one that locks everybody out.
    fs::rename(world.data().join("pepper"), world.data().join("pepper.away")).unwrap();
    assert!(serve(&world.data(), &[]).refusal().contains("pepper"));
    fs::rename(world.data().join("pepper.away"), world.data().join("pepper")).unwrap();
    world.serve();
    check_alive(&world, &acme);
}
