//! `POST /v1/completions`: OpenAI's legacy completions, which is what editors speak for fill-in-the-middle.
//!
//! Wire shapes follow OpenAI's API reference; `suffix` and raw fill-in-the-middle tokens in the prompt are both
//! understood, since editors send either.

use std::collections::BTreeMap;

use atelier_domain::limits;
use atelier_platform::{
    CompletionEvent, CompletionRequest, CompletionStream, FinishReason, Platform, Prompt, TokenLogprobText, Usage,
};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{WireJson, optional_object};
use crate::stream;

/// Body of `POST /v1/completions`. What it holds is a tenant's, so it does not print.
#[derive(Deserialize, ToSchema)]
pub struct CreateCompletionRequest {
    /// `atelier` (what the key's tenant is served), `atelier-base`, or one version `ft:atelier-base:…`.
    pub model: String,
    /// Text, token ids, or a list of either.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub prompt: Option<PromptInput>,
    /// Text after the cursor: makes it a fill-in-the-middle request.
    pub suffix: Option<String>,
    /// Most tokens to generate per choice; 16 when absent.
    pub max_tokens: Option<i64>,
    /// 0 is greedy; 1 when absent.
    pub temperature: Option<f32>,
    /// Nucleus sampling: keep the smallest set of tokens whose probabilities sum to this.
    pub top_p: Option<f32>,
    /// Keep only this many most likely tokens; 0 or absent keeps all. An extension that local engines share.
    pub top_k: Option<i64>,
    /// Choices per prompt.
    pub n: Option<i64>,
    /// Same seed, same prompt and same model version give the same tokens.
    pub seed: Option<i64>,
    /// One stop string or up to four.
    #[schema(value_type = Object)]
    pub stop: Option<StopInput>,
    /// Send tokens as server-sent events while they are made.
    pub stream: Option<bool>,
    /// Options of the stream.
    #[serde(default, deserialize_with = "optional_object")]
    pub stream_options: Option<StreamOptions>,
    /// Log-probabilities of the tokens and of this many alternatives, at most five.
    pub logprobs: Option<i64>,
    /// Answer the prompt before the completion.
    pub echo: Option<bool>,
    /// Accepted when it equals `n`; anything else is refused, since nothing here ranks choices.
    pub best_of: Option<i64>,
    /// Accepted when 0.
    pub presence_penalty: Option<f32>,
    /// Accepted when 0.
    pub frequency_penalty: Option<f32>,
    /// Accepted when empty.
    #[schema(value_type = Option<Object>)]
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// An end-user label of the client's own; not kept.
    #[expect(dead_code, reason = "part of the wire shape and its document, without effect here")]
    pub user: Option<String>,
}

/// The four forms of a prompt that OpenAI's API allows.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string, a list of strings, a list of token ids, or a list of lists of token ids")]
pub enum PromptInput {
    /// One text.
    Text(String),
    /// One prompt as token ids.
    Tokens(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Several prompts as token ids.
    TokenLists(Vec<Vec<u32>>),
}

/// One stop string or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings")]
pub enum StopInput {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Options of a stream.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Add a last chunk with the usage of the whole request and no choices.
    #[serde(default)]
    pub include_usage: bool,
    /// Accepted and without effect.
    #[serde(default)]
    #[expect(dead_code, reason = "part of the wire shape and its document, without effect here")]
    pub include_obfuscation: bool,
}

/// The answer, whole or one chunk of a stream: the same shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompletionObject {
    /// `cmpl-…`.
    pub id: String,
    /// Always `text_completion`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: i64,
    /// The model name as asked for.
    pub model: String,
    /// The choices; empty in the usage chunk of a stream.
    pub choices: Vec<ChoiceObject>,
    /// Present when whole, and in streams that ask for it (null in all chunks but the last).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageObject>)]
    pub usage: Option<Option<UsageObject>>,
}

/// One choice, or the part of it that a chunk carries.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChoiceObject {
    /// The text.
    pub text: String,
    /// Which choice.
    pub index: u32,
    /// Log-probabilities when asked for.
    pub logprobs: Option<LogprobsObject>,
    /// `stop` or `length`; null while it goes on.
    pub finish_reason: Option<&'static str>,
}

/// Log-probabilities in the legacy completions shape: four parallel lists.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct LogprobsObject {
    /// Each token's text.
    pub tokens: Vec<String>,
    /// Each token's natural log-probability; null for the first token of an echoed prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// The likeliest alternatives at each place; null for the first token of an echoed prompt.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where each token begins, in characters of this choice's text.
    pub text_offset: Vec<usize>,
}

