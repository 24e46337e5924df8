//! How news reaches the loop. Nobody who sends ever waits: what is in flight of each kind has a bound of its own, and
//! the mailbox has room for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use atelier_model::{Digest, ServedAdapter};

use crate::event::Reporter;
use crate::job::CompletionJob;

/// News beside submissions: one wake, one loaded adapter (one load runs at a time), one shutdown.
const NEWS_BESIDE_SUBMISSIONS: usize = 3;

/// What comes into the loop's mailbox.
#[derive(Debug)]
pub(crate) enum Command {
    /// A checked job.
    Submit(Box<Submission>),
    /// The loader has read an adapter, or could not.
    Loaded(Digest, Result<Box<ServedAdapter>, String>),
    /// A consumer went away: a sleeping loop should look.
    Wake,
    /// Stop now.
    Shutdown,
}

/// A checked job on its way into the loop.
#[derive(Debug)]
pub(crate) struct Submission {
    /// Counts up from 1; names the request in the state's text.
    pub id: u64,
    pub job: CompletionJob,
    pub reporter: Reporter,
}

/// The engine has stopped; nobody reads the mailbox any more.
#[derive(Debug)]
pub(crate) struct NobodyReads;

/// The sending end.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    sender: mpsc::SyncSender<Command>,
    pending: Arc<Pending>,
}

/// Which of the news that need to be said only once are in the mailbox.
#[derive(Debug, Default)]
struct Pending {
    wake: AtomicBool,
    shutdown: AtomicBool,
}

/// The loop's end.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: mpsc::Receiver<Command>,
    pending: Arc<Pending>,
    /// What ended a sleep.
    next: Option<Command>,
}

/// Both ends of a mailbox for at most `submissions_max` submissions that were not taken out yet.
pub(crate) fn mailbox(submissions_max: usize) -> (Mailbox, Inbox) {
    let (sender, receiver) = mpsc::sync_channel(submissions_max + NEWS_BESIDE_SUBMISSIONS);
    let pending = Arc::new(Pending::default());
    (Mailbox { sender, pending: Arc::clone(&pending) }, Inbox { receiver, pending, next: None })
}

impl Mailbox {
    /// Hands a job over. The caller has counted it against `submissions_max`.
    pub(crate) fn submit(&self, submission: Submission) -> Result<(), NobodyReads> {
        self.send(Command::Submit(Box::new(submission)))
    }

    /// Hands over what the loader read, or its error.
    pub(crate) fn loaded(&self, digest: Digest, result: Result<ServedAdapter, String>) -> Result<(), NobodyReads> {
        self.send(Command::Loaded(digest, result.map(Box::new)))
    }

    /// Wakes the loop if it sleeps. What the caller did before, the loop sees after.
    pub(crate) fn wake(&self) {
        if !self.pending.wake.swap(true, Ordering::AcqRel) {
            let _engine_gone = self.send(Command::Wake).is_err();
        }
    }

    /// Tells the loop to stop.
    pub(crate) fn shut_down(&self) {
        if !self.pending.shutdown.swap(true, Ordering::AcqRel) {
            let _engine_gone = self.send(Command::Shutdown).is_err();
        }
    }

    fn send(&self, command: Command) -> Result<(), NobodyReads> {
        match self.sender.try_send(command) {
            Ok(()) => Ok(()),
            Err(mpsc::TrySendError::Disconnected(_)) => Err(NobodyReads),
            Err(mpsc::TrySendError::Full(_)) => unreachable!("the mailbox has room for all that can be in flight"),
        }
    }
}

impl Inbox {
    /// The next piece of news, if there is one.
    pub(crate) fn take(&mut self) -> Option<Command> {
        let command = self.next.take().or_else(|| self.receiver.try_recv().ok());
        if matches!(command, Some(Command::Wake)) {
            // Before the loop looks around: who goes away from here on wakes it again.
            self.pending.wake.swap(false, Ordering::AcqRel);
        }
        command
    }

    /// Sleeps until there is news. The loader holds a sending end, so the mailbox is never closed.
    pub(crate) fn wait(&mut self) {
        if self.next.is_none() {
            self.next = self.receiver.recv().ok();
        }
    }
}
