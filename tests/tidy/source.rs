//! A source file as tokens, with its comments and strings apart, and the paths that it names.

use std::collections::BTreeMap;

/// A token of code: a word, or a punctuation mark (`::` and `=>` are one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Line, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
    /// Inside an item marked `#[cfg(test)]`, or in a file of tests.
    pub test: bool,
}

/// A source file, taken apart.
pub struct Source {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// Code, without comments and without what is inside strings.
    pub tokens: Vec<Token>,
    /// Comments by line; a comment of several lines stands under each.
    pub comments: BTreeMap<usize, String>,
    /// How many lines there are.
    pub lines: usize,
    /// It starts with `//!`.
    pub has_docstring: bool,
}

/// A path that code names: where, and its segments from the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Line of its last segment.
    pub line: usize,
    /// Segments; `*` for a glob.
    pub segments: Vec<String>,
    /// In test code.
    pub test: bool,
}

impl Source {
    /// Takes `text` apart.
    pub fn new(path: &str, text: &str) -> Self {
        let (mut tokens, comments) = tokenise(text);
        let file = path.rsplit('/').next().unwrap_or(path);
        let all_tests = file.ends_with("tests.rs") || path.contains("/tests/") || path.starts_with("tests/");
        mark_tests(&mut tokens, all_tests);
        Self {
            path: path.into(),
            tokens,
            comments,
            lines: text.lines().count(),
            has_docstring: text.lines().find(|l| !l.trim().is_empty()).is_some_and(|l| l.starts_with("//!")),
        }
    }

