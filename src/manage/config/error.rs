//! What is wrong with a configuration: collected while reading and checking, shown all together.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

/// A message and perhaps a hint, not yet tied to a place.
pub(super) use crate::cluster::namespace::text::Reason as Problem;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file it stands in, as it was named.
    pub file: PathBuf,
    /// Its line, from 1; 0 if the file could not be read at all.
    pub line: usize,
    /// The key (`workers.count`) or the element and key (`port "front": mtu`); empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that isn't obvious.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n    hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong: at least one error, by file (node, profile, cluster) and line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Errors(pub Vec<ConfigError>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// A line of one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the file in the [`Sink`].
    pub file: usize,
    /// Line, from 1; 0 for a file that could not be read.
    pub line: usize,
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub place: Place,
}

impl<T> At<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), place: self.place }
    }
}

/// Where errors go. Shared by reference among all readers and checks, hence the cells.
#[derive(Default)]
pub(super) struct Sink {
    files: RefCell<Vec<PathBuf>>,
    errors: RefCell<Vec<(Place, String, Problem)>>,
    syntax: RefCell<Vec<(Place, Problem)>>,
    /// From here on a file was not understood.
    lost: RefCell<Vec<Place>>,
}

impl Sink {
    /// Takes up a file; errors are listed in the order in which files were taken up.
    pub fn file(&self, path: &Path) -> usize {
        let mut files = self.files.borrow_mut();
        files.push(path.to_owned());
        files.len() - 1
    }

    pub fn error(&self, place: Place, key: impl Into<String>, problem: Problem) {
        self.errors.borrow_mut().push((place, key.into(), problem));
    }

    /// A syntax error. What else is said of the same line is the parser's guess, and not shown.
    pub fn syntax_error(&self, place: Place, problem: Problem) {
        self.syntax.borrow_mut().push((place, problem));
    }

    /// What else is said of this file from `place` on is a guess too, and not shown.
    pub fn lost(&self, place: Place) {
        self.lost.borrow_mut().push(place);
    }

    /// `place` as a message names it.
    pub fn show(&self, place: Place) -> String {
        format!("{}:{}", self.files.borrow()[place.file].display(), place.line)
    }

    pub fn is_empty(&self) -> bool {
        self.errors.borrow().is_empty() && self.syntax.borrow().is_empty()
    }

    pub fn into_errors(self) -> Errors {
        let files = self.files.into_inner();
        let (syntax, lost) = (self.syntax.into_inner(), self.lost.into_inner());
        let guessed = |at: &Place| {
            syntax.iter().any(|(place, _)| place == at)
                || lost.iter().any(|place| place.file == at.file && place.line <= at.line)
        };
        let mut errors = self.errors.into_inner();
        errors.retain(|(place, ..)| !guessed(place));
        errors.extend(syntax.into_iter().map(|(place, problem)| (place, String::new(), problem)));
        errors.sort_by_key(|(place, ..)| (place.file, place.line));
        let named = errors.into_iter().map(|(place, key, problem)| ConfigError {
            file: files[place.file].clone(),
            line: place.line,
            key,
            message: problem.message,
            hint: problem.hint,
        });
        Errors(named.collect())
    }
}
