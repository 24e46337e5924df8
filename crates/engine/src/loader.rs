//! Reads adapters on a thread of its own, so that the loop goes on for others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use atelier_model::{Adapter, Digest};

use crate::handle::Command;

/// Where adapters come from. The engine knows them by content digest only.
pub trait AdapterSource: Send + Sync + 'static {
    /// Reads one adapter. Runs on the loader thread, never on the loop; may block. The text of an error goes to the
    /// requests that wait for the adapter.
    fn load(&self, digest: Digest) -> Result<Adapter, String>;
}

/// The loader thread's mailbox. The thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Loader {
    orders: mpsc::Sender<Digest>,
}

impl Loader {
    pub(crate) fn start(source: Arc<dyn AdapterSource>, results: mpsc::Sender<Command>) -> Loader {
        let (orders, inbox) = mpsc::channel::<Digest>();
        let read_all = move || {
            for digest in inbox {
                let read = catch_unwind(AssertUnwindSafe(|| source.load(digest)));
                let result = read.unwrap_or_else(|_| Err("the adapter source panicked".to_owned()));
                if results.send(Command::Loaded(digest, result.map(Box::new))).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("atelier-adapter-loader".to_owned())
            .spawn(read_all)
            .expect("the operating system gives a thread at start");
        Loader { orders }
    }

    /// Asks for one adapter; the result comes as a [`Command::Loaded`].
    pub(crate) fn order(&self, digest: Digest) {
        self.orders.send(digest).expect("the loader thread outlives its mailbox");
    }
}
