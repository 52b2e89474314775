//! Rules of this repository that no compiler checks, one test each. A rule that hinders is changed here, with a reason.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Parsers of what strangers send, and the target under `tests/fuzz/` that calls each.
const FUZZED: &[(&str, &str, &str)] = &[
    ("proxy/accept/src/proxy_protocol.rs", "parse", "proxy_protocol"),
    ("proxy/accept/src/forwarded.rs", "client_address", "forwarded"),
    ("proxy/src/path.rs", "readings", "path"),
    ("proxy/src/gate/head.rs", "read", "head"),
    ("proxy/src/gate/body.rs", "take", "body"),
    ("proxy/src/listener/intake.rs", "take", "intake"),
    ("proxy/accept/src/http2/frames.rs", "feed", "frames"),
    ("proxy/src/files/path.rs", "relative", "file_path"),
    ("proxy/src/files/encoding.rs", "acceptable", "accept_encoding"),
    ("proxy/src/files/range.rs", "select", "range"),
    ("proxy/src/files/conditional.rs", "evaluate", "conditional"),
    ("conf/src/load.rs", "load_at", "conf"),
];

/// The crates with a README of their own.
const CRATES: &[&str] = &["conf", "proxy", "proxy/accept", "service"];

#[test]
fn every_parser_has_a_fuzz_target_with_seeds() {
    let manifest = read("tests/fuzz/Cargo.toml");
    for (file, function, target) in FUZZED {
        assert!(read(file).contains(&format!("fn {function}(")), "{file} has no function {function}");
        let source = read(&format!("tests/fuzz/targets/{target}.rs"));
        assert!(source.contains(&format!("{function}(")), "fuzz target {target} does not call {function}");
        assert!(
            manifest.contains(&format!("path = \"targets/{target}.rs\"")),
            "{target} is not in tests/fuzz/Cargo.toml"
        );
        let seeds = fs::read_dir(root().join("tests/fuzz/corpus").join(target));
        assert!(seeds.is_ok_and(|seeds| seeds.count() > 1), "fuzz target {target} has no corpus");
    }
}

#[test]
fn example_configuration_loads() {
    let loaded = conf::load(&[root().join("conf/example.yaml")]);
    assert!(loaded.is_ok(), "{}", loaded.err().map(|report| report.to_string()).unwrap_or_default());
}

#[test]
fn every_file_says_what_it_is_for() {
    for file in files("rs") {
        let text = read_file(&file);
        let included =
            file.ends_with("lib.rs") && text.starts_with("#![doc = include_str!(\"../README.md\")]");
        assert!(included || text.starts_with("//! "), "{} does not start with //!", shown(&file));
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    let word = Regex::new(concat!(r"\bun", r"safe\s*(\{|\(|fn\b|impl\b|trait\b|extern\b)")).unwrap();
    for file in files("rs").filter(|file| !file.ends_with("proxy/accept/src/bind.rs")) {
        let found =
            code_lines(&read_file(&file)).find(|(_, line)| word.is_match(line)).map(|(number, _)| number);
        assert_eq!(found, None, "{} has unsafe code", shown(&file));
    }
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let forbidden = [
        ("conf", &["tokio", "pingora", "axum", "accept", "proxy", "service"][..]),
        ("proxy/accept", &["pingora", "axum", "proxy", "service"]),
        ("proxy", &["axum", "service"]),
        ("service", &["pingora", "proxy"]),
    ];
    for (folder, names) in forbidden {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        let dependencies = manifest.split("[dependencies]").nth(1).expect("has dependencies");
        let dependencies = dependencies.split("\n[").next().expect("split yields something");
        for name in names {
            let depends = dependencies
                .lines()
                .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '-'])));
            assert!(!depends, "{folder} must not depend on {name}");
        }
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{folder} does not take the workspace's lints"
        );
    }
}

