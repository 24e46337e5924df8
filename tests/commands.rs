//! What people meet at the command line: which server a command asks, what it says when something is wrong, exit
//! statuses, runs, and the demo's own folder.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Command, Process, User, World, atelier, wait_until};

/// The exit status of a command that waited for a run which came to nothing.
const RUN_ENDED: Option<i32> = Some(3);

/// An address where nobody listens.
fn nobodys_url() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", socket.local_addr().unwrap())
}

/// A folder with too little code to learn from.
fn scrap(world: &World) -> String {
    let folder = world.home().join("scrap");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a.py"), "def f(x):\n    return x + 1\n").unwrap();
    folder.to_str().unwrap().to_owned()
}

/// A key of the tenant with this role.
fn key_of(admin: &User, role: &str) -> String {
    admin.post("/v1/keys", &json!({"role": role})).ok()["value"].as_str().unwrap().to_owned()
}

#[test]
fn a_folder_that_is_named_goes_before_the_environment() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let acme = world.tenant("acme", "shared");
    let (data, nowhere, url) = (world.data(), nobodys_url(), world.url());
    let data = data.to_str().unwrap();
    let elsewhere = [("ATELIER_URL", nowhere.as_str()), ("ATELIER_KEY", "atl_o_nonsense")];
    for arguments in [["--data", data, "tenant", "list", "--json"], ["tenant", "list", "--json", "--data", data]] {
        let listed = Command::run_with(&elsewhere, &arguments).object();
        assert_eq!(listed["data"][0]["name"], "acme", "{arguments:?}");
    }
    // Without it the environment's server is asked, and named.
    let with_folder = [elsewhere[0], ("ATELIER_DATA", data)];
    let refused = Command::run_with(&with_folder, &["tenant", "list"]);
    assert!(refused.refusal().contains(&format!("No server answers at {nowhere}")), "{refused:?}");
    let refused = Command::run_with(&[("ATELIER_URL", &url), elsewhere[1]], &["tenant", "list"]);
    assert!(refused.refusal().contains(&format!("(HTTP 401 from {url})")), "{refused:?}");
    let own = Command::run_with(&[("ATELIER_URL", &url), ("ATELIER_KEY", acme.key())], &["versions", "--json"]);
    assert_eq!(own.object()["data"], json!([]));
    // A folder without a server is not exchanged for the environment's.
    let empty = world.home().join("empty");
    let refused = Command::run_with(&[("ATELIER_URL", &url)], &["tenant", "list", "--data", empty.to_str().unwrap()]);
    assert!(refused.refusal().contains("--data goes before ATELIER_URL"), "{refused:?}");
}

#[test]
fn what_is_wrong_is_said_in_words_of_the_command_line() {
    let mut world = World::start_with(&["--workers", "0"], &[]);
    world.tenant("acme", "tuned");
    let said = |arguments: &[&str]| world.cli(arguments).refusal().to_owned();
    for (arguments, words) in [
        (vec!["versions"], "name one with --tenant"),
        (vec!["versions", "--tenant", "nobody"], "There is no tenant `nobody`"),
        (vec!["tenant", "plan", "nobody", "shared"], "There is no tenant `nobody`"),
        (vec!["tenant", "delete", "../keys", "--yes"], "not a valid tenant name"),
        (vec!["key", "revoke", "--tenant", "acme", "../tenants/acme"], "not a valid key id"),
        (vec!["runs", "cancel", "--tenant", "acme", "first"], "not a valid run id"),
        (vec!["key", "create", "--tenant", "acme", "--days", "0"], "--days"),
        (vec!["key", "create", "--tenant", "acme", "--days", "366"], "1..=365"),
        (vec!["rollback", "--tenant", "acme"], "none to go back to"),
        (vec!["rollback", "--tenant", "acme", "--to", "9"], "There is no version 9."),
        (
            vec!["complete", "--tenant", "acme", "--file", "/nowhere/a.py", "--line", "1"],
            "as UTF-8 text. (No such file",
        ),
        (
            vec!["tenant", "export", "acme", "--out", "/nowhere/acme.tar.gz"],
            "Cannot write /nowhere/acme.tar.gz. (No such",
        ),
        (vec!["serve", "--threads", "0"], "--threads"),
        (vec!["serve", "--listen", "localhost"], "localhost:8080"),
        (vec!["tenant", "create", "acme", "--plan", "dedicated"], "not offered"),
    ] {
        let said = said(&arguments);
        assert!(said.contains(words) && !said.contains("expires_in_seconds"), "{arguments:?}: {said}");
    }
    let url = world.url();
    let refused = Command::run_with(&[("ATELIER_URL", "localhost:8080"), ("ATELIER_KEY", "x")], &["tenant", "list"]);
    assert!(refused.refusal().contains("must begin with http://"), "{refused:?}");
    let doctor = Command::run_with(&[("ATELIER_URL", "localhost:8080"), ("ATELIER_KEY", "x")], &["doctor", "--json"]);
    assert!(doctor.any_object().to_string().contains("must begin with http://"), "{doctor:?}");
    world.kill();
    let refused = world.cli(&["tenant", "list"]);
    let said = refused.refusal();
    let data = world.data();
    assert!(said.contains(&format!("No server answers at {url}")), "{said}");
    assert!(said.contains(&format!("atelier serve --data {}", data.display())), "{said}");
    assert!(!said.contains("os error"), "{said}");
}

