//! Learning: from a source to a version that answers, the gate, and the way back.

use atelier_domain::{Plan, VersionNumber};
use atelier_platform::{ErrorKind, LearnOptions, RunKind, RunResult, RunState, StartRun};

use crate::support::{HOUSE_PROMPT, World, house_style, is_live, messages, short, wait_for};

fn number(number: i64) -> VersionNumber {
    VersionNumber::try_from(number).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_learns_is_served_its_own_and_goes_back() {
    let world = World::new(1).await;
    let platform = &world.platform;
    let caller = world.tenant("acme", Plan::Tuned).await;
    let other = world.tenant("globex", Plan::Tuned).await;
    let before = world.complete(&caller, "atelier", HOUSE_PROMPT).await;
    let mut files = house_style();
    files.push(("assets/logo.py".to_owned(), "\0".to_owned()));
    let source = world.source(&caller, &files).await;

    // A first version, then a better one.
    let run = world.start(&caller, source, RunKind::Learn, short(8)).await;
    let first = world.finished(&caller, run).await;
    assert!(is_live(&first), "{first:?}");
    assert_eq!(first.version, Some(number(1)));
    let told = messages(platform, &caller, run).await.join("\n");
    assert!(told.contains("12 files") && told.contains("1 binary") && told.contains("to judge by"), "{told}");
    let result: RunResult = serde_json::from_value(first.result.unwrap()).unwrap();
    assert!(result.eval.loss.own < result.eval.loss.base && result.samples > 0, "{result:?}");
    let with_first = world.complete(&caller, "atelier", HOUSE_PROMPT).await;
    let run = world.start(&caller, source, RunKind::Learn, short(40)).await;
    let second = world.finished(&caller, run).await;
    assert!(is_live(&second), "{second:?}");
    let with_second = world.complete(&caller, "atelier", HOUSE_PROMPT).await;
    assert_ne!(with_second, before);

    // Nobody else is served it, and the base is what it was.
    assert_eq!(world.complete(&caller, "atelier-base", HOUSE_PROMPT).await, before);
    assert_eq!(world.complete(&other, "atelier", HOUSE_PROMPT).await, before);
    let model = "ft:atelier-base:acme:code:2";
    assert_eq!(world.complete(&caller, model, HOUSE_PROMPT).await, with_second);
    assert!(platform.complete(&other, crate::support::greedy(model, "x", 2)).await.is_err());
    let named: Vec<String> = platform.list_models(&caller).await.unwrap().into_iter().map(|model| model.id).collect();
    for name in ["atelier", "atelier-base", model, "ft:atelier-base:acme:code:1"] {
        assert!(named.iter().any(|id| id == name), "{named:?}");
    }

    // One that is not better does not go live, and says why.
    let run = world.start(&caller, source, RunKind::Learn, short(1)).await;
    let refused = world.finished(&caller, run).await;
    assert_eq!(refused.state, RunState::Refused);
    assert_eq!(refused.error.as_ref().map(|error| error.code.as_str()), Some("not_better"));
    assert_eq!(platform.list_versions(&caller).await.unwrap().versions.len(), 2);

    // Back, forth, and to a version by number.
    let list = platform.move_alias(&caller, "live", None).await.unwrap();
    assert_eq!((list.aliases.live, list.aliases.previous), (Some(number(1)), Some(number(2))));
    assert_eq!(world.complete(&caller, "atelier", HOUSE_PROMPT).await, with_first);
    platform.move_alias(&caller, "live", Some(number(2))).await.unwrap();
    assert_eq!(world.complete(&caller, "atelier", HOUSE_PROMPT).await, with_second);
    for (alias, to, code) in [("latest", None, "alias_not_found"), ("live", Some(number(9)), "not_found")] {
        let error = platform.move_alias(&caller, alias, to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound { code });
    }

    // A plan without own models serves the base under the same name, and the versions are still there afterwards.
    platform.set_plan(&world.operator, "acme", Plan::Shared).await.unwrap();
    assert_eq!(world.complete(&caller, "atelier", HOUSE_PROMPT).await, before);
    assert!(platform.complete(&caller, crate::support::greedy(model, "x", 2)).await.is_err());
    platform.set_plan(&world.operator, "acme", Plan::Tuned).await.unwrap();
    assert_eq!(world.complete(&caller, "atelier", HOUSE_PROMPT).await, with_second);

    // What the demo and the benchmarks need.
    let held_out = platform.held_out(&caller, second.id).await.unwrap();
    let adapter = platform.adapter(&caller, number(2)).await.unwrap();
    let base = platform.base_model_for_training().await.unwrap();
    let loss =
        |adapter| atelier_platform::mean_loss(&atelier_platform::held_out_losses(&base, adapter, &held_out).unwrap());
    assert!(loss(Some(&adapter)) < loss(None));
    assert!(!platform.export_adapter(&caller, number(1)).await.unwrap().weights.is_empty());
    assert!(platform.export_adapter(&other, number(1)).await.is_err());

    // An evaluation measures what is served and changes nothing.
    let unseen = world.source(&caller, &house_style()[..2]).await;
    let run = world.start(&caller, unseen, RunKind::Evaluate, LearnOptions::default()).await;
    let judged = world.finished(&caller, run).await;
    assert_eq!(judged.state, RunState::Succeeded);
    let result: RunResult = serde_json::from_value(judged.result.unwrap()).unwrap();
    assert!(result.eval.loss.own < result.eval.loss.base && result.eval.files == 2);
    platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_cancelled_while_it_trains() {
    let world = World::new(1).await;
    let caller = world.tenant("acme", Plan::Tuned).await;
    let source = world.source(&caller, &house_style()).await;
    let run = world.start(&caller, source, RunKind::Learn, short(100_000)).await;
    wait_for(&world.platform, &caller, run, |record| {
        record.progress.as_ref().is_some_and(|progress| progress.done > 0)
    })
    .await;
    assert!(world.platform.delete_source(&caller, source).await.is_err(), "a run still needs it");
    world.platform.cancel_run(&caller, run).await.unwrap();
    let record = world.finished(&caller, run).await;
    assert_eq!((record.state, record.version), (RunState::Cancelled, None));
    assert!(world.platform.cancel_run(&caller, run).await.is_err());
    assert!(world.platform.list_versions(&caller).await.unwrap().versions.is_empty());
    world.platform.delete_source(&caller, source).await.unwrap();
    world.platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_learned_says_why() {
    let world = World::new(1).await;
    let platform = &world.platform;
    let shared = world.tenant("communal", Plan::Shared).await;
    let tuned = world.tenant("acme", Plan::Tuned).await;

    let source = world.source(&shared, &house_style()[..2]).await;
    let learn = |source, options| StartRun { source, kind: RunKind::Learn, options };
    let error = platform.start_run(&shared, learn(source, LearnOptions::default())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict { code: "plan_without_learning" });
    let error = platform.start_run(&tuned, learn(source, LearnOptions::default())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound { code: "not_found" }, "another tenant's source is not there");
    for options in [
        LearnOptions { rank: Some(0), ..Default::default() },
        LearnOptions { dropout: Some(2.0), ..Default::default() },
        LearnOptions { window_tokens: Some(1 << 14), ..Default::default() },
    ] {
        let error =
            platform.start_run(&shared, StartRun { source, kind: RunKind::Evaluate, options }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest { param: Some("options"), code: Some("invalid_value") });
    }

    let tiny = world.source(&tuned, &[("a.py".to_owned(), "x = 1\ny = 2\n".to_owned())]).await;
    let run = world.start(&tuned, tiny, RunKind::Learn, LearnOptions::default()).await;
    let record = world.finished(&tuned, run).await;
    assert_eq!(record.state, RunState::Refused);
    assert_eq!(record.error.map(|error| error.code), Some("too_little_text".to_owned()));
    platform.shutdown().await;
}
