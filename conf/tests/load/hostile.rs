//! Nothing that stands in a file makes the loader panic, and a secret does not come out of it.

use proptest::prelude::*;

use crate::folder::Folder;

thread_local! {
    // Each test has a thread of its own.
    static FOLDER: Folder = Folder::new();
}

const EXAMPLE: &str = include_str!("../../example.yaml");
const MAS: &str = include_str!("../good/mas.yaml");

fn said(text: &str) -> String {
    match FOLDER.with(|folder| folder.try_load(text)) {
        Ok(loaded) => format!("{}{}", loaded.warnings, loaded.effective),
        Err(report) => report.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text(text in any::<String>()) {
        said(&text);
    }

    #[test]
    fn marks_of_yaml_in_any_order(text in "([a-c]|: |- |\n|  |\\{|\\}|\\[|\\]|,|\"|'|&a |\\*a|<<|!|#|\\||>|%|~|\t|é){0,60}") {
        said(&text);
    }

    #[test]
    fn files_with_a_part_replaced(mas: bool, at in 0.0..1.0, length in 0_usize..40, with in "[ -~\n\té]{0,20}") {
        let file = if mas { MAS } else { EXAMPLE };
        let characters: Vec<char> = file.chars().collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a short file")]
        let start = (at * characters.len() as f64) as usize;
        let end = (start + length).min(characters.len());
        let text: String = characters[..start].iter().copied().chain(with.chars()).chain(characters[end..].iter().copied()).collect();
        said(&text);
    }

    #[test]
    fn a_misplaced_secret_is_not_shown(key in "(secret|client_secret|secrt|password|pasword|encryption)", wrong in "[a-z]{3,9}") {
        let text = format!("matrix: {{{key}: hunter2hunter2, {wrong}x: 1}}\n{wrong}y: {{{key}: hunter2hunter2, z: [}}\n");
        prop_assert!(!said(&text).contains("hunter2"));
        let text = format!("matrix: {{{key}: hunter2hunter2, {wrong}x: 1}}\nhttp: {{{key}: hunter2hunter2}}\n");
        prop_assert!(!said(&text).contains("hunter2"));
    }
}