    /// Whether the tokens from `at` on are these.
    pub fn is(&self, at: usize, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(i, text)| self.tokens.get(at + i).is_some_and(|t| t.text == *text))
    }

    /// Every path in the code: those of `use` declarations, spread out, and those in expressions and types, with a first
    /// segment that a `use` renamed or brought in replaced by what it stands for. `self` and `super` are resolved against
    /// the file's and the inline modules' place in the crate, which then starts with `crate`.
    pub fn names(&self) -> Vec<Named> {
        let mut found = Vec::new();
        let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut uses = vec![false; self.tokens.len()];
        for (at, token) in self.tokens.iter().enumerate() {
            if token.text == "use" && !self.is(at + 1, &["<"]) {
                let mut here = Vec::new();
                let end = self.use_tree(at + 1, &mut Vec::new(), &mut here);
                uses[at..end.min(self.tokens.len())].fill(true);
                for (mut named, alias) in here {
                    named.segments = self.resolve(at, named.segments);
                    named.test = token.test;
                    aliases.insert(alias, named.segments.clone());
                    found.push(named);
                }
            }
        }
        let mut at = 0;
        while at < self.tokens.len() {
            let start = at;
            at += 1;
            let preceded = start > 0 && ["::", "."].contains(&self.tokens[start - 1].text.as_str());
            let global = preceded
                && self.tokens[start - 1].text == "::"
                && (start < 2
                    || !is_word(&self.tokens[start - 2].text) && self.tokens[start - 2].text != ">");
            if uses[start] || !is_word(&self.tokens[start].text) || preceded && !global {
                continue;
            }
            let mut segments = vec![self.tokens[start].text.clone()];
            while self.is(at, &["::"]) && self.tokens.get(at + 1).is_some_and(|t| is_word(&t.text)) {
                segments.push(self.tokens[at + 1].text.clone());
                at += 2;
            }
            if segments.len() == 1 {
                continue;
            }
            if let Some(full) = aliases.get(&segments[0])
                && !global
            {
                segments.splice(..1, full.iter().cloned());
            }
            let segments = self.resolve(start, segments);
            let Token { line, test, .. } = self.tokens[at - 1];
            found.push(Named { line, segments, test });
        }
        found
    }

    /// Reads one tree of a `use` from token `at`; returns where it ends. Adds each path with the name it goes by here.
    fn use_tree(&self, mut at: usize, prefix: &mut Vec<String>, found: &mut Vec<(Named, String)>) -> usize {
        let depth = prefix.len();
        while let Some(token) = self.tokens.get(at) {
            match token.text.as_str() {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while at < self.tokens.len() && !self.is(at, &["}"]) {
                        at = self.use_tree(at, prefix, found);
                        at += usize::from(self.is(at, &[","]));
                    }
                    prefix.truncate(depth);
                    return at + 1;
                }
                "*" => {
                    prefix.push("*".into());
                    at += 1;
                }
                word if is_word(word) && word != "as" => {
                    prefix.push(word.into());
                    at += 1;
                }
                _ => break,
            }
        }
        let mut segments = prefix.clone();
        if segments.len() > 1 && segments.last().is_some_and(|s| s == "self") {
            segments.pop();
        }
        let mut alias = segments.last().cloned().unwrap_or_default();
        let line = self.tokens[at.max(1) - 1].line;
        if self.is(at, &["as"]) {
            alias = self.tokens.get(at + 1).map_or(String::new(), |t| t.text.clone());
            at += 2;
        }
        prefix.truncate(depth);
        if segments.is_empty() {
            return at + 1; // nothing that a path starts with: don't stand still
        }
        found.push((Named { line, segments, test: false }, alias));
        at
    }

    /// Replaces leading `self` and `super` by where token `at` stands in the crate.
    fn resolve(&self, at: usize, segments: Vec<String>) -> Vec<String> {
        if !["self", "super"].contains(&segments[0].as_str()) {
            return segments;
        }
        let mut place = self.module();
        place.extend(self.inline_modules(at));
        let mut rest = segments.as_slice();
        while let Some((first, more)) = rest.split_first() {
            match first.as_str() {
                "self" => {}
                "super" => {
                    place.pop();
                }
                _ => break,
            }
            rest = more;
        }
        let mut full = vec!["crate".to_string()];
        full.extend(place);
        full.extend_from_slice(rest);
        full
    }

    /// The file's module path: `src/path/port.rs` is `path::port`.
    pub fn module(&self) -> Vec<String> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let inner = inner.strip_suffix(".rs").unwrap_or(inner);
        let mut parts: Vec<String> = inner.split('/').map(String::from).collect();
        if parts.last().is_some_and(|p| ["mod", "lib", "main"].contains(&p.as_str())) {
            parts.pop();
        }
        parts
    }

    /// Modules with a body in this file that token `at` stands in, outermost first.
    fn inline_modules(&self, at: usize) -> Vec<String> {
        let mut open: Vec<Option<String>> = Vec::new();
        let mut named = None;
        for (i, token) in self.tokens[..at].iter().enumerate() {
            match token.text.as_str() {
                "mod" if self.is(i + 2, &["{"]) => named = Some(self.tokens[i + 1].text.clone()),
                "{" => open.push(named.take()),
                "}" => {
                    open.pop();
                }
                _ => {}
            }
        }
        open.into_iter().flatten().collect()
    }
}