/// Tokens used.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UsageObject {
    /// Prompt tokens of all prompts.
    pub prompt_tokens: u64,
    /// Generated tokens of all choices.
    pub completion_tokens: u64,
    /// Their sum.
    pub total_tokens: u64,
    /// How the prompt tokens split.
    pub prompt_tokens_details: PromptTokensDetails,
}

/// How the prompt tokens split.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Read from the tenant's own prefix cache instead of computed.
    pub cached_tokens: u64,
}

/// `POST /v1/completions`.
pub async fn create_completion(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireJson(body): WireJson<CreateCompletionRequest>,
) -> Result<Response, ApiError> {
    let streamed = body.stream.unwrap_or(false);
    let include_usage = body.stream_options.as_ref().is_some_and(|options| options.include_usage);
    if body.stream_options.is_some() && !streamed {
        return Err(ApiError::invalid(
            "'stream_options' is only allowed when 'stream' is true. Set \"stream\": true or leave it out.",
            Some("stream_options"),
            None,
        ));
    }
    let request = body.check()?;
    let completion = platform.complete(&caller, request).await?;
    if streamed {
        return Ok(stream::respond(completion, include_usage));
    }
    Ok(Json(collect(completion).await?).into_response())
}

impl CreateCompletionRequest {
    /// JSON → a request within limits.
    fn check(self) -> Result<CompletionRequest, ApiError> {
        let n: u32 = count("n", self.n.unwrap_or(1), 1, limits::CHOICES_MAX)?;
        if self.best_of.is_some_and(|best_of| best_of != i64::from(n)) {
            return Err(ApiError::invalid("'best_of' must equal 'n'. Leave it out.", Some("best_of"), None));
        }
        for (name, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            if value.is_some_and(|value| value != 0.0) {
                return Err(ApiError::invalid(
                    format!("'{name}' other than 0 is not supported by this server. Leave it out."),
                    Some(name),
                    Some("unsupported_parameter"),
                ));
            }
        }
        if self.logit_bias.is_some_and(|bias| !bias.is_empty()) {
            return Err(ApiError::invalid(
                "'logit_bias' is not supported by this server. Leave it out.",
                Some("logit_bias"),
                Some("unsupported_parameter"),
            ));
        }
        let tokens_max = self.max_tokens.map(|most| count("max_tokens", most, 1, limits::COMPLETION_TOKENS_MAX));
        let logprobs = self.logprobs.map(|tops| count("logprobs", tops, 0, limits::LOGPROBS_MAX));
        let stop = match self.stop {
            None => Vec::new(),
            Some(StopInput::One(one)) => vec![one],
            Some(StopInput::Many(many)) => many,
        };
        check_stop(&stop)?;
        let prompts = match self.prompt {
            None => vec![Prompt::Text(String::new())],
            Some(PromptInput::Text(text)) => vec![Prompt::Text(text)],
            // An empty list of texts and one of tokens look alike; neither is a prompt.
            Some(PromptInput::Tokens(tokens)) if tokens.is_empty() => Vec::new(),
            Some(PromptInput::Tokens(tokens)) => vec![Prompt::Tokens(tokens)],
            Some(PromptInput::Texts(texts)) => texts.into_iter().map(Prompt::Text).collect(),
            Some(PromptInput::TokenLists(lists)) => lists.into_iter().map(Prompt::Tokens).collect(),
        };
        if prompts.is_empty() || prompts.len() * n as usize > limits::CHOICES_PER_REQUEST_MAX {
            return Err(ApiError::invalid(
                format!("Prompts times 'n' must lie between 1 and {}.", limits::CHOICES_PER_REQUEST_MAX),
                Some("prompt"),
                None,
            ));
        }
        Ok(CompletionRequest {
            model: self.model,
            prompts,
            suffix: self.suffix.filter(|suffix| !suffix.is_empty()),
            n,
            tokens_max: tokens_max.transpose()?,
            temperature: in_range("temperature", self.temperature.unwrap_or(1.0), 0.0, limits::TEMPERATURE_MAX)?,
            top_p: in_range("top_p", self.top_p.unwrap_or(1.0), 0.0, 1.0)?,
            top_k: count("top_k", self.top_k.unwrap_or(0), 0, u32::MAX)?,
            // Any 64-bit pattern is a seed; the sign has no meaning.
            seed: self.seed.map(i64::cast_unsigned),
            stop,
            logprobs: logprobs.transpose()?,
            echo: self.echo.unwrap_or(false),
        })
    }
}

