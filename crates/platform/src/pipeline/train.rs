//! Parts → adapter, with progress, checkpoints and a way to stop.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use atelier_domain::limits;
use atelier_model::Model;
use atelier_store::StoreError;
use atelier_trainer::{
    CheckpointError, Observer, SourceFile, Split, TrainError, TrainEvent, TrainOptions, Trained, held_out_windows,
    train,
};
use bytes::Bytes;
use serde_json::json;

use super::JobError;
use crate::learn::LearnOptions;
use crate::worker::{Job, StopReason};

/// Steps between checkpoints: what a killed server has to do again. Writing one takes a hundredth of that time.
const CHECKPOINT_STEPS: usize = 20;

/// Trains, from the last checkpoint if there is one.
pub(crate) async fn train_adapter(job: &Arc<Job>, model: &Arc<Model>, parts: &Split) -> Result<Trained, JobError> {
    let checkpoint = job.read_checkpoint().await?;
    let options = job.options()?;
    let (worker, model) = (Arc::clone(job), Arc::clone(model));
    let (files, validation) = (parts.train.clone(), parts.validation.clone());
    job.blocking(move || run(&worker, &model, &files, &validation, &options, checkpoint)).await
}

fn run(
    job: &Arc<Job>,
    model: &Model,
    files: &[SourceFile],
    validation: &[SourceFile],
    options: &LearnOptions,
    checkpoint: Option<Bytes>,
) -> Result<Trained, JobError> {
    let options = train_options(options, model, files);
    let windows = held_out_windows(model.tokenizer(), validation, options.window_tokens);
    let mut observer = RunObserver { job, last_step_event: None, failed: None };
    let mut trained = train(model, files, &windows, &options, checkpoint.as_deref(), &mut observer);
    if let Err(TrainError::Checkpoint(error)) = &trained {
        // Written by another version of this program, or for another base: the run starts anew.
        observer.note_checkpoint(*error);
        trained = train(model, files, &windows, &options, None, &mut observer);
    }
    match (observer.failed, trained) {
        (Some(error), _) => Err(error.into()),
        (None, Err(TrainError::Cancelled)) => Err(JobError::Stopped(job.stopped().unwrap_or(StopReason::Closing))),
        (None, trained) => Ok(trained?),
    }
}

/// The recipe for this much code on this base, with what the caller wants otherwise.
fn train_options(options: &LearnOptions, model: &Model, files: &[SourceFile]) -> TrainOptions {
    let tokens = files.iter().map(|file| model.tokenizer().encode_plain(&file.text).len()).sum();
    let recipe = TrainOptions::recipe(tokens, model.config().hidden_size);
    TrainOptions { checkpoint_steps: CHECKPOINT_STEPS, ..options.over(recipe) }
}

/// Writes what happens into the run's record. Runs on the training thread.
struct RunObserver<'a> {
    job: &'a Arc<Job>,
    last_step_event: Option<Instant>,
    failed: Option<StoreError>,
}

impl RunObserver<'_> {
    fn write(&mut self, event: &TrainEvent) -> Result<(), StoreError> {
        match event {
            TrainEvent::Started { steps_total, step, tokens, base_validation_loss } => {
                let begun = if *step == 0 { "Training" } else { "Training goes on" };
                let message = format!(
                    "{begun} at step {step} of {steps_total} on {tokens} tokens; the base's validation loss is \
                     {base_validation_loss:.3}"
                );
                self.job.write_message(&message)?;
                self.job.write_progress("train", *step as u64, *steps_total as u64)
            }
            TrainEvent::Step { step, steps_total, loss, learning_rate, tokens_per_second } => {
                let due = self.last_step_event.is_none_or(|at| at.elapsed() >= limits::RUN_STEP_EVENT_INTERVAL);
                if !due && step < steps_total {
                    return Ok(());
                }
                self.last_step_event = Some(Instant::now());
                self.job.write_event(
                    "step",
                    &json!({"step": step, "steps": steps_total, "loss": loss, "learning_rate": learning_rate,
                            "tokens_per_second": tokens_per_second}),
                )?;
                self.job.write_progress("train", *step as u64, *steps_total as u64)
            }
            TrainEvent::Validation { step, loss, best } => {
                self.job.write_event("validation", &json!({"step": step, "loss": loss, "best": best}))
            }
            TrainEvent::Stopped { reason } => self.job.write_event("trained", &json!({"reason": reason})),
        }
    }

    fn note_checkpoint(&mut self, error: CheckpointError) {
        let noted =
            self.job.write_message(&format!("The checkpoint could not be used, so training starts anew: {error}"));
        self.failed = self.failed.take().or(noted.err());
    }
}

impl Observer for RunObserver<'_> {
    fn event(&mut self, event: &TrainEvent) -> ControlFlow<()> {
        if self.failed.is_none()
            && let Err(error) = self.write(event)
        {
            self.failed = Some(error);
        }
        if self.failed.is_some() || self.job.stopped().is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn checkpoint(&mut self, state: &[u8]) {
        if self.failed.is_none()
            && let Err(error) = self.job.write_checkpoint(Bytes::copy_from_slice(state))
        {
            self.failed = Some(error);
        }
    }
}
