//! The repository's own rules, checked on the repository itself.

use kith_tests::binary::repository;
use kith_tests::source::{Source, has};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of it is only there for tests.
    fn is_test(&self) -> bool {
        ["tests/", "fuzz/"].iter().any(|top| self.path.starts_with(top))
            || self.path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches"))
    }

    fn is_below(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            let rest = self.path.strip_prefix(place);
            rest.is_some_and(|rest| place.ends_with('/') || rest.is_empty())
        })
    }
}

/// All text files of the repository, in the order of their paths; without what is built, and
/// without this file, which has to name what it forbids.
fn files() -> Vec<File> {
    let mut files = Vec::new();
    let mut waiting = vec![repository().to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).expect("the repository can be read") {
            let entry = entry.expect("the repository can be read");
            let name = entry.file_name().to_string_lossy().into_owned();
            if matches!(name.as_str(), ".git" | "target" | "corpus" | "artifacts" | "Cargo.lock") {
                continue;
            }
            if fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()) {
                waiting.push(entry.path());
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                let path = entry.path();
                let path = path.strip_prefix(repository()).expect("it was found in it");
                let path = path.to_str().expect("paths of the repository are UTF-8").to_owned();
                files.push(File { path, text });
            }
        }
    }
    files.retain(|file| file.path != "tests/tests/rules.rs");
    files.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(files.len() > 30, "the repository is not where it is looked for");
    files
}

/// Fails with every breach, and says the rule.
fn demand(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}\n  {}", breaches.join("\n  "));
}

/// Every line of Rust for which `breaks` answers true, as `path:line: code`.
fn lines_that(
    of: impl Fn(&File) -> bool,
    breaks: impl Fn(&File, &kith_tests::source::Line) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.is_rust() && of(file)) {
        for (number, line) in Source::parse(&file.text).lines.iter().enumerate() {
            if breaks(file, line) {
                let shown = format!("{}{}", line.code.trim(), line.literal.trim());
                found.push(format!("{}:{}: {shown}", file.path, number + 1));
            }
        }
    }
    found
}

#[test]
fn every_source_file_is_short_and_says_its_purpose_first() {
    let mut breaches = Vec::new();
    for file in files().iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        if lines > 800 {
            breaches.push(format!("{}: {lines} lines", file.path));
        }
        if !file.text.starts_with("//! ") {
            breaches.push(format!("{}: begins without `//!`", file.path));
        }
    }
    demand("A file has at most 800 lines, and its first says what it is for.", &breaches);
}

#[test]
fn no_module_is_named_for_being_a_drawer() {
    const DRAWERS: &[&str] = &[
        "util",
        "utils",
        "utility",
        "utilities",
        "helper",
        "helpers",
        "common",
        "misc",
        "manager",
        "managers",
        "types",
    ];
    let mut breaches = Vec::new();
    for file in files().iter().filter(|file| file.is_rust()) {
        let parts = file.path.trim_end_matches(".rs").split('/');
        breaches.extend(
            parts
                .filter(|part| DRAWERS.contains(part))
                .map(|part| format!("{}: {part}", file.path)),
        );
        for line in Source::parse(&file.text).lines {
            let drawer = DRAWERS.iter().find(|drawer| has(&line.code, &format!("mod {drawer}")));
            breaches.extend(drawer.map(|drawer| format!("{}: mod {drawer}", file.path)));
        }
    }
    demand("A module is named for the noun it holds.", &breaches);
}

/// A crate of the workspace: its name, its directory, what it imports outside of tests, and all
/// that its manifest says.
struct Member {
    name: String,
    directory: String,
    imports: Vec<String>,
    manifest: toml::Table,
}

fn manifest(path: &Path) -> toml::Table {
    let text = fs::read_to_string(path).expect("a member has a manifest");
    text.parse().expect("a manifest is TOML")
}

fn members() -> Vec<Member> {
    let workspace = manifest(&repository().join("Cargo.toml"));
    let listed = workspace["workspace"]["members"].as_array().expect("a workspace has members");
    listed
        .iter()
        .map(|directory| {
            let directory = directory.as_str().expect("a member is a path").to_owned();
            let manifest = manifest(&repository().join(&directory).join("Cargo.toml"));
            let name = manifest["package"]["name"].as_str().expect("a package has a name");
            let imports = ["dependencies", "build-dependencies"]
                .iter()
                .filter_map(|table| manifest.get(*table)?.as_table())
                .flat_map(|table| table.keys().cloned())
                .collect();
            Member { name: name.to_owned(), directory, imports, manifest }
        })
        .collect()
}

