//! `GET /v1/models`: only what the caller may use. `atelier` is what its tenant is served today, whatever the plan.

use atelier_platform::{ModelInfo, Platform};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::PathId;
use crate::wire::list_object;

/// A model, as OpenAI describes one.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelObject {
    /// The name to send as `model`.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: i64,
    /// `atelier`, or the tenant's name.
    pub owned_by: String,
}

list_object! {
    /// The models that the caller may use.
    ModelList of ModelObject
}

/// `GET /v1/models`.
pub async fn list_models(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<ModelList>, ApiError> {
    let models = platform.list_models(&caller).await?;
    Ok(Json(ModelList::whole(models.into_iter().map(model_object).collect())))
}

/// `GET /v1/models/{model}`.
pub async fn get_model(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId<String>,
) -> Result<Json<ModelObject>, ApiError> {
    Ok(Json(model_object(platform.get_model(&caller, &id).await?)))
}

fn model_object(model: ModelInfo) -> ModelObject {
    ModelObject { id: model.id, object: "model", created: model.created.seconds(), owned_by: model.owned_by }
}