/// The gate is no option: what leaves it out is for measuring its cost, and only `tests/bench` asks for it.
#[test]
fn nothing_is_built_without_the_gate() {
    let feature = concat!("measure-", "without-gate");
    for file in ["Cargo.toml", "proxy/Cargo.toml", "tests/fuzz/Cargo.toml"] {
        let manifest = read(file);
        let rules: Vec<_> = manifest.lines().filter(|line| line.contains(feature)).collect();
        let allowed: &[&str] = if file == "Cargo.toml" { &[] } else { &["measure-without-gate = []"] };
        assert_eq!(rules, allowed, "{file}");
        assert!(!manifest.lines().any(|line| line.starts_with("default = ")), "{file} has default features");
    }
    for file in ["tests/run", ".ci/run", ".cargo/config.toml"] {
        let text = read(file);
        assert!(!text.contains(feature) && !text.contains("all-features"), "{file} builds without the gate");
    }
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    for file in files("rs") {
        let name = file.file_stem().and_then(|name| name.to_str()).expect("a name in UTF-8");
        let empty = ["mod", "utils", "util", "common", "helpers", "helper", "types", "misc"];
        assert!(!empty.contains(&name) && !name.ends_with("_main"), "{}: name the thing", shown(&file));
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for file in files("rs") {
        let text = read_file(&file);
        let production = text.split("\n#[cfg(test)]\nmod tests {").next().expect("split yields something");
        let lines = production.lines().count();
        assert!(lines <= 800, "{} has {lines} lines without its tests: split it", shown(&file));
    }
}

#[test]
fn nothing_is_left_for_somebody_to_find() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("#[ig", "nore")];
    let with_issue = Regex::new(concat!("TO", r"DO\(#\d+\)")).unwrap();
    for file in files("rs") {
        for (number, line) in read_file(&file).lines().enumerate() {
            let left = marks.iter().any(|mark| line.contains(mark)) && !with_issue.is_match(line);
            assert!(!left, "{}:{}: {line}", shown(&file), number + 1);
        }
    }
}

#[test]
fn warnings_are_denied_by_the_command_not_the_source() {
    let attribute = concat!("deny(war", "nings)");
    for file in files("rs") {
        assert!(!read_file(&file).contains(attribute), "{}", shown(&file));
    }
}

#[test]
fn every_crate_explains_itself() {
    for folder in CRATES {
        let readme = read(&format!("{folder}/README.md"));
        for heading in ["## Invariants", "## Decisions"] {
            assert!(readme.contains(heading), "{folder}/README.md has no {heading}");
        }
        let library = read(&format!("{folder}/src/lib.rs"));
        assert!(
            library.contains("include_str!(\"../README.md\")"),
            "{folder}: the README is not the crate's docs"
        );
    }
}

#[test]
fn map_names_what_exists() {
    let readme = read("README.md");
    let map = readme.split("## Where things are").nth(1).and_then(|rest| rest.split("```").nth(1));
    let map = map.expect("the README has a map");
    let places =
        map.lines().filter_map(|line| line.split_whitespace().next()).filter(|place| *place != "text");
    for place in places {
        assert!(root().join(place).exists(), "README.md names {place}, which does not exist");
    }
}

#[test]
fn readme_has_the_two_commands() {
    let readme = read("README.md");
    for name in ["quickstart", "test"] {
        let (_, rest) = readme.split_once(&format!("<!-- command: {name} -->\n```sh\n")).expect(name);
        let (command, _) = rest.split_once("\n```").expect(name);
        assert_eq!(command.lines().count(), 1, "one line to paste: {command}");
    }
}

#[test]
fn documents_name_files_that_exist() {
    let quoted = Regex::new(r"`([a-z_]+(?:/[a-z_.-]+)*/[a-z_]+\.(?:rs|yaml|md|toml|py))`").unwrap();
    let linked = Regex::new(r"\]\(([^):#\s]+)\)").unwrap();
    for file in files("md") {
        let folder = file.parent().expect("a file has a folder");
        let text = read_file(&file);
        for found in quoted.captures_iter(&text).chain(linked.captures_iter(&text)) {
            let name = &found[1];
            let near = [root().join(name), folder.join(name), folder.join("src").join(name)];
            assert!(near.iter().any(|place| place.exists()), "{} names {name}", shown(&file));
        }
    }
}

#[test]
fn links_to_an_rfc_lead_there() {
    let link = Regex::new(r"\[RFC (\d+)[^\]]*\]\(https?://[^)\s]*rfc(\d+)").unwrap();
    for file in files("md").chain(files("rs")) {
        for found in link.captures_iter(&read_file(&file)) {
            assert_eq!(found[1], found[2], "{}", shown(&file));
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    read_file(&root().join(path))
}

fn read_file(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", shown(path)))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Every file of the repository with this extension; folders that are not part of it are left out.
fn files(extension: &str) -> impl Iterator<Item = PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository can be read") {
            let entry = entry.expect("and so can its entries");
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let foreign = name == "target" || name.to_string_lossy().starts_with('.');
                if !foreign && !path.join("pyvenv.cfg").exists() {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found.into_iter()
}

/// Lines that are not comments as a whole, with their numbers.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}