#[test]
fn crates_import_downwards_only() {
    /// The crates of the house that each may import.
    const HOUSE: &[(&str, &[&str])] = &[
        ("kith-core", &[]),
        ("kith-store", &["kith-core"]),
        ("kith-fs", &["kith-core"]),
        ("kith-control", &[]),
        ("kith-daemon", &["kith-core", "kith-store", "kith-fs", "kith-control"]),
        ("kith", &["kith-control", "kith-daemon"]),
        (
            "kith-tests",
            &["kith-core", "kith-store", "kith-fs", "kith-control", "kith-daemon", "kith"],
        ),
    ];
    /// What is nobody else's business: the crate, and who may import it besides the tests.
    const OWNED: &[(&str, &[&str])] = &[
        ("rusqlite", &["kith-store"]),
        ("rusqlite_migration", &["kith-store"]),
        ("fastcdc", &["kith-store"]),
        ("fuser", &["kith-fs"]),
        ("quinn", &["kith-daemon"]),
        ("rustls", &["kith-daemon"]),
        ("mdns-sd", &["kith-daemon"]),
        ("axum", &["kith-daemon"]),
        ("tokio", &["kith-daemon", "kith-control", "kith"]),
        ("anyhow", &["kith"]),
        ("clap", &["kith"]),
    ];
    /// All that the core may import.
    const PURE: &[&str] = &["blake3", "minicbor", "thiserror"];
    let mut breaches = Vec::new();
    let members = members();
    for member in &members {
        let Some((_, allowed)) = HOUSE.iter().find(|(name, _)| *name == member.name) else {
            breaches.push(format!("{} has no place in the house yet", member.name));
            continue;
        };
        for import in &member.imports {
            let of_house = members.iter().any(|other| other.name == *import);
            if of_house && !allowed.contains(&import.as_str()) {
                breaches.push(format!("{} imports {import}", member.name));
            }
            if member.name == "kith-core" && !PURE.contains(&import.as_str()) {
                breaches.push(format!("the core imports {import}"));
            }
            let owners = OWNED.iter().find(|(owned, _)| owned == import);
            let strange = owners.is_some_and(|(_, owners)| !owners.contains(&member.name.as_str()));
            if strange && member.name != "kith-tests" {
                breaches.push(format!("{} imports {import}", member.name));
            }
        }
    }
    demand("Arrows point down only, and every library has its owners.", &breaches);
}

#[test]
fn the_core_is_pure() {
    let core =
        fs::read_to_string(repository().join("daemon/core/src/lib.rs")).expect("it is there");
    for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        assert!(core.contains(attribute), "the core says {attribute}");
    }
    let of_core = |file: &File| file.is_below(&["daemon/core/src/"]) && !file.is_test();
    let breaches = lines_that(of_core, |_, line| {
        let impure = ["extern crate std", "HashMap", "HashSet", "SystemTime", "Instant", "std::"];
        !line.test && impure.iter().any(|word| has(&line.code, word))
    });
    demand("The core has no std, no clock and no unordered map.", &breaches);
}

#[test]
fn versions_are_pinned_in_one_place() {
    let mut breaches = Vec::new();
    for member in members() {
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = member.manifest.get(table).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, import) in table {
                let inherited = import.get("workspace").and_then(toml::Value::as_bool);
                if inherited != Some(true) {
                    breaches.push(format!("{}: {name}", member.directory));
                }
            }
        }
        let lints = member.manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(toml::Value::as_bool) != Some(true) {
            breaches.push(format!("{}: doesn't inherit the workspace's lints", member.directory));
        }
    }
    demand("Members inherit dependencies and lints from the workspace.", &breaches);
}

#[test]
fn each_technique_stays_in_its_place() {
    /// What may be named where: the words in code, and the paths.
    const PLACES: &[(&[&str], &[&str])] = &[
        (&["rusqlite", "rusqlite_migration"], &["daemon/store/"]),
        // The disk that loses power in tests is a filesystem of its own.
        (&["fuser"], &["fs/src/fuse.rs", "fs/src/fuse/", "tests/src/crash/layer.rs"]),
        (
            &["async fn", "async move", ".await", "tokio"],
            &["daemon/src/", "daemon/tests/", "daemon/control/", "cli/"],
        ),
        (&["quinn", "rustls", "mdns_sd"], &["daemon/src/"]),
    ];
    let mut breaches = Vec::new();
    for (words, places) in PLACES {
        breaches.extend(lines_that(
            |file| !file.is_below(places),
            |_, line| words.iter().any(|word| line.has(word)),
        ));
    }
    /// How SQL begins. Words alone would forbid English.
    const SQL: &[&str] = &[
        "SELECT ",
        "INSERT INTO ",
        "INSERT OR ",
        "DELETE FROM ",
        "CREATE TABLE ",
        "CREATE INDEX ",
        "UPDATE ",
        "PRAGMA ",
        "ALTER TABLE ",
        "DROP TABLE ",
    ];
    breaches.extend(lines_that(
        |file| !file.is_below(&["daemon/store/"]),
        |_, line| SQL.iter().any(|words| line.literal.contains(words)),
    ));
    demand("SQL stays in the store, FUSE in its layer, async in the daemon.", &breaches);
}

