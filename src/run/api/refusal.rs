//! Answers other than the one asked for.

use crate::cluster::log;
use crate::cluster::namespace::{Fault, RequestId};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as Described, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// Why there is no other answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Refused {
    /// For people.
    pub error: String,
    /// What is wrong with a write, of which nothing was made; the first 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// How many more faults there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<usize>,
    /// The write's id: under it, it can be asked for again without being made twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub request: Option<RequestId>,
}

/// A refusal and its status code.
#[derive(Debug)]
pub struct Refusal(StatusCode, Box<Refused>);

impl Refusal {
    /// With nothing but a text.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        let refused = Refused { error: error.into(), faults: Vec::new(), more: None, request: None };
        Self(status, Box::new(refused))
    }

    /// What can't be now.
    pub fn unavailable(error: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    /// What makes no sense.
    pub fn wrong(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// This node takes no changes.
    pub fn no_log() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "this node goes by its files: nothing is decided here (a node with a `[log]` decides)",
        )
    }

    /// The namespace doesn't take a write.
    pub fn faults(status: StatusCode, faults: Vec<Fault>, more: usize) -> Self {
        let first = faults.first().map_or_else(|| "the write is refused".to_owned(), Fault::to_string);
        let error = match faults.len() + more {
            0 | 1 => first,
            count => format!("{first} (and {} more)", count - 1),
        };
        Self(status, Box::new(Refused { error, faults, more: Some(more), request: None }))
    }

    /// The log doesn't take a proposal.
    pub fn by_log(why: &log::Refusal) -> Self {
        match why {
            log::Refusal::NoLeader => Self::unavailable(
                "no change can be made now: a majority of the voters is out of reach, or no leader is elected yet",
            ),
            log::Refusal::TooLong(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, why.to_string()),
            _ => Self::unavailable(format!("no change can be made now: {why}")),
        }
    }

    /// Nobody knows yet whether it is decided.
    pub fn unknown() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "it isn't known whether this was decided, or may yet be: ask again under the same id, \
             which makes it once",
        )
    }

    /// The same for a write of this id.
    pub fn of(mut self, request: RequestId) -> Self {
        self.1.request = Some(request);
        self
    }
}

/// What any change may be answered, for the document: see [`Refusal::by_log`] and [`Refusal::unknown`].
impl IntoResponses for Refusal {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let told = [
            (StatusCode::SERVICE_UNAVAILABLE, "No majority: nothing was changed"),
            (StatusCode::GATEWAY_TIMEOUT, "Not known: ask again, for a write under the same id"),
        ];
        let each = told.map(|(status, why)| {
            let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Refused"))).build();
            let answer = ResponseBuilder::new().description(why).content("application/json", body);
            (status.as_str().to_owned(), RefOr::T(answer.build()))
        });
        BTreeMap::from(each)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}
