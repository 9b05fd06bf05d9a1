//! Why a change is refused.

use super::key::{Key, Kind};
use super::text::Reason;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// One thing that is wrong with a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// The object.
    #[schema(value_type = String)]
    pub key: Key,
    /// Its field, with a dot between a table and what is in it; none: the object as a whole.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that isn't obvious.
    pub hint: Option<String>,
    /// Another object that it collides with.
    pub other: Option<Other>,
}

/// Why something is refused: the first reasons, and how many more there are.
pub type Faults = (Vec<Fault>, usize);

/// An object that another collides with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Other {
    /// The object.
    #[schema(value_type = String)]
    pub key: Key,
    /// Its field.
    pub field: String,
    /// The two are of a kind, and the other one came first; else the message says what it is.
    pub first: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.key)?;
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.other {
            Some(Other { key, first: true, .. }) => write!(f, ", first in {key}")?,
            Some(Other { key, .. }) => write!(f, " ({key})")?,
            None => {}
        }
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// A fault, and what would have to be there for it not to be one: whoever knows that such a thing could merely not be
/// read leaves the fault unsaid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub fault: Fault,
    /// What is missing.
    pub lacks: Option<Lack>,
    /// Of a field that is a list, the element that is meant.
    pub element: Option<String>,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// This object.
    Object(Key),
    /// One more object of this kind.
    Kind(Kind),
    /// One more real server of this virtual server.
    RealServer(Key),
}

impl Finding {
    pub(super) fn new(key: &Key, message: impl Into<String>) -> Self {
        let fault = Fault { key: key.clone(), field: None, message: message.into(), hint: None, other: None };
        Self { fault, lacks: None, element: None }
    }

    pub(super) fn because(key: &Key, field: &str, reason: Reason) -> Self {
        let mut finding = Self::new(key, reason.message).field(field);
        finding.fault.hint = reason.hint;
        finding
    }

    pub(super) fn field(mut self, field: impl Into<String>) -> Self {
        self.fault.field = Some(field.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.fault.hint = Some(hint.into());
        self
    }

    /// The message says whose it is.
    pub(super) fn of(mut self, key: &Key, field: &str) -> Self {
        self.fault.other = Some(Other { key: key.clone(), field: field.to_owned(), first: false });
        self
    }

    /// The same stands in another one, which came first.
    pub(super) fn first_in(mut self, key: &Key, field: &str) -> Self {
        self.fault.other = Some(Other { key: key.clone(), field: field.to_owned(), first: true });
        self
    }

    pub(super) fn element(mut self, element: &str) -> Self {
        self.element = Some(element.to_owned());
        self
    }

    pub(super) fn lacking(mut self, lack: Lack) -> Self {
        self.lacks = Some(lack);
        self
    }
}