#[test]
fn nothing_is_left_undone_or_silenced() {
    let breaches = lines_that(
        |_| true,
        |file, line| {
            let code = |word: &str| has(&line.code, word);
            let test = line.test || file.is_test();
            code("todo!")
                || code("unimplemented!")
                || code("dbg!")
                || code("#[ignore")
                || code("#![allow")
                || code("#[allow")
                || (!test && code(".unwrap()"))
                || (test && (code("thread::sleep") || code("time::sleep") || code("sleep(")))
        },
    );
    demand(
        "No stubs, no ignored tests, no blanket allow (`expect` with a reason instead), no unwrap \
         outside tests, and no test that sleeps.",
        &breaches,
    );
}

#[test]
fn unsafe_code_stays_in_the_modules_named_for_it() {
    let in_place = |file: &File| file.path.rsplit('/').next() == Some("unsafe_calls.rs");
    let breaches = lines_that(|file| !in_place(file), |_, line| line.has("unsafe"));
    demand("Unsafe code lives in one module of a crate, named for it.", &breaches);
}

#[test]
fn nothing_names_the_machine_it_was_built_on() {
    // The checkout's own place and the builder's home, wherever they are this time.
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let places: Vec<String> = [Some(repository().to_path_buf()), home]
        .into_iter()
        .flatten()
        .filter(|place| place.components().count() > 1)
        .map(|place| format!("{}/", place.display()))
        .collect();
    let breaches: Vec<String> = files()
        .iter()
        .flat_map(|file| {
            let lines = file.text.lines().enumerate();
            let strange =
                lines.filter(|(_, line)| places.iter().any(|place| line.contains(place.as_str())));
            strange.map(|(number, line)| format!("{}:{}: {line}", file.path, number + 1))
        })
        .collect();
    demand("No path of anybody's machine.", &breaches);
}

/// The relative links of a Markdown text, without their anchors, and the anchors.
fn links(text: &str) -> Vec<(String, Option<String>)> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let mut rest = if fenced { "" } else { line };
        while let Some((_, after)) = rest.split_once("](") {
            let (target, remaining) = after.split_once(')').unwrap_or((after, ""));
            rest = remaining;
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = match target.split_once('#') {
                Some((path, anchor)) => (path, Some(anchor.to_owned())),
                None => (target, None),
            };
            links.push((path.to_owned(), anchor));
        }
    }
    links
}

/// The anchors of a Markdown text's headings, as they are commonly derived.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let title = heading.trim_start_matches('#').trim().to_lowercase();
            let kept =
                title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let files = files();
    let texts: BTreeMap<&str, &str> =
        files.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
    let mut breaches = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (path, anchor) in links(&file.text) {
            let directory = Path::new(&file.path).parent().expect("a file lies in a directory");
            let target =
                if path.is_empty() { PathBuf::from(&file.path) } else { directory.join(&path) };
            if !repository().join(&target).exists() {
                breaches.push(format!("{}: {path}", file.path));
            }
            let text = target.to_str().and_then(|target| texts.get(target));
            if let (Some(text), Some(anchor)) = (text, anchor)
                && !anchors(text).contains(&anchor)
            {
                breaches.push(format!("{}: {path}#{anchor}", file.path));
            }
        }
    }
    demand("A link in a document leads to a file, and to a heading in it.", &breaches);
}

#[test]
fn the_architecture_names_every_crate() {
    let text = fs::read_to_string(repository().join("docs/architecture.md")).expect("it is there");
    let members = members();
    let missing = members.iter().filter(|member| {
        !text.contains(&format!("`{}`", member.name)) || !text.contains(&member.directory)
    });
    let breaches: Vec<String> =
        missing.map(|member| format!("{} in {}", member.name, member.directory)).collect();
    demand("docs/architecture.md names every crate and its directory.", &breaches);
}

#[test]
fn the_top_level_is_fixed() {
    const FIXED: &[&str] = &[
        "Cargo.toml",
        "Cargo.lock",
        "daemon",
        "fs",
        "cli",
        "systemd",
        "tests",
        "docs",
        "fuzz",
        "benches",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "CHANGELOG.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "clippy.toml",
        "rustfmt.toml",
        "deny.toml",
        "rust-toolchain.toml",
        "target",
    ];
    let entries = fs::read_dir(repository()).expect("the repository can be read");
    let names = entries.map(|entry| entry.expect("it can be read").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let breaches: Vec<String> =
        names.filter(|name| !name.starts_with('.') && !FIXED.contains(&name.as_str())).collect();
    demand("What is new finds its place in a crate or in docs.", &breaches);
}

#[test]
fn markdown_is_read_as_it_is_meant() {
    let text =
        "# A b, c!\n[x](a.md#one) and [y](https://e.example/) [z](#a-b-c)\n```\n[q](no)\n```\n";
    let expected =
        [("a.md".to_owned(), Some("one".to_owned())), (String::new(), Some("a-b-c".into()))];
    assert_eq!(links(text), expected);
    assert_eq!(anchors(text), ["a-b-c"]);
}
