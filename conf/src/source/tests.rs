//! Both libraries understand a file alike; places; merging; bounds.

use super::*;

fn parse(text: &str) -> Result<Node, Fault> {
    tree::parse(0, text)
}

/// Our tree as `serde_yaml` would have it, everything being text.
fn as_text(node: &Node) -> Yaml {
    match &node.value {
        Value::Null => Yaml::Null,
        Value::Scalar { text, .. } => Yaml::String(text.clone()),
        Value::List(items) => Yaml::Sequence(items.iter().map(as_text).collect()),
        Value::Map(entries) => Yaml::Mapping(
            entries.iter().map(|entry| (Yaml::String(entry.key.clone()), as_text(&entry.node))).collect(),
        ),
    }
}

/// `serde_yaml`'s value with its scalars as text again.
fn flatten(value: Yaml) -> Yaml {
    match value {
        Yaml::Bool(truth) => Yaml::String(truth.to_string()),
        Yaml::Number(number) => Yaml::String(number.to_string()),
        Yaml::Sequence(items) => Yaml::Sequence(items.into_iter().map(flatten).collect()),
        Yaml::Mapping(map) => {
            Yaml::Mapping(map.into_iter().map(|(key, value)| (flatten(key), flatten(value))).collect())
        }
        other => other,
    }
}

#[test]
fn both_libraries_understand_the_same() {
    let texts = [
        include_str!("../../example.yaml"),
        "a: 1\nb: [x, {y: z}]\nc: |\n  two\n  lines\nd: \"q\\n\"\n",
        "binds:\n- address: \"[::]:8080\"\n- {host: localhost, port: 8080}\n",
        "base: &base {a: 1, b: ~}\nuse: *base\n",
        "list: &l [1, 2]\nagain: *l\nfolded: >-\n  one\n  line\nempty:\n",
    ];
    for text in texts {
        let ours = as_text(&parse(text).unwrap());
        assert_eq!(ours, flatten(serde_yaml::from_str(text).unwrap()), "{text}");
    }
}

#[test]
fn places_are_lines_and_columns_from_one() {
    let node = parse("a:\n  bee: [x, \"yy\"]\n").unwrap();
    let Value::Map(entries) = &node.value else { panic!("a map") };
    let Value::Map(inner) = &entries[0].node.value else { panic!("a map") };
    assert_eq!(inner[0].span, Span { file: 0, line: 2, column: 3, width: 3 });
    let Value::List(items) = &inner[0].node.value else { panic!("a list") };
    assert_eq!(items[0].span, Span { file: 0, line: 2, column: 9, width: 1 });
    assert_eq!(items[1].span, Span { file: 0, line: 2, column: 12, width: 4 });
}

#[test]
fn later_files_merge_maps_append_lists_and_replace_the_rest() {
    let mut base = parse("a: {x: 1, y: 1}\nl: [1]\ns: one\nt: {k: v}\n").unwrap();
    merge(&mut base, parse("a: {y: 2, z: 2}\nl: [2, 3]\ns: two\nt: false\nu: new\n").unwrap());
    let expected = "a: {x: 1, y: 2, z: 2}\nl: [1, 2, 3]\ns: two\nt: false\nu: new\n";
    assert_eq!(as_text(&base), as_text(&parse(expected).unwrap()));
}

#[test]
fn merge_keys_take_over_what_is_not_given() {
    let node = parse("base: &b {a: 1, b: 2}\nuse:\n  <<: *b\n  b: 3\n").unwrap();
    let expected = parse("base: {a: 1, b: 2}\nuse: {b: 3, a: 1}\n").unwrap();
    assert_eq!(as_text(&node), as_text(&expected));
}

#[test]
fn aliases_cannot_multiply_without_bound() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", ")));
    }
    let fault = parse(&text).unwrap_err();
    assert!(fault.message.contains("larger than"), "{}", fault.message);
}

#[test]
fn nesting_is_bounded() {
    let text = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(parse(&text).is_err());
    let fault = parse(&format!("a: {}{}", "[".repeat(40), "]".repeat(40))).unwrap_err();
    assert_eq!(fault.message, "nested more than 32 levels deep");
}

#[test]
fn shown_lines_hold_no_secrets() {
    let check = |line: &str, expected: &str| assert_eq!(conceal(line, line.len()), expected);
    check("  secret: hunter2", "  secret: <redacted>");
    check("  - {version: 1, secret: hunter2, cost: 4}", "  - {version: 1, secret: <redacted>, cost: 4}");
    check("  pasword: \"hunter2\"", "  pasword: <redacted>");
    check("  secret_file: /etc/secret", "  secret_file: /etc/secret");
    check("  uri: postgresql://me:hunter2@db/auth", "  uri: postgresql://me:<redacted>@db/auth");
    check("  endpoint: http://localhost:8008/", "  endpoint: http://localhost:8008/");
    check("  key: |", "  key: |");
    check("  secrets: {encryption: 5a5a}", "  secrets: {encryption: <redacted>}");
    check("  password_change_allowed: true", "  password_change_allowed: true");
    check("  secret: \"hunter, 2\"", "  secret: <redacted>, 2\"");
    check("  keys:", "  keys:");
}
