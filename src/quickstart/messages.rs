//! What the quickstart prints for people to read and paste.

use std::io::{Write, stderr, stdout};
use std::path::Path;

use super::plan::Plan;

/// Addresses, places, and lines that can be pasted into a shell as they stand.
pub(super) fn what_to_try(plan: &Plan, user: &str, password: &str) -> String {
    let base = plan.public_base_url();
    let base = base.trim_end_matches('/');
    let lines = commands(base, &plan.certificate.ca, user, password);
    format!(
        "\nA Matrix server is running on {base}\n\
         \n  user      @{user}:{name}\
         \n  password  {password}\
         \n  folder    {folder}\
         \n  configuration, access log, throw-away CA: gatehouse.yaml, access.log, {ca} in it\
         \n\nTry it in another terminal (paste line by line, or all at once):\n\n{lines}\
         \nCtrl-C stops all of it; the next start takes seconds and keeps the data.\n\n",
        name = plan.server_name,
        folder = plan.folder.display(),
        ca = plan.certificate.ca.file_name().unwrap_or_default().display(),
    )
}

/// Prints to standard output. Losing it (Ctrl-C ends a `tee` behind us first) is no reason to leave Synapse running.
pub(super) fn print(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints a line to standard error, which may be lost as well.
pub(super) fn note(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// Lines for a POSIX shell, each indented by two spaces.
fn commands(base: &str, ca: &Path, user: &str, password: &str) -> String {
    let curl = format!("curl -sS --fail-with-body --cacert {}", shell_word(&ca.to_string_lossy()));
    let login = shell_word(&format!(
        r#"{{"type":"m.login.password","identifier":{{"type":"m.id.user","user":{}}},"password":{}}}"#,
        serde_json::Value::from(user),
        serde_json::Value::from(password),
    ));
    let client = format!("{base}/_matrix/client");
    [
        format!("{curl} {client}/versions; echo"),
        format!("login=$({curl} {client}/v3/login -H 'Content-Type: application/json' -d {login}); echo \"$login\""),
        "token=$(printf '%s' \"$login\" | sed 's/.*\"access_token\" *: *\"\\([^\"]*\\)\".*/\\1/')".to_owned(),
        format!("{curl} {client}/v3/account/whoami -H \"Authorization: Bearer $token\"; echo"),
        format!("{curl} -X POST {client}/v3/logout -H \"Authorization: Bearer $token\"; echo"),
    ]
    .iter()
    .map(|line| format!("  {line}\n"))
    .collect()
}

/// What the operator of a Synapse that runs already has to add to its configuration.
pub(super) fn how_to_delegate(endpoint: &str, secret: &str) -> String {
    format!(
        "This Synapse does not delegate to the auth service yet. Add this to its homeserver.yaml, take out the sections\n\
         that conflict with it (Synapse names them), and restart it; the quickstart goes on by itself:\n\
         \nmatrix_authentication_service:\n  enabled: true\n  endpoint: \"{endpoint}\"\n  secret: \"{secret}\"\n"
    )
}

/// Quoted for a POSIX shell unless nothing in it needs that.
fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["plain", "/a b/c", "it's", "$HOME `x` \"y\" \\", "", "!!", "*"] {
            let output =
                Command::new("sh").arg("-c").arg(format!("printf %s {}", shell_word(text))).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn the_lines_are_valid_shell() {
        let lines =
            commands("https://localhost:8443", Path::new("/home/it's me/ca.pem"), "alice", "p'w \"$x");
        let status = Command::new("sh").args(["-n", "-c", &lines]).status().unwrap();
        assert!(status.success(), "{lines}");
    }
}
