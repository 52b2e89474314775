//! Rules of this repository that a machine can check. It looks at files only and knows nothing of what the program does.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a file asks to be split; tables and state machines may be longer, and say so here.
const LONGEST_FILE: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files of our own with that ending.
fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "conf", "proxy", "service", "tests"].iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of ours") {
            let path = entry.expect("a file of ours").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let without: Vec<PathBuf> = files("rs")
        .into_iter()
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            // A crate may take its documentation from its README.
            !text.starts_with("//!") && !text.starts_with("#![doc = include_str!")
        })
        .collect();
    assert_eq!(without, Vec::<PathBuf>::new(), "begin these with //!");
}

#[test]
fn no_file_is_too_long_to_read_in_one_sitting() {
    for path in files("rs") {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", path.display());
    }
}

#[test]
fn modules_lie_beside_their_folders() {
    let old: Vec<PathBuf> = files("rs").into_iter().filter(|path| path.ends_with("mod.rs")).collect();
    assert_eq!(old, Vec::<PathBuf>::new());
}

#[test]
fn the_readme_names_only_what_there_is() {
    let readme = read("README.md");
    let quoted = readme.split('`').skip(1).step_by(2).filter(|word| {
        word.contains('/')
            && !word.contains(char::is_whitespace)
            && (word.ends_with(".rs") || word.starts_with("tests/"))
    });
    let linked = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.contains("://"));
    for path in quoted.chain(linked) {
        assert!(root().join(path).exists(), "README.md names {path}");
    }
}

#[test]
fn every_crate_has_a_readme() {
    for manifest in files("toml").into_iter().filter(|path| path.ends_with("Cargo.toml")) {
        if manifest.starts_with(root().join("tests")) {
            continue;
        }
        let readme = manifest.with_file_name("README.md");
        assert!(readme.exists(), "{} is missing", readme.display());
    }
}

#[test]
fn the_readme_has_the_two_commands() {
    let readme = read("README.md");
    for name in ["quickstart", "test"] {
        let (_, rest) = readme.split_once(&format!("<!-- command: {name} -->\n```sh\n")).expect(name);
        let (command, _) = rest.split_once("\n```").expect(name);
        assert_eq!(command.lines().count(), 1, "one line to paste: {command}");
    }
}
