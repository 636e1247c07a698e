//! Rust source, read just closely enough that the repository's rules can be checked on it.

/// A source file, taken apart line by line.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its lines, in order.
    pub lines: Vec<Line>,
}

/// One line of a source file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// What the compiler reads; the inside of literals is left out.
    pub code: String,
    /// The inside of string and character literals.
    pub literal: String,
    /// The inside of comments.
    pub comment: String,
    /// Whether it is compiled for tests only.
    pub test: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    /// How many comments are open, one in the other.
    BlockComment(usize),
    Text,
    /// A raw string, with as many hashes.
    RawText(usize),
}

impl Source {
    /// Takes a file's text apart.
    pub fn parse(text: &str) -> Source {
        let chars: Vec<char> = text.chars().collect();
        let mut lines = Vec::new();
        let mut line = Line::default();
        let mut state = State::Code;
        let mut at = 0;
        while at < chars.len() {
            let (char, next) = (chars[at], chars.get(at + 1).copied().unwrap_or('\n'));
            if char == '\n' {
                lines.push(std::mem::take(&mut line));
                if state == State::LineComment {
                    state = State::Code;
                }
                at += 1;
                continue;
            }
            let mut taken = 1;
            match state {
                State::Code => match (char, next) {
                    ('/', '/') => state = State::LineComment,
                    ('/', '*') => (state, taken) = (State::BlockComment(1), 2),
                    ('"', _) => {
                        line.code.push(char);
                        let hashes = chars[..at].iter().rev().take_while(|c| **c == '#').count();
                        let raw = at > hashes && chars[at - hashes - 1] == 'r';
                        let word = raw && is_word(&chars, at - hashes - 1);
                        state = if word { State::RawText(hashes) } else { State::Text };
                    }
                    ('\'', _) => match character(&chars[at..]) {
                        Some(len) => {
                            line.code.push_str("''");
                            line.literal.extend(&chars[at + 1..at + len - 1]);
                            taken = len;
                        }
                        None => line.code.push(char),
                    },
                    _ => line.code.push(char),
                },
                State::LineComment => line.comment.push(char),
                State::BlockComment(depth) => match (char, next) {
                    ('*', '/') if depth == 1 => (state, taken) = (State::Code, 2),
                    ('*', '/') => (state, taken) = (State::BlockComment(depth - 1), 2),
                    ('/', '*') => (state, taken) = (State::BlockComment(depth + 1), 2),
                    _ => line.comment.push(char),
                },
                State::Text => match char {
                    '\\' if next != '\n' => {
                        line.literal.extend([char, next]);
                        taken = 2;
                    }
                    '"' => {
                        line.code.push(char);
                        line.literal.push(' ');
                        state = State::Code;
                    }
                    _ => line.literal.push(char),
                },
                State::RawText(hashes) => {
                    let closing = chars[at + 1..].iter().take_while(|c| **c == '#').count();
                    if char == '"' && closing >= hashes {
                        line.code.push(char);
                        line.literal.push(' ');
                        (state, taken) = (State::Code, 1 + hashes);
                    } else {
                        line.literal.push(char);
                    }
                }
            }
            at += taken;
        }
        if line != Line::default() {
            lines.push(line);
        }
        let mut source = Source { lines };
        source.mark_tests();
        source
    }

    /// Marks every item under `#[cfg(test)]`, up to its closing brace or its semicolon.
    fn mark_tests(&mut self) {
        let (mut pending, mut depth) = (false, 0_usize);
        for line in &mut self.lines {
            if depth == 0 && line.code.trim_start().starts_with("#[cfg(") && line.has("test") {
                pending = true;
            }
            if !pending && depth == 0 {
                continue;
            }
            line.test = true;
            let item = line.code.rsplit_once(']').filter(|_| line.code.contains("#["));
            for char in item.map_or(line.code.as_str(), |(_, item)| item).chars() {
                match char {
                    '{' => (pending, depth) = (false, depth + 1),
                    '}' => depth = depth.saturating_sub(1),
                    ';' if depth == 0 => pending = false,
                    _ => {}
                }
            }
        }
    }
}

impl Line {
    /// Whether its code has these words, not as parts of longer ones.
    pub fn has(&self, words: &str) -> bool {
        has(&self.code, words)
    }
}

/// Whether a text has these words, not as parts of longer ones.
pub fn has(text: &str, words: &str) -> bool {
    let is_part = |char: char| char.is_alphanumeric() || char == '_';
    text.match_indices(words).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + words.len()..]);
        let joined_before = words.starts_with(is_part) && before.ends_with(is_part);
        let joined_after = words.ends_with(is_part) && after.starts_with(is_part);
        !joined_before && !joined_after
    })
}

/// Whether the `r` here begins a raw string: it, or a `b` or `c` before it, begins a word.
fn is_word(chars: &[char], at: usize) -> bool {
    let start = if at > 0 && matches!(chars[at - 1], 'b' | 'c') { at - 1 } else { at };
    start == 0 || !(chars[start - 1].is_alphanumeric() || chars[start - 1] == '_')
}

/// The length of the character literal that begins here; `None` if it is a lifetime.
fn character(chars: &[char]) -> Option<usize> {
    match chars.get(1..3)? {
        ['\\', _] => chars[3..].iter().position(|char| *char == '\'').map(|len| len + 4),
        [_, '\''] => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        Source::parse(text).lines.into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn literals_and_comments_are_told_from_code() {
        for (text, expected) in [
            ("a // b", "a "),
            ("a /* b /* c */ d */ e", "a  e"),
            (r#"f("a // b \" c") // d"#, r#"f("") "#),
            (r###"f(r#"a " b"#) g"###, r###"f(r#"") g"###),
            ("f(br\"\\\") g", "f(br\"\") g"),
            ("var\"\\\" x\" y", "var\"\" y"),
            ("x: &'a str = '\\'' + '\"' + 'b'", "x: &'a str = '' + '' + ''"),
            ("'\\u{1f600}' a", "'' a"),
        ] {
            assert_eq!(code(text), [expected], "{text}");
        }
        assert_eq!(code("/* a\nb */ c\n\"d\ne\" f"), ["", " c", "\"", "\" f"]);
        assert_eq!(Source::parse("f(\"some\", 'x') // y").lines[0].literal, "some x");
    }

    #[test]
    fn items_for_tests_are_told_from_the_rest() {
        let text = "fn a() {\n}\n#[cfg(test)]\nmod tests {\n fn b() { }\n}\nfn c() {}\n\
                    #[cfg(test)]\nmod more;\nfn d() {}\n#[cfg(test)] use e::f;\nfn g() {}";
        let tests: Vec<bool> = Source::parse(text).lines.iter().map(|line| line.test).collect();
        let expected = [0, 0, 1, 1, 1, 1, 0, 1, 1, 0, 1, 0].map(|test| test == 1);
        assert_eq!(tests, expected);
    }

    #[test]
    fn words_are_not_found_in_longer_ones() {
        for (text, words, found) in [
            ("unsafe { x }", "unsafe", true),
            ("forbid(unsafe_code)", "unsafe", false),
            ("x.unwrap()", ".unwrap()", true),
            ("x.unwrap_or(1)", ".unwrap()", false),
            ("async fn f()", "async fn", true),
            ("use tokio::net", "tokio", true),
            ("tokio_stream", "tokio", false),
        ] {
            assert_eq!(has(text, words), found, "{words} in {text}");
        }
    }
}