#[test]
fn a_key_that_lacks_a_role_hears_which() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let acme = world.tenant("acme", "tuned");
    let (url, folder) = (world.url(), scrap(&world));
    let of_usage_alone = acme.post("/v1/keys", &json!({"role": "admin", "scopes": ["usage"]})).ok();
    let limited = of_usage_alone["value"].as_str().unwrap().to_owned();
    for (key, arguments, words) in [
        (key_of(&acme, "member"), vec!["learn", &folder], "has the role `member`, and this needs `service` or `admin`"),
        (key_of(&acme, "reader"), vec!["key", "list"], "has the role `reader`, and this needs `admin`"),
        (acme.key().to_owned(), vec!["tenant", "list"], "has the role `admin`, and this needs `operator`"),
        (limited, vec!["runs"], "it has not the scope `read`"),
    ] {
        let refused = Command::run_with(&[("ATELIER_URL", &url), ("ATELIER_KEY", &key)], &arguments);
        assert!(refused.refusal().contains(words), "{arguments:?}: {refused:?}");
        assert_eq!(refused.code, Some(1));
    }
}

#[test]
fn runs_are_listed_cancelled_and_followed() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let acme = world.tenant("acme", "tuned");
    let folder = scrap(&world);
    assert_eq!(world.cli(&["runs", "--tenant", "acme"]).object()["data"], json!([]));
    let queued = world.cli(&["learn", "--tenant", "acme", &folder]).object();
    let run = queued["run"].as_str().unwrap();
    let listed = world.cli(&["runs", "--tenant", "acme"]).object();
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["status"]), (&json!(run), &json!("queued")), "{listed:#}");
    let (data, url) = (world.data(), world.url());
    let table = Command::run(&["runs", "--tenant", "acme", "--data", data.to_str().unwrap()]);
    assert!(table.succeeded && table.stdout.starts_with("RUN ") && table.stdout.contains(run), "{table:?}");

    let cancelled = world.cli(&["runs", "cancel", run, "--tenant", "acme"]).object();
    assert_eq!((&cancelled["id"], &cancelled["status"]), (&json!(run), &json!("cancelled")));
    assert!(world.cli(&["runs", "--tenant", "acme", "cancel", run]).refusal().contains("ended already"));
    let own = [("ATELIER_URL", url.as_str()), ("ATELIER_KEY", acme.key())];
    let followed = Command::run_with(&own, &["runs", "follow", run, "--json"]);
    assert_eq!((followed.code, &followed.any_object()["status"]), (RUN_ENDED, &json!("cancelled")), "{followed:?}");
    assert!(followed.refusal().contains("was cancelled"), "{followed:?}");
    let unknown = run.replace(|letter: char| letter.is_ascii_digit(), "0");
    assert_eq!(world.cli(&["runs", "follow", &unknown, "--tenant", "acme"]).code, Some(1));
}

#[test]
fn a_run_that_came_to_nothing_is_no_success() {
    let world = World::start();
    world.tenant("acme", "tuned");
    let folder = scrap(&world);
    let refused = world.cli(&["learn", "--tenant", "acme", &folder, "--wait"]);
    let object = refused.any_object();
    assert_eq!((refused.code, &object["status"], &object["version"]), (RUN_ENDED, &json!("refused"), &Value::Null));
    let said = refused.refusal();
    assert!(said.contains("was refused, and what was live stays") && said.contains("too little text"), "{said}");
}

#[test]
fn every_shell_gets_its_completions_and_every_command_an_example() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::run(&["completions", shell]);
        assert!(script.succeeded && script.stdout.contains("rollback"), "{shell}: {script:?}");
    }
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = Command::run(&arguments);
        assert!(help.succeeded, "{help:?}");
        seen += 1;
        let names = help.stdout.lines().skip_while(|line| *line != "Commands:").skip(1);
        // What is said of a command goes on beneath it, further in.
        let names = names.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
        let names = names.filter_map(|line| line.split_whitespace().next());
        let children: Vec<String> = names.filter(|name| *name != "help").map(str::to_owned).collect();
        if children.is_empty() {
            let call = format!("atelier {}", path.join(" "));
            let examples = help.stdout.lines().skip_while(|line| !line.starts_with("Example"));
            assert!(examples.skip(1).any(|line| line.trim_start().starts_with(&call)), "{call}: {}", help.stdout);
        }
        waiting.extend(children.into_iter().map(|child| [path.clone(), vec![child]].concat()));
    }
    assert!(seen > 25, "{seen}");
}

