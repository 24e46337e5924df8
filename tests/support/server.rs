//! The binary as a child process: started, killed, started again on the same data folder.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::postgres::TestDatabase;
use super::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY, SHARED_BUCKET};
use super::{User, postgres_command};

/// How long a server may take to listen on a machine that is busy with other tests.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// How long a run of a few steps may take on such a machine.
const RUN_PATIENCE: Duration = Duration::from_secs(240);
/// Time between two looks.
const POLL: Duration = Duration::from_millis(50);
/// Bytes of a server's log that a failed test shows.
const LOG_SHOWN_BYTES: usize = 4_000;
/// Where in the shared bucket blobs are.
pub const SHARED_PREFIX: &str = "one";
/// Variables that would make a child find another server, folder or base than the test's.
const OUR_VARIABLES: [&str; 22] = [
    "XDG_CONFIG_HOME",
    "ATELIER_DATA",
    "ATELIER_DATABASE",
    "ATELIER_DATABASE_OWNER",
    "ATELIER_BLOBS",
    "ATELIER_BLOBS_ENDPOINT",
    "ATELIER_BLOBS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "ATELIER_URL",
    "ATELIER_KEY",
    "ATELIER_ROOT_KEY",
    "ATELIER_ROOT_KEY_FILE",
    "ATELIER_BASE",
    "ATELIER_LISTEN",
    "ATELIER_TLS_CERT",
    "ATELIER_TLS_KEY",
    "ATELIER_CA",
    "ATELIER_SIMD",
    "RUST_LOG",
];

/// Set to `postgres`, the servers of all tests keep their rows there, and with `postgres-schema` or `postgres-database`
/// each tenant has a schema or a database of its own; scripts/test.sh runs them in more than one way.
const TEST_DATABASE: &str = "ATELIER_TEST_DATABASE";

/// The base model of the repository.
pub fn shipped_base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/atelier-base").canonicalize().unwrap()
}

/// What a command of ours did.
#[derive(Debug)]
pub struct Command {
    pub succeeded: bool,
    /// The exit status; none where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Command {
    /// Runs the binary to its end.
    pub fn run(arguments: &[&str]) -> Self {
        Self::run_with(&[], arguments)
    }

