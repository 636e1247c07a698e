//! Invitation codes: `7-mango-elephant`.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

/// 512 common English words of four to eight letters, one a line, in order. Chosen for Kith; the
/// list is under the licence of the rest.
const WORDS: &str = include_str!("words.txt");

/// How many words there are: nine bits each.
const WORD_COUNT: usize = 512;

/// The largest number in front. It is no secret: it says which invitation is meant.
pub const NAMEPLATE_MAX: u8 = 99;

/// A code that one device shows and another is told.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    nameplate: u8,
    words: [&'static str; 2],
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-…", self.nameplate)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.nameplate, self.words[0], self.words[1])
    }
}

impl Code {
    /// A new code. `None`: the system gives no random numbers.
    #[must_use]
    pub fn generate() -> Option<Code> {
        let word = |high: u8, low: u8| {
            let index = usize::from(u16::from_le_bytes([low, high])) % WORD_COUNT;
            WORDS.lines().nth(index).expect("there are 512 words")
        };
        let mut random = [0; 5];
        // 198 is the largest multiple of 99 that a byte holds: beyond it small numbers would be
        // likelier than others.
        loop {
            getrandom::fill(&mut random).ok()?;
            let [number, a, b, c, d] = random;
            if number < 198 {
                let nameplate = number % NAMEPLATE_MAX + 1;
                return Some(Code { nameplate, words: [word(a, b), word(c, d)] });
            }
        }
    }

    /// Which invitation is meant, 1 to 99.
    #[must_use]
    pub fn nameplate(&self) -> u8 {
        self.nameplate
    }

    /// What the key exchange starts from.
    #[must_use]
    pub fn password(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.to_string().into_bytes())
    }
}

impl FromStr for Code {
    type Err = CodeError;

    /// Reads a code as people type it: in any case, with spaces or hyphens between.
    fn from_str(text: &str) -> Result<Code, CodeError> {
        let text = text.to_lowercase();
        let mut parts =
            text.split(|c: char| c == '-' || c.is_whitespace()).filter(|p| !p.is_empty());
        let (Some(number), Some(one), Some(two), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CodeError::Form);
        };
        let nameplate = number.parse().map_err(|_| CodeError::Form)?;
        if !(1..=NAMEPLATE_MAX).contains(&nameplate) {
            return Err(CodeError::Form);
        }
        let word = |word: &str| {
            let known = WORDS.lines().find(|known| *known == word);
            known.ok_or_else(|| CodeError::Word(word.chars().take(20).collect()))
        };
        Ok(Code { nameplate, words: [word(one)?, word(two)?] })
    }
}

/// Why a text is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It has another form.
    #[error("a code looks like 7-mango-elephant; copy it from `kith invite` on the other device")]
    Form,
    /// It has a word that no code has.
    #[error("“{0}” is not a word of any code; compare it with the other device's screen")]
    Word(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_words_are_plain_and_distinct() {
        let words: BTreeSet<&str> = WORDS.lines().collect();
        assert_eq!(words.len(), WORD_COUNT);
        assert_eq!(WORDS.lines().count(), WORD_COUNT);
        for word in words {
            assert!((4..=8).contains(&word.len()), "{word}");
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
        }
    }

    #[test]
    fn a_code_is_read_as_it_is_shown() {
        for _ in 0..200 {
            let code = Code::generate().unwrap();
            assert_eq!(code.to_string().parse(), Ok(code.clone()));
            assert!((1..=NAMEPLATE_MAX).contains(&code.nameplate()));
        }
        assert!(!format!("{:?}", Code::generate().unwrap()).contains("mango-"));
    }

    #[test]
    fn people_type_freely() {
        let code: Code = "7-mango-elephant".parse().unwrap();
        for text in ["7 Mango Elephant", " 07-MANGO-elephant\n", "7--mango - elephant"] {
            assert_eq!(text.parse(), Ok(code.clone()), "{text}");
        }
        for text in [
            "",
            "mango",
            "0-mango-elephant",
            "100-mango-elephant",
            "7-mango",
            "7-mango-elephant-mango",
            "x-mango-elephant",
            "-7-mango",
        ] {
            assert_eq!(text.parse::<Code>(), Err(CodeError::Form), "{text}");
        }
        assert_eq!("7-mango-elefant".parse::<Code>(), Err(CodeError::Word("elefant".into())));
    }
}
