//! Tables of a parsed file, read key by key, with every complaint tied to its line.

use super::error::{At, Place, Problem, Sink};
use super::schema::{Key, Kind, find, suggest};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How many syntax errors of a file are stepped over.
const STEPS: usize = 64;

/// One file's text, without the lines that could not be parsed.
pub(super) struct Source {
    file: usize,
    text: String,
    /// Byte offsets at which lines start.
    lines: Vec<usize>,
    /// It has syntax errors: what is missing may merely not have been understood.
    broken: bool,
}

impl Source {
    /// Takes up a file and reports its syntax errors.
    ///
    /// A line with an error is blanked and the rest parsed again, so that one doesn't hide others, nor what is wrong with
    /// values. Where an error need not end with its line (a header, brackets, a string of several lines), the file counts
    /// as lost from there on.
    pub fn new(path: &Path, text: String, sink: &Sink) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let mut lines: Vec<usize> = std::iter::once(0).chain(starts).collect();
        // The end of the text is no line of its own.
        if lines.len() > 1 && lines.last() == Some(&text.len()) {
            lines.pop();
        }
        let mut source = Self { file: sink.file(path), text, lines, broken: false };
        for _ in 0..STEPS {
            let errors = DeTable::parse_recoverable(&source.text).1;
            let Some(first) = errors.iter().min_by_key(|error| source.offset(error)) else { return source };
            source.broken = true;
            let place = source.place(source.offset(first));
            let range = source.range(place.line);
            let line = &source.text[range.clone()];
            let several = |s| line.contains(s);
            if line.trim().is_empty()
                || line.contains(['[', ']', '{', '}'])
                || several("\"\"\"")
                || several("'''")
            {
                source.give_up(&errors, sink);
                return source;
            }
            sink.syntax_error(place, Self::problem(first));
            source.text.replace_range(range.clone(), &" ".repeat(range.len()));
        }
        source.give_up(&DeTable::parse_recoverable(&source.text).1, sink);
        source
    }

    /// Reports `errors`, the first of each line, and that the file is lost from the first of them on.
    fn give_up(&self, errors: &[toml::de::Error], sink: &Sink) {
        let mut errors: Vec<_> = errors.iter().map(|error| (self.place(self.offset(error)), error)).collect();
        errors.sort_by_key(|(place, _)| place.line);
        errors.dedup_by_key(|(place, _)| place.line);
        for (i, (place, error)) in errors.into_iter().enumerate() {
            if i == 0 {
                sink.lost(place);
            } else if error.message().starts_with("duplicate") {
                // Behind a broken header, keys seem to stand in the table before it, and so to stand twice.
                continue;
            }
            sink.syntax_error(place, Self::problem(error));
        }
    }

    fn problem(error: &toml::de::Error) -> Problem {
        Problem::new(error.message().trim_end().replace('\n', ", "))
    }

    fn offset(&self, error: &toml::de::Error) -> usize {
        error.span().map_or(self.text.len(), |span| span.start)
    }

    fn place(&self, offset: usize) -> Place {
        Place { file: self.file, line: self.lines.partition_point(|start| *start <= offset).max(1) }
    }

    /// The bytes of a line, but for what ends it.
    fn range(&self, line: usize) -> Range<usize> {
        let start = self.lines[line - 1];
        let end = self.text[start..].find('\n').map_or(self.text.len(), |i| start + i);
        start..end
    }
}

/// One file as a tree.
pub(super) struct Doc<'t> {
    source: &'t Source,
    root: DeTable<'t>,
    /// See [`Source::broken`].
    pub broken: bool,
}

impl<'t> Doc<'t> {
    /// Reports every key that `keys` doesn't have.
    pub fn new(source: &'t Source, keys: &'static [Key], sink: &Sink) -> Self {
        let root = DeTable::parse_recoverable(&source.text).0.into_inner();
        let doc = Self { source, root, broken: source.broken };
        doc.check(&doc.root, keys, "", sink);
        doc
    }

