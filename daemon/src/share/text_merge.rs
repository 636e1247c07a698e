//! The three-way merge of text, by lines: a function of the versions alone, so that every device
//! gets the same bytes. In doubt there is none, and the versions stay side by side.

use std::collections::BTreeSet;

/// The largest version that is merged, in bytes, and the largest result.
pub(crate) const TEXT_MAX_BYTES: u64 = 1 << 20;
/// The most lines of a version that is merged: the time grows with their product, where all of them
/// differ.
const LINES_MAX: usize = 10_000;

/// Why versions stay side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unmerged {
    /// One of them isn't text: it has a NUL, or isn't UTF-8.
    #[error("it is not text")]
    NotText,
    /// One of them is too large, or has too many lines.
    #[error("it is too large")]
    TooLarge,
    /// Changes touch the same lines, or lines without one between them that nobody changed.
    #[error("changes overlap")]
    Overlap,
}

/// Brings the changes that each of `versions` made to `base` together. The order of the versions
/// must be the same on every device.
///
/// A line ends with a line feed, which is a part of it, and so is a carriage return before it: a
/// file whose line endings were changed has changed in all its lines.
///
/// # Errors
/// [`Unmerged`]: the versions are to stay as they are.
pub(crate) fn merge(base: &[u8], versions: &[&[u8]]) -> Result<Vec<u8>, Unmerged> {
    check(base)?;
    versions.iter().try_for_each(|version| check(version))?;
    let Some((first, others)) = versions.split_first() else { return Ok(base.to_vec()) };
    let mut merged = first.to_vec();
    for other in others {
        merged = merge_two(base, &merged, other)?;
        check(&merged)?;
    }
    Ok(merged)
}

