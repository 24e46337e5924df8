//! Completions: choices, echo, limits of a request, and the ledger.

use atelier_domain::Plan;
use atelier_platform::{CompletionEvent, CompletionRequest, ErrorKind, FinishReason, Prompt, Usage};

use crate::support::{World, collect, greedy};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn choices_and_log_probabilities() {
    let world = World::new(0).await;
    let caller = world.tenant("acme", Plan::Shared).await;
    let request = CompletionRequest {
        prompts: vec![Prompt::Text("def add(a, b):\n".to_owned()), Prompt::Text("class Stack:\n".to_owned())],
        n: 2,
        temperature: 0.8,
        ..greedy("atelier", "", 8)
    };
    let (texts, usage) = collect(world.platform.complete(&caller, request.clone()).await.unwrap()).await.unwrap();
    assert_eq!(texts.len(), 4);
    let again = collect(world.platform.complete(&caller, request.clone()).await.unwrap()).await.unwrap();
    assert_eq!(again.0, texts, "the same seed draws the same");
    assert_eq!(again.1.prompt_tokens, usage.prompt_tokens);
    // Choice k of one prompt is what the seed + k draws alone.
    let second = CompletionRequest { prompts: request.prompts[1..].to_vec(), n: 1, seed: Some(2), ..request };
    assert_eq!(collect(world.platform.complete(&caller, second).await.unwrap()).await.unwrap().0[0], texts[3]);

    let request = CompletionRequest { echo: true, logprobs: Some(2), ..greedy("atelier", "def add(a, b):\n", 4) };
    let mut stream = world.platform.complete(&caller, request).await.unwrap();
    let (mut text, mut tokens, mut reasons) = (String::new(), Vec::new(), Vec::new());
    while let Some(event) = stream.next().await {
        match event {
            CompletionEvent::Text { text: part, logprobs, .. } => {
                text.push_str(&part);
                tokens.extend(logprobs.into_iter().flatten());
            }
            CompletionEvent::Finished { reason, .. } => reasons.push(reason),
            CompletionEvent::Done { usage } => assert_eq!(usage.completion_tokens, 4),
            CompletionEvent::Failed(error) => panic!("{error}"),
        }
    }
    assert!(text.starts_with("def add(a, b):\n"));
    assert_eq!(tokens.iter().map(|token| token.text.as_str()).collect::<String>(), text);
    assert_eq!(tokens[0].logprob, None);
    assert!(
        tokens[1..].iter().all(|token| token.logprob.is_some_and(|logprob| logprob <= 0.0) && token.top.len() == 2)
    );
    assert_eq!(reasons, [FinishReason::Length]);
    world.platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_be_served_is_refused_by_field_and_costs_nothing() {
    let world = World::new(0).await;
    let caller = world.tenant("acme", Plan::Shared).await;
    let long = "x = 1\n".repeat(2_000);
    let ask = |change: fn(&mut CompletionRequest)| {
        let mut request = greedy("atelier", "def f():\n", 4);
        change(&mut request);
        request
    };
    let cases = [
        (ask(|request| request.model = "gpt-4".to_owned()), None, Some("model_not_found")),
        (ask(|request| request.model = "ft:atelier-base:acme:code:1".to_owned()), None, Some("model_not_found")),
        (greedy("atelier", &long, 4), Some("prompt"), Some("context_length_exceeded")),
        (ask(|request| request.prompts = vec![Prompt::Tokens(vec![1 << 20])]), Some("prompt"), Some("invalid_value")),
        (ask(|request| request.prompts.clear()), Some("prompt"), Some("invalid_value")),
        (ask(|request| request.n = 1_000), Some("prompt"), Some("invalid_value")),
        (
            ask(|request| (request.suffix, request.echo) = (Some("x".to_owned()), true)),
            Some("echo"),
            Some("unsupported_parameter"),
        ),
    ];
    for (request, expected_param, expected_code) in cases {
        let error = world.platform.complete(&caller, request).await.unwrap_err();
        match error.kind() {
            ErrorKind::InvalidRequest { param, code } => {
                assert_eq!((param, code), (expected_param, expected_code), "{error}")
            }
            ErrorKind::NotFound { code } => assert_eq!((None, Some(code)), (expected_param, expected_code), "{error}"),
            kind => panic!("{kind:?}: {error}"),
        }
    }
    assert_eq!(world.usage(&caller).await, (Usage::default(), 0));
    world.platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_holds_what_was_generated_whoever_went_away() {
    let world = World::new(0).await;
    let caller = world.tenant("acme", Plan::Shared).await;
    let other = world.tenant("globex", Plan::Shared).await;
    let mut expected = Usage::default();
    for prompt in ["def area(width, height):\n", "def area(width, height):\n", "import os\n"] {
        let request = CompletionRequest { n: 2, ..greedy("atelier", prompt, 12) };
        let (_, usage) = collect(world.platform.complete(&caller, request).await.unwrap()).await.unwrap();
        expected.prompt_tokens += usage.prompt_tokens;
        expected.completion_tokens += usage.completion_tokens;
        expected.cached_tokens += usage.cached_tokens;
    }
    assert_eq!(world.usage(&caller).await, (expected, 3));

    // Streams whose clients go away: at once, after a few tokens, and before the handler had answered.
    drop(world.platform.complete(&caller, greedy("atelier", "def f(x):\n", 400)).await.unwrap());
    let mut stream = world.platform.complete(&caller, greedy("atelier", "class A:\n", 400)).await.unwrap();
    for _ in 0..3 {
        stream.next().await;
    }
    drop(stream);
    let unanswered = world.platform.complete(&caller, greedy("atelier", "while True:\n", 400));
    let _gave_up = tokio::time::timeout(std::time::Duration::from_micros(50), unanswered).await;
    let generated = world.platform.stats().completion_tokens;
    assert!(generated >= expected.completion_tokens);

    world.platform.shutdown().await;
    let all = world.platform.stats().completion_tokens;
    let reopened =
        atelier_platform::Platform::open(crate::support::options(world.folder.path(), 0)).await.unwrap().platform;
    let (usage, requests) = crate::support::usage(&reopened, &caller).await;
    assert!((5..=6).contains(&requests), "{requests}");
    assert_eq!(usage.completion_tokens, all, "every token that was generated stands in the ledger");
    assert!(usage.completion_tokens < expected.completion_tokens + 3 * 400, "what was dropped was cancelled");
    assert_eq!(crate::support::usage(&reopened, &other).await, (Usage::default(), 0));
    reopened.shutdown().await;
}
