//! Server-sent events of a completion, frame for frame as OpenAI sends them.
//!
//! Dropping the response body (the client went away) drops the `CompletionStream`, which frees the slot in the
//! engine; settlement happens elsewhere and does not depend on this body being read.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use atelier_platform::{CompletionEvent, CompletionStream};
use axum::http::HeaderValue;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use crate::completions::{
    Choice, ChoiceObject, CompletionObject, UsageObject, completion_head, finish_reason, usage_object,
};
use crate::error::ApiError;

/// Idle time after which a comment frame is sent, so that a vanished client is noticed and proxies keep the
/// connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The last frame of every stream.
const DONE: &str = "[DONE]";

/// Answers a completion as a stream of chunks, ended by `data: [DONE]`.
pub fn respond(completion: CompletionStream, include_usage: bool) -> Response {
    let frames = Frames { completion, include_usage, choices: HashMap::new(), state: State::Running };
    let body = stream::unfold(frames, |mut frames| async move {
        let frame = frames.next().await?;
        Some((Ok::<Event, Infallible>(frame), frames))
    });
    let mut response = Sse::new(body).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies such as nginx would otherwise hold the frames back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Frames {
    completion: CompletionStream,
    include_usage: bool,
    choices: HashMap<u32, Choice>,
    state: State,
}

enum State {
    Running,
    Closing,
    Closed,
}

impl Frames {
    async fn next(&mut self) -> Option<Event> {
        match self.state {
            State::Closed => return None,
            State::Closing => return Some(self.close()),
            State::Running => {}
        }
        loop {
            let Some(event) = self.completion.next().await else { return Some(self.close()) };
            match event {
                CompletionEvent::Text { index, text, logprobs } => {
                    let choice = self.choices.entry(index).or_default().chunk(index, &text, logprobs);
                    return Some(self.chunk(vec![choice], None));
                }
                CompletionEvent::Finished { index, reason } => {
                    let choice =
                        ChoiceObject { index, finish_reason: Some(finish_reason(reason)), ..Default::default() };
                    return Some(self.chunk(vec![choice], None));
                }
                CompletionEvent::Done { usage } if self.include_usage => {
                    self.state = State::Closing;
                    return Some(self.chunk(Vec::new(), Some(usage_object(&usage))));
                }
                // Settled; what is left to send is the closing frame.
                CompletionEvent::Done { .. } => continue,
                CompletionEvent::Failed(error) => {
                    self.state = State::Closing;
                    return Some(frame(ApiError::from(error).body()));
                }
            }
        }
    }

    fn close(&mut self) -> Event {
        self.state = State::Closed;
        Event::default().data(DONE)
    }

    fn chunk(&self, choices: Vec<ChoiceObject>, usage: Option<UsageObject>) -> Event {
        let object = CompletionObject {
            choices,
            // Streams that ask for usage carry the key in every chunk, null until the last.
            usage: self.include_usage.then_some(usage),
            ..completion_head(&self.completion)
        };
        frame(&object)
    }
}

fn frame<T: serde::Serialize>(object: &T) -> Event {
    // Serialising our own plain structs cannot fail; an empty frame would be a bug that the stream tests show.
    Event::default().json_data(object).unwrap_or_default()
}
