//! The API's description of itself, generated from what its functions and types say.

use super::{cluster, objects, refusal, writes};
use crate::manage::preview::Forecast;
use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Steerage",
        description = "The cluster's configuration and state, on the admin socket of each node (docs/api.md)."
    ),
    paths(
        objects::list,
        objects::show,
        objects::history,
        writes::put,
        writes::remove,
        writes::write,
        cluster::status,
        cluster::drain,
        cluster::undrain,
        cluster::migrate,
        show,
    ),
    components(schemas(refusal::FaultTold, objects::RecordTold, Forecast))
)]
struct Described;

/// This document: OpenAPI 3.1.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, description = "The document")))]
pub async fn show() -> Json<Document> {
    Json(Described::openapi())
}