/// The temporary folders of demos under `home`.
fn folders_of_demos(home: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("atelier-demo-")).collect()
}

#[test]
fn a_demo_that_is_ended_early_leaves_nothing_behind() {
    let home = TempDir::new().unwrap();
    let variables = [("TMPDIR", home.path().to_str().unwrap())];
    let arguments = ["--listen", "127.0.0.1:0", "--threads", "1", "--json"];
    let mut demo = Process::spawn_demo(home.path(), &arguments, &variables);
    let is_serving = || folders_of_demos(&home).iter().any(|folder| folder.join("server-url").exists());
    wait_until("the demo does not begin", is_serving);
    assert!(!demo.stop(), "it has not shown what it is to show: {}", demo.log());
    assert!(demo.log().contains("ended before it had shown everything"), "{}", demo.log());
    assert_eq!(folders_of_demos(&home), [] as [PathBuf; 0]);
}

#[test]
fn a_demo_in_a_folder_that_is_named_takes_a_new_one_and_leaves_it() {
    let home = TempDir::new().unwrap();
    let (data, code) = (home.path().join("data"), home.path().join("code"));
    fs::create_dir(&code).unwrap();
    fs::write(code.join("a.py"), "def f(x):\n    return x + 1\n").unwrap();
    let tenant = |name: &str| format!("{name}={}", code.display());
    let (first, second) = (tenant("ours"), tenant("theirs"));
    let demo = |data: &str| {
        let ours = ["demo", "--exit", "--listen", "127.0.0.1:0", "--threads", "1", "--data", data];
        let theirs = ["--tenant", first.as_str(), "--tenant", second.as_str()];
        Command::run_with(&[("TMPDIR", home.path().to_str().unwrap())], &[&ours[..], &theirs].concat())
    };
    // So little code teaches nothing: the demo ends there, having made its tenants.
    let ended = demo(data.to_str().unwrap());
    assert!(ended.refusal().contains("ours has no version of its own to show"), "{ended:?}");
    assert_eq!(ended.code, RUN_ENDED);
    assert!(data.join("operator-key").exists() && !data.join("server-url").exists());
    assert_eq!(folders_of_demos(&home), [] as [PathBuf; 0]);
    let again = demo(data.to_str().unwrap());
    assert!(again.refusal().contains("is not empty"), "{again:?}");
}

#[test]
fn a_server_that_cannot_start_says_what_to_look_at() {
    let home = TempDir::new().unwrap();
    let folder = home.path().join("data");
    let data = folder.to_str().unwrap();
    let serve = |arguments: &[&str]| {
        let arguments = [&["serve", "--data", data, "--listen", "127.0.0.1:0"], arguments].concat();
        let refused = Command::run(&arguments);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        refused.stderr
    };
    assert!(serve(&["--source-root", "/nowhere"]).contains("--source-root /nowhere is no folder."));
    let said = serve(&["--database", "mysql://jo:hush@127.0.0.1/atelier"]);
    assert!(said.contains("must look like postgres://") && !said.contains("hush"), "{said}");
    let said = serve(&["--database", "postgres://atelier_app@127.0.0.1:1/atelier"]);
    assert!(said.contains("is --database / ATELIER_DATABASE right? (the database cannot be reached"), "{said}");
    assert!(said.contains("Connection refused"), "{said}");
    let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let at = ["--blobs", "s3://our-code", "--blobs-endpoint", "http://127.0.0.1:1", "--blobs-allow-http"];
    let said = serve(&at);
    assert!(said.contains("say --blobs-path-style") && !said.contains("panicked"), "{said}");
    let at = [&at[..], &["--blobs-path-style"]].concat();
    let refused = Command::run_with(&keys, &[&["serve", "--data", data, "--listen", "127.0.0.1:0"][..], &at].concat());
    assert!(refused.stderr.contains("look at --blobs, --blobs-endpoint and --blobs-region. ("), "{refused:?}");
}

#[test]
fn whoever_reads_may_stop_before_the_end() {
    for arguments in [&["openapi"][..], &["completions", "bash"], &["doctor", "--json"]] {
        let mut child = atelier().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!said.contains("pipe"), "{arguments:?}: {said}");
    }
}