fn merge_two(base: &[u8], one: &[u8], other: &[u8]) -> Result<Vec<u8>, Unmerged> {
    if one == other || other == base {
        return Ok(one.to_vec());
    }
    if one == base {
        return Ok(other.to_vec());
    }
    // What it answers where changes overlap has marks in it, which no program could read.
    let merged = diffy::merge_bytes(base, one, other).map_err(|_| Unmerged::Overlap)?;
    // Only a last line may lack its end; none of it may have run into another.
    let known: BTreeSet<&[u8]> = lines(one).chain(lines(other)).collect();
    if lines(&merged).all(|line| known.contains(line)) {
        Ok(merged)
    } else {
        Err(Unmerged::Overlap)
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

fn check(text: &[u8]) -> Result<(), Unmerged> {
    if text.len() as u64 > TEXT_MAX_BYTES {
        return Err(Unmerged::TooLarge);
    }
    if text.contains(&0) || std::str::from_utf8(text).is_err() {
        return Err(Unmerged::NotText);
    }
    if lines(text).count() > LINES_MAX {
        return Err(Unmerged::TooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The merge of texts in which `/` stands for the end of a line.
    fn merged(base: &str, versions: &[&str]) -> Result<String, Unmerged> {
        let texts: Vec<String> = versions.iter().map(|text| text.replace('/', "\n")).collect();
        let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        let merged = merge(base.replace('/', "\n").as_bytes(), &texts)?;
        Ok(String::from_utf8(merged).unwrap().replace('\n', "/"))
    }

    #[test]
    fn lines_that_do_not_overlap_come_together() {
        for (base, versions, expected) in [
            ("a/b/c/", &["A/b/c/", "a/b/C/"][..], "A/b/C/"),
            ("a/b/c/", &["a/b/c/", "a/b/C/"], "a/b/C/"),
            ("a/b/c/", &["a/b/C/", "a/b/C/"], "a/b/C/"),
            ("a/b/c/", &["x/a/b/c/", "a/b/c/y/"], "x/a/b/c/y/"),
            ("a/b/c/", &["b/c/", "a/b/"], "b/"),
            ("a/b/c/d/e/", &["A/b/c/d/e/", "a/b/C/d/e/", "a/b/c/d/E/"], "A/b/C/d/E/"),
            // Alike on both sides is one change.
            ("a/b/c/", &["A/b/c/", "A/b/C/"], "A/b/C/"),
            ("a/b/c", &["A/b/c", "a/b/c"], "A/b/c"),
            ("a/b/c", &["A/b/c", "a/b/c/"], "A/b/c/"),
            ("a/b/c", &["A/b/c", "a/b/c/d"], "A/b/c/d"),
            ("a\r/b\r/c\r/", &["A\r/b\r/c\r/", "a\r/b\r/C\r/"], "A\r/b\r/C\r/"),
            ("ä/b/c/", &["ö/b/c/", "ä/b/ü/"], "ö/b/ü/"),
        ] {
            assert_eq!(merged(base, versions), Ok(expected.to_owned()), "{base} {versions:?}");
            let reversed: Vec<&str> = versions.iter().rev().copied().collect();
            assert_eq!(merged(base, &reversed), Ok(expected.to_owned()), "{base} {reversed:?}");
        }
    }

    #[test]
    fn in_doubt_both_stay() {
        for (what, base, one, other) in [
            ("one line, two ways", "a/b/c/", "a/x/c/", "a/y/c/"),
            ("lines side by side", "a/b/c/", "A/b/c/", "a/B/c/"),
            ("both add at one place", "a/b/", "a/x/b/", "a/y/b/"),
            ("both add at the end", "a/", "a/x/", "a/y/"),
            ("both add to nothing", "", "x/", "y/"),
            ("one changes what the other removes", "a/b/c/", "a/c/", "a/B/c/"),
            ("one removes the line before a new one", "a/b/c/", "b/c/", "a/x/b/c/"),
            ("all line endings against one line", "a/b/c/", "a\r/b\r/c\r/", "a/b/C/"),
            ("the end of the last line, and what comes after", "a/b", "a/b/", "a/b/c"),
        ] {
            assert_eq!(merged(base, &[one, other]), Err(Unmerged::Overlap), "{what}");
            assert_eq!(merged(base, &[other, one]), Err(Unmerged::Overlap), "{what}");
        }
    }

    #[test]
    fn only_text_of_moderate_size_is_merged() {
        let large = "long line\n".repeat(110_000).into_bytes();
        let many = "x\n".repeat(LINES_MAX + 1).into_bytes();
        let plain = &b"a\nb\nc\n"[..];
        for (other, expected) in [
            (&b"a\nb\0\n"[..], Unmerged::NotText),
            (b"a\nb\xff\n", Unmerged::NotText),
            (&large, Unmerged::TooLarge),
            (&many, Unmerged::TooLarge),
        ] {
            for (base, versions) in [(plain, [plain, other]), (plain, [other, plain])] {
                assert_eq!(merge(base, &versions), Err(expected));
            }
            assert_eq!(merge(other, &[plain, b"x"]), Err(expected));
        }
    }

    #[test]
    fn lines_that_look_like_marks_of_a_conflict_are_lines() {
        let marks = "<<<<<<< ours/=======/>>>>>>> theirs/end/";
        let one = "x/<<<<<<< ours/=======/>>>>>>> theirs/end/";
        let other = "<<<<<<< ours/=======/>>>>>>> theirs/END/";
        let both = "x/<<<<<<< ours/=======/>>>>>>> theirs/END/";
        assert_eq!(merged(marks, &[one, other]), Ok(both.to_owned()));
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![Just("a"), Just("b"), Just("c"), Just("d"), Just("e")];
        (proptest::collection::vec(line, 0..12), any::<bool>()).prop_map(|(lines, ended)| {
            let text = lines.join("\n");
            let end = if ended && !text.is_empty() { "\n" } else { "" };
            (text + end).into_bytes()
        })
    }

    /// What somebody does to each line.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Act {
        Keep,
        Change,
        Remove,
        AddAfter,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            6 => Just(Act::Keep),
            1 => Just(Act::Change),
            1 => Just(Act::Remove),
            1 => Just(Act::AddAfter),
        ];
        proptest::collection::vec(act, 12)
    }

    /// The lines, and the gaps between them, that somebody touched. Gaps have even numbers.
    fn touched(acts: &[Act]) -> BTreeSet<usize> {
        let touch = |(line, act): (usize, &Act)| match act {
            Act::Keep => 0..0,
            Act::Change | Act::Remove => 2 * line..2 * line + 3,
            Act::AddAfter => 2 * line + 2..2 * line + 3,
        };
        acts.iter().enumerate().flat_map(touch).collect()
    }

    /// The text that all who acted have made together.
    fn made(by: &[(&str, &[Act])]) -> String {
        let mut text = String::new();
        for line in 0..12 {
            let mut kept = format!("line {line}\n");
            let mut added = String::new();
            for (name, acts) in by {
                match acts[line] {
                    Act::Keep => {}
                    Act::Change => kept = format!("{line} as {name} has it\n"),
                    Act::Remove => kept.clear(),
                    Act::AddAfter => added = format!("{name} after {line}\n"),
                }
            }
            text += &kept;
            text += &added;
        }
        text
    }

    proptest! {
        #[test]
        fn who_changed_nothing_changes_nothing(base in text(), one in text()) {
            prop_assert_eq!(merge(&base, &[&one, &base]), Ok(one.clone()));
            prop_assert_eq!(merge(&base, &[&base, &one]), Ok(one.clone()));
            prop_assert_eq!(merge(&base, &[&one, &one]), Ok(one));
        }

        #[test]
        fn the_order_of_two_versions_does_not_matter(base in text(), one in text(), other in text()) {
            let merged = merge(&base, &[&one, &other]);
            prop_assert_eq!(&merged, &merge(&base, &[&other, &one]));
            let known: BTreeSet<&[u8]> = lines(&one).chain(lines(&other)).collect();
            prop_assert!(merged.iter().flat_map(|text| lines(text)).all(|line| known.contains(line)));
        }

        #[test]
        fn changes_apart_all_come_together_and_others_do_not(one in acts(), other in acts()) {
            let versions = [made(&[("one", &one)]), made(&[("other", &other)])];
            let versions: Vec<&[u8]> = versions.iter().map(String::as_bytes).collect();
            let merged = merge(made(&[]).as_bytes(), &versions);
            let both = made(&[("one", &one), ("other", &other)]);
            if touched(&one).is_disjoint(&touched(&other)) {
                prop_assert_eq!(merged, Ok(both.into_bytes()));
            } else if one.iter().chain(&other).all(|act| *act != Act::Remove) {
                // Removals may be alike on both sides.
                prop_assert_eq!(merged, Err(Unmerged::Overlap));
            }
        }
    }
}
