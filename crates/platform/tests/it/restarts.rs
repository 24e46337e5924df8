//! What outlives the process: runs go on from their checkpoint, accepted requests keep their usage rows.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use atelier_access::Caller;
use atelier_domain::{Plan, RunId};
use atelier_platform::{Platform, RunKind, RunState};

use crate::support::{World, greedy, house_style, is_live, messages, options, short, usage, wait_for};

/// Tells the child process which folder to work in until it is killed.
const CHILD_FOLDER: &str = "ATELIER_TEST_CHILD_FOLDER";

/// Where the child writes what its parent must know: key, run, and that it is ready to die.
const CHILD_SAYS: &str = "child";

const STEPS: usize = 40;

/// Not a test by itself: what the next one starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_will_be_killed() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let folder = Path::new(&folder);
    let opened = Platform::open(options(folder, 1)).await.unwrap();
    let platform = opened.platform;
    let operator = platform.authenticate(&opened.first_operator_key.unwrap().reveal()).await.unwrap();
    let created = platform.create_tenant(&operator, "acme", Plan::Tuned).await.unwrap();
    let key = created.key.key.reveal();
    let caller = platform.authenticate(&key).await.unwrap();
    let archive = crate::support::archive(&house_style());
    let source = platform.create_source_from_archive(&caller, "code", archive).await.unwrap().id;
    let start = atelier_platform::StartRun { source, kind: RunKind::Learn, options: short(STEPS) };
    let run = platform.start_run(&caller, start).await.unwrap().id;
    // Past the first checkpoint, and with a stream open.
    wait_for(&platform, &caller, run, |record| record.progress.as_ref().is_some_and(|progress| progress.done > 20))
        .await;
    let mut stream = platform.complete(&caller, greedy("atelier", "def f(x):\n", 1_500)).await.unwrap();
    stream.next().await;
    std::fs::write(folder.join("draft"), format!("{key}\n{run}\n")).unwrap();
    std::fs::rename(folder.join("draft"), folder.join(CHILD_SAYS)).unwrap();
    loop {
        stream.next().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_training_resumes_and_every_request_has_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "restarts::child_that_will_be_killed"])
        .env(CHILD_FOLDER, folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let says = folder.path().join(CHILD_SAYS);
    while !says.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let said = std::fs::read_to_string(says).unwrap();
    let (key, run) = said.trim().split_once('\n').unwrap();
    let run: RunId = run.parse().unwrap();
    let platform = Platform::open(options(folder.path(), 1)).await.unwrap().platform;
    let caller: Caller = platform.authenticate(key).await.unwrap();
    let (used, requests) = usage(&platform, &caller).await;
    assert_eq!(requests, 1, "the stream that was open has its row: {used:?}");
    let record = wait_for(&platform, &caller, run, is_live).await;
    assert!(record.version.is_some());
    let told = messages(&platform, &caller, run).await;
    let goes_on = told.iter().find(|message| message.starts_with("Training goes on at step")).expect("it resumed");
    assert!(!goes_on.contains("step 0 of"), "{goes_on}");
    platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_leaves_its_run_to_the_next() {
    let world = World::new(1).await;
    let created = world.platform.create_tenant(&world.operator, "acme", Plan::Tuned).await.unwrap();
    let caller = world.platform.authenticate(&created.key.key.reveal()).await.unwrap();
    let source = world.source(&caller, &house_style()).await;
    let run = world.start(&caller, source, RunKind::Learn, short(100_000)).await;
    wait_for(&world.platform, &caller, run, |record| {
        record.progress.as_ref().is_some_and(|progress| progress.done > 2)
    })
    .await;
    assert!(Platform::open(options(world.folder.path(), 1)).await.is_err(), "two servers on one folder");
    let mut stream = world.platform.complete(&caller, greedy("atelier", "x = [", 4)).await.unwrap();
    world.platform.shutdown().await;
    assert_eq!(world.platform.readiness().await, atelier_platform::Readiness::Draining);
    assert!(world.platform.complete(&caller, greedy("atelier", "x", 2)).await.is_err());
    let mut events = 0;
    while stream.next().await.is_some() {
        events += 1;
    }
    assert!(events > 1, "a short stream ends by itself while the server closes");

    let platform = Platform::open(options(world.folder.path(), 1)).await.unwrap().platform;
    let goes_on = async {
        loop {
            let told = messages(&platform, &caller, run).await;
            if told.iter().any(|message| message.starts_with("Training goes on at step")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), goes_on).await.expect("it goes on");
    platform.cancel_run(&caller, run).await.unwrap();
    wait_for(&platform, &caller, run, |record| record.state == RunState::Cancelled).await;
    platform.shutdown().await;
}