    fn place(&self, offset: usize) -> Place {
        self.source.place(offset)
    }

    /// The first line, for what is missing in the file as a whole.
    pub fn top(&self) -> Place {
        self.place(0)
    }

    /// Reports keys that `keys` doesn't have, and tables that are none or the wrong kind.
    fn check(&self, table: &DeTable<'t>, keys: &'static [Key], path: &str, sink: &Sink) {
        for (name, value) in table.iter() {
            let place = self.place(name.span().start);
            let name: &str = name.get_ref();
            let Some(key) = find(keys, name) else {
                let shown = if path.is_empty() { String::new() } else { format!(" in [{path}]") };
                let mut problem = Problem::new(format!("unknown key `{}`{shown}", name.escape_debug()));
                problem.hint = suggest(keys, name);
                sink.error(place, "", problem);
                continue;
            };
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            match (&key.kind, value.get_ref()) {
                (Kind::Value, _) => {}
                (Kind::Table(below), DeValue::Table(table)) => self.check(table, below, &path, sink),
                (Kind::Table(_), _) => {
                    sink.error(place, name, Problem::new("is a table").hint(format!("write [{path}], once")));
                }
                (Kind::Array(below), DeValue::Array(elements)) => {
                    for element in elements.iter() {
                        match element.get_ref() {
                            DeValue::Table(table) => self.check(table, below, &path, sink),
                            _ => sink.error(
                                self.place(element.span().start),
                                name,
                                Problem::new("is a list of tables")
                                    .hint(format!("write [[{path}]] for each")),
                            ),
                        }
                    }
                }
                (Kind::Array(_), _) => {
                    let hint = format!("write [[{path}]], in double brackets, for each");
                    sink.error(place, name, Problem::new("is a list of tables").hint(hint));
                }
            }
        }
    }
}

/// A table, or the same table of several files of which the first that has a key wins.
pub(super) struct Section<'a> {
    pub sink: &'a Sink,
    keys: &'static [Key],
    layers: Vec<(&'a Doc<'a>, &'a DeTable<'a>)>,
    /// Where the table starts, for what is missing in it.
    pub place: Place,
    /// How messages name it.
    pub path: String,
    /// It is an element of a list, named in `path`.
    element: bool,
    /// Something was already said of it, so that nothing may be said to be missing.
    silent: bool,
}

impl<'a> Section<'a> {
    /// The top level of files.
    pub fn root(sink: &'a Sink, keys: &'static [Key], docs: &[&'a Doc<'a>]) -> Self {
        let layers: Vec<_> = docs.iter().map(|&doc| (doc, &doc.root)).collect();
        Self {
            sink,
            keys,
            place: layers.first().map_or(Place { file: 0, line: 1 }, |(doc, _)| doc.top()),
            silent: docs.iter().any(|doc| doc.broken),
            layers,
            path: String::new(),
            element: false,
        }
    }

    /// Whether any layer has it.
    pub fn exists(&self) -> bool {
        !self.layers.is_empty()
    }

    fn key_path(&self, key: &str) -> String {
        match (self.path.is_empty(), self.element) {
            (true, _) => key.to_owned(),
            (false, true) => format!("{}: {key}", self.path),
            (false, false) => format!("{}.{key}", self.path),
        }
    }

    /// Reports a problem with the table as a whole.
    pub fn error(&self, problem: Problem) {
        self.sink.error(self.place, self.path.as_str(), problem);
    }

    /// Reports a problem with one of its keys.
    pub fn error_at(&self, place: Place, key: &str, problem: Problem) {
        self.sink.error(place, self.key_path(key), problem);
    }

    fn find(&self, key: &str) -> Option<(&'a Doc<'a>, Place, &'a DeValue<'a>)> {
        debug_assert!(find(self.keys, key).is_some(), "{key} is not in the schema");
        self.layers.iter().find_map(|&(doc, table)| {
            let (key, value) = table.get_key_value(key)?;
            Some((doc, doc.place(key.span().start), value.get_ref()))
        })
    }

