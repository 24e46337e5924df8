//! What every handler can reach.

use std::sync::Arc;

use atelier_platform::Platform;
use axum::extract::FromRef;

use crate::metrics::Metrics;
use crate::site::Site;

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The use cases.
    pub platform: Platform,
    /// This server as browsers know it.
    pub site: Site,
    /// Counters for `/metrics`.
    pub metrics: Arc<Metrics>,
}

impl FromRef<AppState> for Site {
    fn from_ref(state: &AppState) -> Self {
        state.site.clone()
    }
}

impl FromRef<AppState> for Platform {
    fn from_ref(state: &AppState) -> Self {
        state.platform.clone()
    }
}
