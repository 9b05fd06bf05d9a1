//! What stands in a request's header and query: who asks for a change, under which id, and of which version.

use super::refusal::Refusal;
use crate::cluster::namespace::RequestId;
use crate::run::draw::random;
use crate::run::gate::Gate;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{FromRequestParts, Query};
use axum::http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::serve::IncomingStream;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};

/// Names who asks, beside the user of the process at the other end.
pub const USER: HeaderName = HeaderName::from_static("x-steerage-user");
/// The request's id: 32 hexadecimal digits.
pub const REQUEST: HeaderName = HeaderName::from_static("idempotency-key");

/// Characters of a user's name.
const LONGEST_USER: usize = 64;

/// The user of the process at the other end, if the kernel tells.
#[derive(Clone, Copy, Debug)]
pub struct Peer(Option<u32>);

impl Connected<IncomingStream<'_, Gate>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Gate>) -> Self {
        Self(stream.io().user())
    }
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// For the audit trail.
    pub who: String,
    /// The request's id, drawn unless given.
    pub request: RequestId,
    /// The version that the object must have; 0: there must be none.
    pub expected: Option<u64>,
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::wrong(format!("{name} stands twice in the header")));
    }
    let text = value.to_str().map_err(|_| Refusal::wrong(format!("{name} has letters that are no ASCII")))?;
    Ok(Some(text.trim()))
}

/// The version in an entity tag (RFC 9110 §8.8.3); the quotes may be missing.
fn version(tag: &str) -> Result<u64, Refusal> {
    let digits = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(tag);
    digits.parse().ok().filter(|version| *version > 0).ok_or_else(|| {
        Refusal::wrong(format!("if-match: {tag:?} is no version, such as \"12\": GET the object for it"))
    })
}

impl Asker {
    fn read(headers: &HeaderMap, peer: Peer) -> Result<Self, Refusal> {
        // What the kernel says of the other end can't be made up.
        let user = peer.0.map_or("unknown".to_owned(), |uid| format!("uid {uid}"));
        let who = match header(headers, &USER)? {
            Some(name) if !name.is_empty() && name.len() <= LONGEST_USER => format!("{name} ({user})"),
            Some(_) => return Err(Refusal::wrong(format!("{USER} has 1 to {LONGEST_USER} letters"))),
            None => user,
        };
        let request = match header(headers, &REQUEST)? {
            Some(id) => id.parse().map_err(|why| Refusal::wrong(format!("{REQUEST}: {why}")))?,
            None => random().map(RequestId).ok_or_else(|| {
                Refusal::unavailable(format!("the system gives no random numbers: name an id with {REQUEST}"))
            })?,
        };
        let expected = match (header(headers, &IF_MATCH)?, header(headers, &IF_NONE_MATCH)?) {
            (None, None) => None,
            (Some(tag), None) => Some(version(tag)?),
            (None, Some("*")) => Some(0),
            (None, Some(_)) => return Err(Refusal::wrong("if-none-match can only be *")),
            (Some(_), Some(_)) => {
                return Err(Refusal::wrong("if-match and if-none-match exclude each other"));
            }
        };
        Ok(Self { who, request, expected })
    }
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        Self::read(&parts.headers, peer.map_or(Peer(None), |ConnectInfo(peer)| *peer))
    }
}

/// The headers that every write may have, for the document.
impl IntoParams for Asker {
    fn into_params(_parameter_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let header = |name: &HeaderName, told| {
            let text = SchemaType::from_iter([Type::String, Type::Null]);
            let schema = ObjectBuilder::new().schema_type(text).build();
            let parameter = ParameterBuilder::new().name(name.as_str()).parameter_in(ParameterIn::Header);
            parameter.required(utoipa::openapi::Required::False).description(Some(told)).schema(Some(schema))
        };
        let request = header(&REQUEST, "The request's id: 32 hexadecimal digits");
        let user = header(&USER, "Who asks, for the audit trail");
        vec![request.build(), user.build()]
    }
}

/// What stands in a query. What isn't known, or makes no sense, is refused.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let read = Query::from_request_parts(parts, state).await;
        read.map(|Query(asked)| Self(asked)).map_err(|why| Refusal::wrong(why.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    fn read(headers: &[(&'static str, &str)]) -> Result<Asker, u16> {
        let each =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        each.for_each(|(name, value)| _ = map.append(name, value));
        Asker::read(&map, Peer(Some(1000))).map_err(|refusal| refusal.into_response().status().as_u16())
    }

    #[test]
    fn headers_are_understood() {
        let id = "000102030405060708090a0b0c0d0e0f";
        let asker = read(&[("idempotency-key", id), ("if-match", "\"12\"")]).unwrap();
        assert_eq!((asker.who.as_str(), asker.expected), ("uid 1000", Some(12)));
        assert_eq!(asker.request.to_string(), id);
        let asker = read(&[("x-steerage-user", "alice"), ("if-none-match", "*")]).unwrap();
        assert_eq!((asker.who.as_str(), asker.expected), ("alice (uid 1000)", Some(0)));
        assert_ne!(read(&[]).unwrap().request, read(&[]).unwrap().request, "ids are drawn");
    }

    #[test]
    fn headers_that_make_no_sense_are_refused() {
        for headers in [
            &[("idempotency-key", "12")][..],
            &[("if-match", "*")],
            &[("if-match", "\"0\"")],
            &[("if-match", "W/\"3\"")],
            &[("if-none-match", "\"3\"")],
            &[("if-match", "3"), ("if-none-match", "*")],
            &[("if-match", "3"), ("if-match", "4")],
            &[("x-steerage-user", "")],
        ] {
            assert_eq!(read(headers), Err(400), "{headers:?}");
        }
    }
}