    /// The same with these variables.
    pub fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::of(atelier().envs(variables.iter().copied()).args(arguments))
    }

    fn of(command: &mut std::process::Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            succeeded: output.status.success(),
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The one JSON object on standard output of a command that succeeded.
    pub fn object(&self) -> Value {
        assert!(self.succeeded, "{self:#?}");
        self.any_object()
    }

    /// The one JSON object on standard output, success or not.
    pub fn any_object(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "one object, and nothing else: {self:#?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// What a command that failed said; it must be an error of ours, not a panic.
    pub fn refusal(&self) -> &str {
        assert!(!self.succeeded, "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        assert!(self.stderr.contains("error: "), "{self:#?}");
        &self.stderr
    }
}

/// The binary, which finds nothing by the environment.
pub fn atelier() -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_atelier"));
    for name in OUR_VARIABLES {
        command.env_remove(name);
    }
    command
}

/// A server that runs. Killed when dropped.
pub struct Process {
    child: Child,
    /// What it says on standard error; kept over restarts.
    log: PathBuf,
    stdout: PathBuf,
}

impl Process {
    /// Starts `atelier serve` with these arguments; `around` goes before the binary's name, as in `unshare -rm`.
    pub fn spawn(log_folder: &Path, around: &[&str], arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = match around.split_first() {
            None => atelier(),
            Some((program, rest)) => {
                let mut command = std::process::Command::new(program);
                command.args(rest).arg(env!("CARGO_BIN_EXE_atelier"));
                for name in OUR_VARIABLES {
                    command.env_remove(name);
                }
                command
            }
        };
        command.arg("serve").args(arguments).envs(variables.iter().copied());
        Self::start(log_folder, command)
    }

    /// Starts `atelier demo` with these arguments.
    pub fn spawn_demo(log_folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = atelier();
        command.arg("demo").args(arguments).envs(variables.iter().copied());
        Self::start(log_folder, command)
    }

    fn start(log_folder: &Path, mut command: std::process::Command) -> Self {
        let (log, stdout) = (log_folder.join("stderr.log"), log_folder.join("stdout.log"));
        let appended = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null());
        let child = command.stdout(File::create(&stdout).unwrap()).stderr(appended).spawn().unwrap();
        Self { child, log, stdout }
    }

    /// Waits for the object that `serve --json` prints once it listens.
    pub fn announced(&mut self) -> Value {
        let started = Instant::now();
        loop {
            let printed = fs::read_to_string(&self.stdout).unwrap();
            if let Some((line, _)) = printed.split_once('\n') {
                return serde_json::from_str(line).unwrap();
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            assert!(started.elapsed() < START_PATIENCE, "the server does not start:\n{}", self.log());
            thread::sleep(POLL);
        }
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        // It may have ended by itself, which the caller then sees by what is missing.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits; whether it did so with success.
    pub fn stop(&mut self) -> bool {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let start = log.len().saturating_sub(LOG_SHOWN_BYTES);
            let shown = log.get(start..).unwrap_or(&log);
            eprintln!("the server's log ends so:\n{shown}");
        }
    }
}

/// A data folder, the server on it, and the operator.
pub struct World {
    /// Stands first: it ends before its folder goes.
    process: Option<Process>,
    home: TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    /// Goes after the server that uses it.
    database: Option<TestDatabase>,
    /// How tenants are kept apart, where it is not as the server would.
    separation: Option<String>,
    url: Rc<RefCell<String>>,
}

impl World {
    /// A new data folder with a server on it.
    pub fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// The same with further arguments and variables for the server.
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let kind = std::env::var(TEST_DATABASE).unwrap_or_default();
        let database = kind.starts_with("postgres").then(TestDatabase::create);
        let separation = kind.strip_prefix("postgres-").map(str::to_owned);
        let mut variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        if let Some(database) = &database {
            variables.push(("ATELIER_DATABASE".to_owned(), database.application_url()));
            variables.push(("ATELIER_DATABASE_OWNER".to_owned(), database.owner_url()));
        }
        let mut world = Self {
            home: TempDir::new().unwrap(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            variables,
            database,
            separation,
            url: Rc::default(),
            process: None,
        };
        world.serve();
        world
    }

    /// The same with blobs in a bucket.
    pub fn start_on_s3(s3: &S3Server, arguments: &[&str]) -> Self {
        let (address, endpoint) = (format!("s3://{SHARED_BUCKET}/{SHARED_PREFIX}"), s3.endpoint());
        let mut all = vec!["--blobs", &address, "--blobs-endpoint", &endpoint];
        all.extend(["--blobs-path-style", "--blobs-allow-http"]);
        all.extend(arguments);
        Self::start_with(&all, &[("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)])
    }

    /// Starts a server on the data folder, where none runs.
    pub fn serve(&mut self) {
        assert!(self.process.is_none());
        let data = self.data();
        // A killed server leaves it; only the new one's address counts.
        let _ = fs::remove_file(data.join("server-url"));
        // One thread each: several tests run at once.
        let mut arguments =
            vec!["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--threads", "1", "--json"];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut process = Process::spawn(self.home.path(), &[], &arguments, &variables);
        let announced = process.announced();
        let url = announced["url"].as_str().unwrap().to_owned();
        let written = fs::read_to_string(data.join("server-url")).unwrap();
        assert_eq!(written.trim(), url, "commands find the server by its data folder");
        *self.url.borrow_mut() = url;
        self.process = Some(process);
    }

    /// Ends the server as a power cut would.
    pub fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Ends the server in order.
    pub fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        assert!(process.stop(), "a server that is asked to stop ends with success:\n{}", process.log());
    }

    /// Other arguments for the next start.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
    }

    /// Whether its rows are in PostgreSQL.
    pub fn is_on_postgres(&self) -> bool {
        self.database.is_some()
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The PostgreSQL database, where there is one.
    pub fn database(&self) -> Option<&TestDatabase> {
        self.database.as_ref()
    }

    /// How tenants are kept apart, where it is not as the server would.
    pub fn separation(&self) -> Option<&str> {
        self.separation.as_deref()
    }

    /// A folder for files of the test.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn url(&self) -> String {
        self.url.borrow().clone()
    }

    /// Everything that servers on this folder logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("stderr.log")).unwrap()
    }

    /// Runs the installation.
    pub fn operator(&self) -> User {
        let key = fs::read_to_string(self.data().join("operator-key")).unwrap();
        self.user(Some(key.trim()))
    }

    /// Has no key.
    pub fn anon(&self) -> User {
        self.user(None)
    }

    /// Somebody with this key.
    pub fn user(&self, key: Option<&str>) -> User {
        User::new(Rc::clone(&self.url), key)
    }

    /// Creates a tenant; its admin.
    pub fn tenant(&self, name: &str, plan: &str) -> User {
        let mut body = json!({"name": name, "plan": plan});
        if let Some(separation) = &self.separation {
            body["separation"] = json!(separation);
        }
        let created = self.operator().post("/v1/tenants", &body);
        assert_eq!(created.status, 201, "{created:?}");
        self.user(Some(created.json()["key"]["value"].as_str().unwrap()))
    }

    /// The tenant's id, `org_…`.
    pub fn id_of(&self, tenant: &str) -> String {
        self.operator().get(&format!("/v1/tenants/{tenant}")).ok()["id"].as_str().unwrap().to_owned()
    }

    /// Runs a statement past the server where the tenant of this id has its rows on PostgreSQL, as whoever may do
    /// anything; it is given the schema. False where there is no PostgreSQL.
    pub fn in_place_of(&self, id: &str, statement: impl FnOnce(&str) -> String) -> bool {
        let Some(shared) = &self.database else { return false };
        let hex = id.trim_start_matches("org_");
        let (database, schema) = match self.separation.as_deref() {
            Some("schema") => (shared.name.clone(), format!("tenant_{hex}")),
            Some("database") => (format!("atelier_{hex}"), "atelier_tenants".to_owned()),
            _ => (shared.name.clone(), "atelier_tenants".to_owned()),
        };
        let arguments = ["-qX", "-U", "postgres", "-d", &database, "-c", &statement(&schema)];
        assert!(postgres_command("psql").args(arguments).output().unwrap().status.success());
        true
    }

    /// Runs a command of ours against this server, found by its data folder.
    pub fn cli(&self, arguments: &[&str]) -> Command {
        self.cli_with(&[], arguments)
    }

    /// The same with further variables.
    pub fn cli_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
        let database = self.variables.iter().filter(|(name, _)| name.starts_with("ATELIER_DATABASE"));
        let database = database.map(|(name, value)| (name.as_str(), value.as_str()));
        let variables = database.chain(variables.iter().copied());
        Command::of(atelier().envs(variables).arg("--data").arg(self.data()).arg("--json").args(arguments))
    }

    /// Learns from an archive and waits for the run's end; the run.
    pub fn learn(&self, user: &User, archive: &[u8], options: Value) -> Value {
        let run = start_run(user, archive, "learn", options);
        self.wait_for_run(user, run["id"].as_str().unwrap(), |run| !matches!(status(run), "queued" | "running"))
    }

    /// Waits until a run is as wanted.
    pub fn wait_for_run(&self, user: &User, run: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let run = user.get(&format!("/v1/runs/{run}")).ok();
            if wanted(&run) {
                return run;
            }
            assert!(started.elapsed() < RUN_PATIENCE, "the run does not get there: {run:#}\n{}", self.log());
            thread::sleep(POLL);
        }
    }
}

/// The run's status, as a word.
fn status(run: &Value) -> &str {
    run["status"].as_str().unwrap()
}

/// Options of a run that is short and yet learns enough from [`super::archive_of`] to be served.
pub fn quick() -> Value {
    json!({"epochs": 2, "window_tokens": 128})
}

/// Gives a source and starts a run on it.
pub fn start_run(user: &User, archive: &[u8], kind: &str, options: Value) -> Value {
    let source = user.upload("/v1/sources?name=code", archive).ok();
    user.post("/v1/runs", &json!({"source": source["id"], "kind": kind, "options": options})).ok()
}
