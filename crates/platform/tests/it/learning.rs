//! Learning: from a source to a version that answers, the gate, and the way back.

use atelier_access::Caller;
use atelier_domain::{Plan, SourceId, VersionNumber};
use atelier_platform::{
    ErrorKind, LearnOptions, Platform, PlatformOptions, RunKind, RunRecord, RunResult, RunState, StartRun,
    held_out_losses, mean_loss,
};

use crate::support::{
    HOUSE_PROMPT, World, base_folder, collect, greedy, house_style, is_live, messages, options, short, to_plan,
    wait_for,
};

fn number(number: i64) -> VersionNumber {
    VersionNumber::try_from(number).unwrap()
}

/// What a tenant with two versions looks like to the checks below.
struct Learned {
    world: World,
    caller: Caller,
    other: Caller,
    source: SourceId,
    second: RunRecord,
    /// Completions of the same prompt: by the base, by version 1, by version 2.
    texts: [String; 3],
}

const SECOND: &str = "ft:atelier-base:acme:code:2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_learns_is_served_its_own_and_goes_back() {
    let learned = learn_twice().await;
    served_to_its_tenant_only(&learned).await;
    not_better_is_refused(&learned).await;
    back_and_forth(&learned).await;
    another_plan_and_back(&learned).await;
    measured_on_what_it_has_not_seen(&learned).await;
    another_base(learned).await;
}

async fn learn_twice() -> Learned {
    let world = World::new(1).await;
    let caller = world.tenant("acme", Plan::Tuned).await;
    let other = world.tenant("globex", Plan::Tuned).await;
    let before = world.complete(&caller, "atelier", HOUSE_PROMPT).await;
    let mut files = house_style();
    files.push(("assets/logo.py".to_owned(), "\0".to_owned()));
    let source = world.source(&caller, &files).await;

    let run = world.start(&caller, source, RunKind::Learn, short(8)).await;
    let first = world.finished(&caller, run).await;
    assert!(is_live(&first), "{first:?}");
    assert_eq!(first.version, Some(number(1)));
    let told = messages(&world.platform, &caller, run).await.join("\n");
    assert!(told.contains("12 files") && told.contains("1 binary") && told.contains("to judge by"), "{told}");
    let result: RunResult = serde_json::from_value(first.result.unwrap()).unwrap();
    assert!(result.eval.loss.own < result.eval.loss.base && result.samples > 0, "{result:?}");
    let with_first = world.complete(&caller, "atelier", HOUSE_PROMPT).await;

    let run = world.start(&caller, source, RunKind::Learn, short(40)).await;
    let second = world.finished(&caller, run).await;
    assert!(is_live(&second), "{second:?}");
    let with_second = world.complete(&caller, "atelier", HOUSE_PROMPT).await;
    assert_ne!(with_second, before);
    Learned { world, caller, other, source, second, texts: [before, with_first, with_second] }
}

async fn served_to_its_tenant_only(Learned { world, caller, other, texts, .. }: &Learned) {
    assert_eq!(world.complete(caller, "atelier-base", HOUSE_PROMPT).await, texts[0]);
    assert_eq!(world.complete(other, "atelier", HOUSE_PROMPT).await, texts[0]);
    assert_eq!(world.complete(caller, SECOND, HOUSE_PROMPT).await, texts[2]);
    assert!(world.platform.complete(other, greedy(SECOND, "x", 2)).await.is_err());
    let models = world.platform.list_models(caller).await.unwrap();
    for name in ["atelier", "atelier-base", SECOND, "ft:atelier-base:acme:code:1"] {
        assert!(models.iter().any(|model| model.id == name), "{models:?}");
    }
}

async fn not_better_is_refused(Learned { world, caller, source, .. }: &Learned) {
    let run = world.start(caller, *source, RunKind::Learn, short(1)).await;
    let refused = world.finished(caller, run).await;
    assert_eq!(refused.state, RunState::Refused);
    assert_eq!(refused.error.as_ref().map(|error| error.code.as_str()), Some("not_better"));
    assert_eq!(world.platform.list_versions(caller).await.unwrap().versions.len(), 2);
}

