//! A disk that fills while the server runs: what that refuses, what it keeps, and that all goes on once there is room.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::{Archive, Process, User, runtime};

/// Size of a disk that is full soon, as `mount` reads it.
const SMALL_DISK: &str = "size=6m";
/// Streams that run when the disk fills.
const STREAMS: u64 = 8;
/// `USAGE_UNWRITTEN_TOKENS_MAX` of domain.
const UNWRITTEN_TOKENS_MAX: u64 = 128;
/// What does not come about within this never does.
const PATIENCE: Duration = Duration::from_secs(90);

/// A server on a small disk of its own, in a name space of its own, which ends with it. What is done to the disk and the
/// server is asked for by files in `home`, and done when they are gone.
struct Machine {
    /// Stands first: it ends before its folder goes.
    process: Process,
    home: TempDir,
    url: Rc<RefCell<String>>,
    operator_key: String,
}

/// Runs the server again and again; `fill`, `free` and `kill` are done as they appear, `again` starts the next.
const SCRIPT: &str = r#"
mount -t tmpfs -o SIZE none "$DISK" || exit 1
look() {
    if [ -e "$HOME/fill" ]; then dd if=/dev/zero of="$DISK/ballast" bs=4k 2>/dev/null; rm -f "$HOME/fill"; fi
    if [ -e "$HOME/free" ]; then rm -f "$DISK/ballast"; rm -f "$HOME/free"; fi
    if [ -e "$HOME/kill" ]; then kill -9 "$server"; rm -f "$HOME/kill"; fi
    sleep 0.05
}
while :; do
    "$0" "$@" & server=$!
    while kill -0 "$server" 2>/dev/null; do look; done
    until [ -e "$HOME/again" ]; do look; done
    rm -f "$HOME/again"
done
"#;

impl Machine {
    /// None where no file system may be mounted.
    fn start() -> Option<Self> {
        let around = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c"];
        let home = TempDir::new().unwrap();
        let disk = home.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let tried = std::process::Command::new(around[0])
            .args(&around[1..])
            .arg(format!("mount -t tmpfs -o {SMALL_DISK} none '{}'", disk.display()))
            .output();
        if !tried.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: no file system may be mounted here, so the full disk was not tried");
            return None;
        }
        let script = SCRIPT.replace("SIZE", SMALL_DISK);
        let around: Vec<&str> = around.iter().copied().chain([script.as_str()]).collect();
        let data = disk.join("data");
        let arguments = ["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--threads", "1", "--json"];
        let variables = [("DISK", disk.to_str().unwrap()), ("HOME", home.path().to_str().unwrap())];
        let mut process = Process::spawn(home.path(), &around, &arguments, &variables);
        let announced = process.announced();
        let url = Rc::new(RefCell::new(announced["url"].as_str().unwrap().to_owned()));
        let operator_key = announced["operator_key"].as_str().unwrap().to_owned();
        Some(Self { process, home, url, operator_key })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Asks for something and waits until it is done.
    fn order(&self, what: &str) {
        fs::write(self.file(what), b"").unwrap();
        wait_until(&self.process, what, || !self.file(what).exists());
    }

    /// Ends the server as a power cut would, makes room, and starts the next one.
    fn restart_with_room(&self) {
        self.order("kill");
        self.order("free");
        let printed = self.file("stdout.log");
        let before = fs::read_to_string(&printed).unwrap().lines().count();
        fs::write(self.file("again"), b"").unwrap();
        let lines = || fs::read_to_string(&printed).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
        wait_until(&self.process, "the next server", || lines().len() > before);
        let announced: Value = serde_json::from_str(lines().last().unwrap()).unwrap();
        *self.url.borrow_mut() = announced["url"].as_str().unwrap().to_owned();
    }

    fn tenant(&self) -> User {
        let operator = User::new(Rc::clone(&self.url), Some(&self.operator_key));
        let created = operator.post("/v1/tenants", &json!({"name": "acme", "plan": "tuned"})).ok();
        User::new(Rc::clone(&self.url), created["key"]["value"].as_str())
    }
}

#[track_caller]
fn wait_until(process: &Process, what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what} does not come about:\n{}", process.log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// A client that streams one completion after another until one fails.
struct Client {
    /// Tokens that it was told, of all.
    told: Arc<AtomicU64>,
    /// Requests that were accepted.
    accepted: Arc<AtomicU64>,
    /// The error inside of the last stream, if it broke off there.
    end: JoinHandle<Option<Value>>,
}

/// Streams that say each token by itself.
fn stream(user: &User) -> Client {
    let body = json!({"model": "atelier", "prompt": "def f(", "max_tokens": 1_900, "logprobs": 0, "stream": true});
    let body = body.to_string().into_bytes();
    let request = user.request("POST", "/v1/completions", Some(("application/json", body)));
    let (told, accepted) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let (counter, requests) = (Arc::clone(&told), Arc::clone(&accepted));
    let end = runtime().spawn(async move {
        loop {
            let mut response = request.try_clone().unwrap().send().await.unwrap();
            if response.status() != 200 {
                return None;
            }
            requests.fetch_add(1, Ordering::AcqRel);
            let (mut text, mut error) = (String::new(), None);
            while let Ok(Some(chunk)) = response.chunk().await {
                text.push_str(&String::from_utf8_lossy(&chunk));
                while let Some(at) = text.find('\n') {
                    let line: String = text.drain(..=at).collect();
                    let data = line.strip_prefix("data:").map(str::trim).filter(|data| data.starts_with('{'));
                    let Some(data) = data else { continue };
                    let event: Value = serde_json::from_str(data).unwrap();
                    let tokens = event["choices"][0]["logprobs"]["tokens"].as_array().map_or(0, Vec::len);
                    counter.fetch_add(tokens as u64, Ordering::AcqRel);
                    if event["error"].is_object() {
                        error = Some(event["error"].clone());
                    }
                }
            }
            if error.is_some() {
                return error;
            }
        }
    });
    Client { told, accepted, end }
}