fn in_range<T: PartialOrd + std::fmt::Display>(name: &'static str, value: T, low: T, high: T) -> Result<T, ApiError> {
    // Written so that NaN is outside.
    if value >= low && value <= high {
        return Ok(value);
    }
    Err(ApiError::invalid(
        format!("Invalid value for '{name}': {value}. Use a value between {low} and {high}."),
        Some(name),
        Some("invalid_value"),
    ))
}

/// A whole number within bounds. Wire types are wider than the bounds, so that a number outside of them is told from
/// what is no number.
fn count<T>(name: &'static str, value: i64, low: T, high: T) -> Result<T, ApiError>
where
    T: Copy + Into<i64> + TryFrom<i64>,
{
    let value = in_range(name, value, low.into(), high.into())?;
    Ok(T::try_from(value).unwrap_or(high))
}

fn check_stop(stop: &[String]) -> Result<(), ApiError> {
    if stop.len() > limits::STOP_STRINGS_MAX {
        return Err(ApiError::invalid(
            format!("At most {} stop strings; there are {}.", limits::STOP_STRINGS_MAX, stop.len()),
            Some("stop"),
            Some("invalid_value"),
        ));
    }
    if stop.iter().any(|text| text.is_empty() || text.len() > limits::STOP_STRING_BYTES_MAX) {
        return Err(ApiError::invalid(
            format!("A stop string must have 1 to {} bytes.", limits::STOP_STRING_BYTES_MAX),
            Some("stop"),
            Some("invalid_value"),
        ));
    }
    Ok(())
}

/// Waits for the whole completion: what a request without `stream` answers.
async fn collect(mut completion: CompletionStream) -> Result<CompletionObject, ApiError> {
    let mut choices: BTreeMap<u32, Choice> = BTreeMap::new();
    let mut usage = None;
    while let Some(event) = completion.next().await {
        match event {
            CompletionEvent::Text { index, text, logprobs } => {
                choices.entry(index).or_default().push(index, &text, logprobs);
            }
            CompletionEvent::Finished { index, reason } => {
                let choice = choices.entry(index).or_default();
                choice.object.index = index;
                choice.object.finish_reason = Some(finish_reason(reason));
            }
            CompletionEvent::Done { usage: total } => usage = Some(usage_object(&total)),
            CompletionEvent::Failed(error) => return Err(error.into()),
        }
    }
    Ok(CompletionObject {
        choices: choices.into_values().map(|choice| choice.object).collect(),
        usage: Some(usage),
        ..completion_head(&completion)
    })
}

/// A choice as it grows; knows how many characters came before, which the log-probabilities' offsets count from.
#[derive(Default)]
pub(crate) struct Choice {
    object: ChoiceObject,
    characters: usize,
}

impl Choice {
    fn push(&mut self, index: u32, text: &str, logprobs: Option<Vec<TokenLogprobText>>) {
        let part = self.chunk(index, text, logprobs);
        self.object.index = index;
        self.object.text.push_str(text);
        if let Some(part) = part.logprobs {
            let all = self.object.logprobs.get_or_insert_default();
            all.tokens.extend(part.tokens);
            all.token_logprobs.extend(part.token_logprobs);
            all.top_logprobs.extend(part.top_logprobs);
            all.text_offset.extend(part.text_offset);
        }
    }

    /// The next part of this choice alone, as a chunk of a stream carries it.
    pub(crate) fn chunk(&mut self, index: u32, text: &str, logprobs: Option<Vec<TokenLogprobText>>) -> ChoiceObject {
        let mut offset = self.characters;
        self.characters += text.chars().count();
        let logprobs = logprobs.map(|tokens| {
            let mut object = LogprobsObject::default();
            for token in tokens {
                object.text_offset.push(offset);
                offset += token.text.chars().count();
                object.tokens.push(token.text);
                object.token_logprobs.push(token.logprob);
                object.top_logprobs.push(token.logprob.map(|_| token.top.into_iter().collect()));
            }
            object
        });
        ChoiceObject { text: text.to_owned(), index, logprobs, finish_reason: None }
    }
}

pub(crate) fn completion_head(completion: &CompletionStream) -> CompletionObject {
    CompletionObject {
        id: completion.id.to_string(),
        object: "text_completion",
        created: completion.created.seconds(),
        model: completion.model.clone(),
        choices: Vec::new(),
        usage: None,
    }
}

pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

pub(crate) fn usage_object(usage: &Usage) -> UsageObject {
    UsageObject {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details: PromptTokensDetails { cached_tokens: usage.cached_tokens },
    }
}