async fn back_and_forth(Learned { world, caller, texts, .. }: &Learned) {
    let list = world.platform.move_alias(caller, "live", None).await.unwrap();
    assert_eq!((list.aliases.live, list.aliases.previous), (Some(number(1)), Some(number(2))));
    assert_eq!(world.complete(caller, "atelier", HOUSE_PROMPT).await, texts[1]);
    world.platform.move_alias(caller, "live", Some(number(2))).await.unwrap();
    assert_eq!(world.complete(caller, "atelier", HOUSE_PROMPT).await, texts[2]);
    for (alias, to, code) in [("latest", None, "alias_not_found"), ("live", Some(number(9)), "not_found")] {
        let error = world.platform.move_alias(caller, alias, to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound { code });
    }
}

/// A plan without own models serves the base under the same name, and the versions are still there afterwards.
async fn another_plan_and_back(Learned { world, caller, texts, .. }: &Learned) {
    world.platform.update_tenant(&world.operator, "acme", to_plan(Plan::Shared)).await.unwrap();
    assert_eq!(world.complete(caller, "atelier", HOUSE_PROMPT).await, texts[0]);
    assert!(world.platform.complete(caller, greedy(SECOND, "x", 2)).await.is_err());
    world.platform.update_tenant(&world.operator, "acme", to_plan(Plan::Tuned)).await.unwrap();
    assert_eq!(world.complete(caller, "atelier", HOUSE_PROMPT).await, texts[2]);
}

async fn measured_on_what_it_has_not_seen(Learned { world, caller, other, second, .. }: &Learned) {
    let platform = &world.platform;
    let held_out = platform.held_out(caller, second.id).await.unwrap();
    let adapter = platform.adapter(caller, number(2)).await.unwrap();
    let base = platform.base_model_for_training().await.unwrap();
    let loss = |adapter| mean_loss(&held_out_losses(&base, adapter, &held_out).unwrap());
    assert!(loss(Some(&adapter)) < loss(None));
    assert!(!platform.export_adapter(caller, number(1)).await.unwrap().weights.is_empty());
    assert!(platform.export_adapter(other, number(1)).await.is_err());

    let source = world.source(caller, &house_style()[..2]).await;
    let run = world.start(caller, source, RunKind::Evaluate, LearnOptions::default()).await;
    let judged = world.finished(caller, run).await;
    assert_eq!(judged.state, RunState::Succeeded);
    let result: RunResult = serde_json::from_value(judged.result.unwrap()).unwrap();
    assert!(result.eval.loss.own < result.eval.loss.base && result.eval.files == 2);
}

/// After the base was replaced, the tenant's name still answers, by the base alone; its versions say why they do not.
async fn another_base(Learned { world, caller, .. }: Learned) {
    world.platform.shutdown().await;
    let base = world.folder.path().join("another-base");
    std::fs::create_dir(&base).unwrap();
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(base_folder().join(file), base.join(file)).unwrap();
    }
    let config = std::fs::read_to_string(base_folder().join("config.json")).unwrap();
    std::fs::write(base.join("config.json"), config.replace("1e-06", "2e-06")).unwrap();
    let options = PlatformOptions { base, ..options(world.folder.path(), 0) };
    let platform = Platform::open(options).await.unwrap().platform;
    let alone =
        collect(platform.complete(&caller, greedy("atelier-base", HOUSE_PROMPT, 8)).await.unwrap()).await.unwrap();
    let served = collect(platform.complete(&caller, greedy("atelier", HOUSE_PROMPT, 8)).await.unwrap()).await.unwrap();
    assert_eq!(served.0, alone.0);
    let other_base = ErrorKind::Conflict { code: "other_base" };
    assert_eq!(platform.complete(&caller, greedy(SECOND, "x", 2)).await.unwrap_err().kind(), other_base);
    assert_eq!(platform.move_alias(&caller, "live", None).await.unwrap_err().kind(), other_base);
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