    /// `Some(None)`: absent. `None`: bad, and said so.
    pub fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Option<At<T>>> {
        let Some((_, place, value)) = self.find(key) else {
            return Some(None);
        };
        match read(value) {
            Ok(value) => Some(Some(At { value, place })),
            Err(problem) => {
                self.error_at(place, key, problem);
                None
            }
        }
    }

    /// `None`: absent or bad, and said so.
    pub fn required<T>(
        &self,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<At<T>> {
        let found = self.optional(key, read)?;
        if found.is_none() && !self.silent {
            let of = if self.element { String::new() } else { format!(" in [{}]", self.path) };
            let of = if self.path.is_empty() { String::new() } else { of };
            self.error(Problem::new(format!("`{key}` is missing{of}")));
        }
        found
    }

    /// An array of scalars; absent: `Some(None)`; `None`: at least one is bad, and all of those were said.
    pub fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Option<At<Vec<At<T>>>>> {
        let Some((doc, place, value)) = self.find(key) else {
            return Some(None);
        };
        let DeValue::Array(elements) = value else {
            self.error_at(place, key, Problem::new("expected an array").hint(format!("write {key} = [ … ]")));
            return None;
        };
        let mut values = Vec::with_capacity(elements.len());
        for element in elements.iter() {
            let place = doc.place(element.span().start);
            match read(element.get_ref()) {
                Ok(value) => values.push(At { value, place }),
                Err(problem) => {
                    self.error_at(place, key, problem);
                }
            }
        }
        let all_good = values.len() == elements.len();
        all_good.then_some(Some(At { value: values, place }))
    }

    /// The table under `key`, of all layers.
    pub fn table(&self, key: &'static str) -> Self {
        let keys = match find(self.keys, key).map(|k| &k.kind) {
            Some(Kind::Table(keys)) => keys,
            _ => unreachable!("{key} is not a table in the schema"),
        };
        let mut below = Self {
            sink: self.sink,
            keys,
            layers: Vec::new(),
            place: self.place,
            path: self.key_path(key),
            element: false,
            silent: self.silent,
        };
        let mut first = true;
        for &(doc, table) in &self.layers {
            let Some((name, value)) = table.get_key_value(key) else { continue };
            match value.get_ref() {
                DeValue::Table(table) => below.layers.push((doc, table)),
                _ => below.silent = true,
            }
            if std::mem::take(&mut first) {
                below.place = doc.place(name.span().start.min(value.span().start));
            }
        }
        below
    }

    /// The list of tables under `key`, of the first layer; `None`: it isn't one, and that was said.
    pub fn tables(&self, key: &'static str) -> Option<Vec<Self>> {
        let keys = match find(self.keys, key).map(|k| &k.kind) {
            Some(Kind::Array(keys)) => keys,
            _ => unreachable!("{key} is not a list of tables in the schema"),
        };
        let Some((doc, _, value)) = self.find(key) else {
            return if self.silent { None } else { Some(Vec::new()) };
        };
        let elements = value.as_array()?;
        let below = |(i, element): (usize, &'a Spanned<DeValue<'a>>)| {
            let table = element.get_ref().as_table()?;
            // An element goes by its name in messages; one without a good name by its number.
            let name = table.get("name").and_then(|n| n.get_ref().as_str()).filter(|n| n.len() <= 64);
            let called = name.map_or_else(|| format!("{key} #{}", i + 1), |name| format!("{key} {name:?}"));
            Some(Self {
                sink: self.sink,
                keys,
                layers: vec![(doc, table)],
                place: doc.place(element.span().start),
                path: if self.path.is_empty() { called } else { format!("{}: {called}", self.path) },
                element: true,
                silent: self.silent,
            })
        };
        elements.iter().enumerate().map(below).collect()
    }

    /// Puts the layers of `defaults` beneath this table's, for the keys that it shares with it.
    pub fn over(mut self, defaults: &Self) -> Self {
        self.layers.extend(&defaults.layers);
        self
    }
}
