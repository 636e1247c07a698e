//! Trees to copy: like a real source tree, and the same for the same seed.

use crate::random::Random;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

const STEMS: &[&str] = &[
    "main",
    "lib",
    "parser",
    "index",
    "readme",
    "config",
    "données",
    "测试",
    "state machine",
    "test_data",
    "Makefile",
    "build",
    "widget",
    "schema",
    "notes",
    "über",
    "a",
    "layout",
];
const EXTENSIONS: &[&str] = &["rs", "c", "h", "md", "txt", "json", "py", "toml", "png", "o"];
const WORDS: &[&str] = &[
    "fn", "let", "return", "the", "value", "of", "if", "else", "struct", "impl", "self", "match",
    "for", "in", "import", "{", "}", "(", ")", ";", "=", "+", "\n", "\n    ", "// note:", "0x1f",
];

/// Writes a tree of `files` files into a directory that is there: some directories deep, most
/// files small text, a few large and binary, with links, modes, empty files and odd names.
///
/// # Errors
/// What the filesystem answers.
pub fn plant(root: &Path, seed: u64, files: usize) -> io::Result<()> {
    let mut random = Random::new(seed);
    let mut directories = vec![root.to_owned()];
    let mut plain: Vec<PathBuf> = Vec::with_capacity(files);
    for number in 0..files {
        if directories.len() * 12 <= number {
            let mut parent = random.pick(&directories);
            if parent.strip_prefix(root).is_ok_and(|path| path.components().count() > 6) {
                parent = &directories[0];
            }
            let path = parent.join(format!("{}-{}", random.pick(STEMS), directories.len()));
            fs::create_dir(&path)?;
            directories.push(path);
        }
        let (stem, extension) = (random.pick(STEMS), random.pick(EXTENSIONS));
        let path = random.pick(&directories).join(format!("{stem}_{number}.{extension}"));
        match random.below(100) {
            0..2 => symlink(format!("../{stem}.{extension}"), &path)?,
            2..4 if !plain.is_empty() => fs::hard_link(random.pick(&plain), &path)?,
            4 => drop(fs::File::create(&path)?),
            _ => {
                file(&path, &mut random)?;
                plain.push(path);
            }
        }
    }
    Ok(())
}

fn file(path: &Path, random: &mut Random) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    match random.below(1000) {
        0..3 => file.write_all(&random.bytes(3_000_000))?,
        3..60 => {
            let len = random.between(1, 120_000);
            file.write_all(&random.bytes(usize::try_from(len).expect("it is small")))?;
        }
        _ => file.write_all(text(random).as_bytes())?,
    }
    if random.chance(10) {
        file.set_permissions(fs::Permissions::from_mode(*random.pick(&[0o755, 0o600, 0o444])))?;
    }
    Ok(())
}

fn text(random: &mut Random) -> String {
    let words = 1 << random.below(11);
    let mut text = String::with_capacity(words * 6);
    for _ in 0..words {
        let word: &&str = random.pick(WORDS);
        text.push_str(word);
        text.push(' ');
    }
    text
}

/// Writes a file of incompressible bytes, a MiB at a time.
///
/// # Errors
/// What the filesystem answers.
pub fn noise(path: &Path, seed: u64, len_bytes: u64) -> io::Result<()> {
    let mut random = Random::new(seed);
    let mut file = fs::File::create(path)?;
    let mut left = len_bytes;
    while left > 0 {
        let piece = left.min(1 << 20);
        file.write_all(&random.bytes(usize::try_from(piece).expect("a MiB is a size")))?;
        left -= piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use crate::tree::{Kind, Tree};

    #[test]
    fn equal_seeds_plant_equal_trees_with_everything_in_them() {
        let (one, other) = (Scratch::new(), Scratch::new());
        plant(one.path(), 1, 600).unwrap();
        plant(other.path(), 1, 600).unwrap();
        let tree = Tree::read(one.path()).unwrap();
        assert_eq!(tree, Tree::read(other.path()).unwrap());
        assert!(tree.nodes.len() > 600, "{}", tree.nodes.len());
        let any = |what: &dyn Fn(&Kind) -> bool| tree.nodes.values().any(|node| what(&node.kind));
        assert!(any(&|kind| matches!(kind, Kind::Symlink(_))));
        assert!(any(&|kind| matches!(kind, Kind::File(0, _))));
        assert!(tree.nodes.values().any(|node| node.same_as.is_some()));
    }
}