/// Whether a token is an identifier or a keyword.
pub fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Splits a text into tokens and comments.
fn tokenise(text: &str) -> (Vec<Token>, BTreeMap<usize, String>) {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut comments: BTreeMap<usize, String> = BTreeMap::new();
    let (mut at, mut line) = (0, 1);
    let peek = |i: usize| chars.get(i).copied().unwrap_or('\0');
    while at < chars.len() {
        let (start, first_line) = (at, line);
        let c = chars[at];
        if c == '/' && peek(at + 1) == '/' {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
            comments.entry(line).or_default().extend(&chars[start..at]);
        } else if c == '/' && peek(at + 1) == '*' {
            let mut depth = 0;
            loop {
                match (peek(at), peek(at + 1)) {
                    ('/', '*') => (depth, at) = (depth + 1, at + 2),
                    ('*', '/') => (depth, at) = (depth - 1, at + 2),
                    (other, _) => {
                        line += usize::from(other == '\n');
                        at += 1;
                    }
                }
                if depth == 0 || at >= chars.len() {
                    break;
                }
            }
            let body: String = chars[start..at.min(chars.len())].iter().collect();
            for n in first_line..=line {
                comments.entry(n).or_default().push_str(&body);
            }
        } else if let Some(end) = string_end(&chars, at) {
            line += chars[at..end].iter().filter(|c| **c == '\n').count();
            at = end;
            tokens.push(Token { line: first_line, text: "\"\"".into(), test: false });
        } else if c == '\'' && is_lifetime(&chars, at) {
            at += 1; // the quote alone; its name follows as a word
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
        } else if c == '\'' {
            at += 1;
            while at < chars.len() && chars[at] != '\'' {
                at += 1 + usize::from(chars[at] == '\\');
            }
            at += 1;
            tokens.push(Token { line, text: "''".into(), test: false });
        } else if c.is_alphanumeric() || c == '_' {
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
            tokens.push(Token { line, text: chars[start..at].iter().collect(), test: false });
        } else {
            line += usize::from(c == '\n');
            at += 1;
            if !c.is_whitespace() {
                at += usize::from(matches!((c, peek(at)), (':', ':') | ('=', '>')));
                tokens.push(Token { line, text: chars[start..at].iter().collect(), test: false });
            }
        }
    }
    (tokens, comments)
}

/// Where a string literal of any kind that starts at `at` ends, if one does.
fn string_end(chars: &[char], at: usize) -> Option<usize> {
    let mut i = at;
    let mut raw = false;
    while matches!(chars.get(i), Some('b' | 'c' | 'r')) && i < at + 2 {
        raw |= chars[i] == 'r';
        i += 1;
    }
    let mut hashes = 0;
    while raw && chars.get(i) == Some(&'#') {
        (hashes, i) = (hashes + 1, i + 1);
    }
    if chars.get(i) != Some(&'"') {
        return None;
    }
    i += 1;
    while i < chars.len() {
        match chars[i] {
            '\\' if !raw => i += 1,
            '"' if chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes => {
                return Some(i + 1 + hashes);
            }
            _ => {}
        }
        i += 1;
    }
    Some(chars.len())
}

/// Whether the quote at `at` begins a lifetime or a label, not a character.
fn is_lifetime(chars: &[char], at: usize) -> bool {
    let name = chars.get(at + 1).is_some_and(|c| c.is_alphabetic() || *c == '_');
    name && chars.get(at + 2) != Some(&'\'')
}

/// Marks what is compiled for tests only.
fn mark_tests(tokens: &mut [Token], all: bool) {
    if all {
        tokens.iter_mut().for_each(|t| t.test = true);
        return;
    }
    let text = |tokens: &[Token], i: usize| tokens.get(i).map_or(String::new(), |t| t.text.clone());
    let mut at = 0;
    while at < tokens.len() {
        let start = at;
        at += 1;
        if text(tokens, start) != "#" || text(tokens, start + 1) != "[" {
            continue;
        }
        let close = matching(tokens, start + 1, "[", "]");
        let words: Vec<String> = (start + 2..close).map(|i| text(tokens, i)).collect();
        let negated = words.iter().any(|w| w == "not" || w == "any");
        let tests = words.first().is_some_and(|w| w == "test")
            || words.first().is_some_and(|w| w == "cfg") && words.iter().any(|w| w == "test") && !negated;
        if !tests {
            at = close;
            continue;
        }
        // The item ends with its body, or, if it has none, with a semicolon.
        let mut end = close;
        while end < tokens.len() && text(tokens, end) != ";" && text(tokens, end) != "{" {
            end += 1;
        }
        if text(tokens, end) == "{" {
            end = matching(tokens, end, "{", "}");
        }
        let end = (end + 1).min(tokens.len());
        tokens[start..end].iter_mut().for_each(|t| t.test = true);
        at = end;
    }
}

/// The token that closes the bracket at `at`.
fn matching(tokens: &[Token], at: usize, open: &str, close: &str) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        if token.text == open {
            depth += 1;
        } else if token.text == close {
            depth -= 1;
            if depth == 0 {
                return i;
            }
        }
    }
    tokens.len()
}