/// Fills the disk while streams run, and reads them to their ends: how many tokens they were told, all together, and how
/// many requests were accepted.
fn fill_under_streams(machine: &Machine, user: &User) -> (u64, u64) {
    let clients: Vec<Client> = (0..STREAMS).map(|_| stream(user)).collect();
    let all_run = || clients.iter().all(|client| client.told.load(Ordering::Acquire) > 0);
    wait_until(&machine.process, "the first tokens", all_run);
    machine.order("fill");
    wait_until(&machine.process, "readiness that says so", || user.get("/readyz").status == 503);
    assert_eq!(user.get("/readyz").json()["status"], "usage cannot be written");
    let refused = user.post("/v1/completions", &json!({"model": "atelier", "prompt": "a", "max_tokens": 1}));
    assert_eq!((refused.status, refused.error()["code"].clone()), (503, json!("overloaded")), "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let (mut told, mut accepted, mut cut) = (0, 0, 0);
    for client in clients {
        let error = runtime().block_on(client.end).unwrap();
        told += client.told.load(Ordering::Acquire);
        accepted += client.accepted.load(Ordering::Acquire);
        if let Some(error) = error {
            assert_eq!(error["code"], "overloaded", "{error}");
            cut += 1;
        }
    }
    assert!(cut > 0, "streams are cut before they are told much more than is written down");
    assert_eq!(user.get("/healthz").status, 200);
    (told, accepted)
}

/// Tokens and requests in the ledger.
fn booked(user: &User) -> (u64, u64) {
    let hour_ago = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - 3_600;
    let page = user.get(&format!("/v1/organization/usage/completions?start_time={hour_ago}&bucket_width=1h")).ok();
    let buckets = page["data"].as_array().unwrap();
    let results = buckets.iter().flat_map(|bucket| bucket["results"].as_array().unwrap());
    results.fold((0, 0), |(tokens, requests), result| {
        let count = |name: &str| result[name].as_u64().unwrap();
        (tokens + count("output_tokens"), requests + count("num_model_requests"))
    })
}

#[test]
fn what_streams_were_told_is_booked_although_the_disk_was_full() {
    let Some(machine) = Machine::start() else { return };
    let user = machine.tenant();
    let (told, accepted) = fill_under_streams(&machine, &user);
    machine.order("free");
    wait_until(&machine.process, "readiness", || user.get("/readyz").status == 200);
    let (tokens, requests) = booked(&user);
    assert_eq!(requests, accepted);
    assert!(tokens >= told, "{tokens} of {told} tokens are booked:\n{}", machine.process.log());
    let ask = json!({"model": "atelier", "prompt": "a", "max_tokens": 1});
    assert_eq!(user.post("/v1/completions", &ask).status, 200);

    // The same, and the server dies before there is room.
    let before = booked(&user).0;
    let (told, accepted_then) = fill_under_streams(&machine, &user);
    machine.restart_with_room();
    let (tokens, requests) = booked(&user);
    assert_eq!(requests, accepted + 1 + accepted_then);
    let lost_max = STREAMS * (UNWRITTEN_TOKENS_MAX + 1);
    assert!(tokens - before + lost_max >= told, "{} of {told} tokens are booked", tokens - before);
}

/// Text that does not compress, so that the disk fills soon.
fn noise(state: &mut u64) -> Vec<u8> {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ\n_";
    let mut letter = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        LETTERS[(*state >> 58) as usize]
    };
    (0..700_000).map(|_| letter()).collect()
}

#[test]
fn a_full_disk_is_said_and_survived() {
    let Some(mut machine) = Machine::start() else { return };
    let acme = machine.tenant();
    let (mut state, mut sources) = (1, Vec::new());
    let refused = loop {
        let text = noise(&mut state);
        let answer = acme.upload("/v1/sources?name=big", &Archive::new().file("a.py", &text).gzip());
        if answer.status != 201 {
            break answer;
        }
        sources.push(answer.json()["id"].as_str().unwrap().to_owned());
        assert!(sources.len() < 40, "the disk does not fill");
    };
    assert_eq!((refused.status, refused.error()["code"].clone()), (503, json!("overloaded")), "{refused:?}");
    assert!(refused.error()["message"].as_str().unwrap().contains("disk is full"), "{refused:?}");
    assert!(!sources.is_empty());
    assert!(machine.process.runs());
    assert_eq!(acme.get("/healthz").status, 200);
    assert_eq!(acme.get("/v1/sources").ok()["data"].as_array().unwrap().len(), sources.len(), "nothing half-written");
    // Room again: everything works again, without a restart.
    assert_eq!(acme.delete(&format!("/v1/sources/{}", sources[0])).status, 200);
    let ask = json!({"model": "atelier", "prompt": "a", "max_tokens": 1});
    assert_eq!(acme.post("/v1/completions", &ask).status, 200, "{}", machine.process.log());
}
