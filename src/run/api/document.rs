//! The API's description of itself, generated from what its functions and types say.

use super::{cluster, objects, writes};
use crate::cluster::namespace::{
    ClusterSpec, GroupSpec, LimitSpec, NodeSpec, PersistenceSpec, ProfileSpec, RealServerSpec, SnatSpec,
    VipSpec, VirtualServerSpec,
};
use crate::manage::preview::Forecast;
use axum::Json;
use utoipa::openapi::schema::{OneOfBuilder, Schema};
use utoipa::openapi::{OpenApi as Document, Ref, RefOr};
use utoipa::{OpenApi, PartialSchema, ToSchema};

/// The fields of an object, whose kind stands in its key.
pub struct Fields;

/// What the types that an object can have are called in the document.
const SPECS: [&str; 10] = [
    "ClusterSpec",
    "NodeSpec",
    "GroupSpec",
    "SnatSpec",
    "VipSpec",
    "ProfileSpec",
    "VirtualServerSpec",
    "RealServerSpec",
    "LimitSpec",
    "PersistenceSpec",
];

impl PartialSchema for Fields {
    fn schema() -> RefOr<Schema> {
        let each = SPECS.iter().fold(OneOfBuilder::new(), |all, name| all.item(Ref::from_schema_name(*name)));
        let told =
            "All of an object's fields: of the type that its key's kind asks for, as in the cluster file";
        RefOr::T(Schema::OneOf(each.description(Some(told)).build()))
    }
}

impl ToSchema for Fields {}

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
    components(schemas(
        Fields,
        Forecast,
        ClusterSpec,
        NodeSpec,
        GroupSpec,
        SnatSpec,
        VipSpec,
        ProfileSpec,
        VirtualServerSpec,
        RealServerSpec,
        LimitSpec,
        PersistenceSpec
    ))
)]
struct Described;

/// This document: OpenAPI 3.1.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, description = "The document")))]
pub async fn show() -> Json<Document> {
    Json(Described::openapi())
}
