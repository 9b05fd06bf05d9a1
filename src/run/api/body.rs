//! What stands in the bodies of requests: objects and changes, as people write them.

use super::LARGEST_BODY;
use super::objects::key;
use super::refusal::Refusal;
use crate::cluster::namespace::{Change, Key, Object};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// One change of a write.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The object.
    key: String,
    /// The version that it must have now, 0 for none at all; unless set, any.
    expected: Option<u64>,
    /// What it says from then on: all of its fields.
    #[schema(value_type = Option<super::document::Fields>)]
    object: Option<Value>,
    /// It is removed. One of `object` and `delete` has to be there.
    #[serde(default)]
    delete: bool,
}

impl Wanted {
    fn change(self) -> Result<Change, Refusal> {
        let key = key(&self.key)?;
        let value = match (self.object, self.delete) {
            (Some(fields), false) => Some(of_fields(&key, fields)?),
            (None, true) => None,
            _ => return Err(Refusal::wrong(format!("{key}: needs either `object` or `delete: true`"))),
        };
        Ok(Change { key, expected: self.expected, value })
    }
}

/// Bytes of a body, if they have all come.
pub fn whole(bytes: Result<Bytes, BytesRejection>) -> Result<Bytes, Refusal> {
    bytes.map_err(|why| match why.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let error = format!("the body is larger than {} MiB: write in parts", LARGEST_BODY >> 20);
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error)
        }
        status => Refusal::new(status, why.body_text()),
    })
}

/// The object that `key` is to be, from the JSON of its fields.
pub fn object(key: &Key, body: &[u8]) -> Result<Object, Refusal> {
    let fields = serde_json::from_slice(body)
        .map_err(|why| Refusal::wrong(format!("{key}: the body is no JSON: {why}")))?;
    of_fields(key, fields)
}

fn of_fields(key: &Key, fields: Value) -> Result<Object, Refusal> {
    // A list would do as well: its elements would be taken for the fields in their order.
    if !fields.is_object() {
        return Err(Refusal::wrong(format!("{key}: fields stand in an object: {{\"NAME\": VALUE, …}}")));
    }
    Object::read(key.kind(), fields).map_err(|why| Refusal::wrong(format!("{key}: {why}")))
}

/// The changes of a write of several objects, from the JSON of a list of [`Wanted`].
pub fn changes(body: &[u8]) -> Result<Vec<Change>, Refusal> {
    let wanted: Vec<Wanted> = serde_json::from_slice(body)
        .map_err(|why| Refusal::wrong(format!("the body is no list of changes: {why}")))?;
    if wanted.is_empty() {
        return Err(Refusal::wrong("there is no change to be made"));
    }
    wanted.into_iter().map(Wanted::change).collect()
}
