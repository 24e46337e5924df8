//! Reads adapters on a thread of its own, so that the loop goes on for others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use atelier_model::{Adapter, Digest};

use crate::mailbox::Mailbox;

/// Orders that were not begun: residency orders one adapter at a time.
const ORDERS_MAX: usize = 1;

/// Where adapters come from. The engine knows them by content digest only.
pub trait AdapterSource: Send + Sync + 'static {
    /// Reads one adapter. Runs on the loader thread, never on the loop; may block. The text of an error goes to the
    /// requests that wait for the adapter.
    fn load(&self, digest: Digest) -> Result<Adapter, String>;
}

/// The loader thread's mailbox. The thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Loader {
    orders: mpsc::SyncSender<Digest>,
}

impl Loader {
    pub(crate) fn start(source: Arc<dyn AdapterSource>, results: Mailbox) -> Loader {
        let (orders, inbox) = mpsc::sync_channel::<Digest>(ORDERS_MAX);
        let read_all = move || {
            for digest in inbox {
                let read = catch_unwind(AssertUnwindSafe(|| source.load(digest).map(|adapter| adapter.to_served())));
                let result = read.unwrap_or_else(|_| Err("the adapter source panicked".to_owned()));
                if results.loaded(digest, result).is_err() {
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

    /// Asks for one adapter; the result comes into the loop's mailbox.
    pub(crate) fn order(&self, digest: Digest) {
        self.orders.send(digest).expect("the loader thread outlives its mailbox");
    }
}
