//! The auth half of a configuration, short enough for a test.

use std::path::Path;

/// What Synapse, or its stand-in, and the auth service share.
pub(crate) const SHARED_SECRET: &str = "a-secret-that-only-tests-share";

/// `database`, `matrix`, and limits and hashing that do not slow tests down, with the data in `folder`.
pub(crate) fn auth_yaml(folder: &Path, synapse: &str) -> String {
    auth_yaml_for("localhost", folder, synapse)
}

/// The same for a server with a name.
pub(crate) fn auth_yaml_for(server_name: &str, folder: &Path, synapse: &str) -> String {
    format!(
        "\
data_dir: {folder:?}
database: {{uri: \"sqlite://{folder}/auth.db\"}}
matrix: {{homeserver: \"{server_name}\", endpoint: \"{synapse}\", secret: \"{SHARED_SECRET}\"}}
passwords:
  enabled: true
  schemes: [{{version: 1, algorithm: argon2id, memory_kib: 1024, iterations: 1, parallelism: 1}}]
",
        folder = folder.display()
    )
}

/// The same with one listener, `web`, of these resources; `binds` as in YAML.
pub(crate) fn auth_listener_yaml(folder: &Path, synapse: &str, resources: &[&str], binds: &str) -> String {
    let resources: Vec<String> = resources.iter().map(|name| format!("{{name: {name}}}")).collect();
    format!(
        "{}\
http:
  public_base: https://auth.example.com/
  listeners:
    - name: web
      resources: [{}]
      binds: [{binds}]
",
        auth_yaml(folder, synapse),
        resources.join(", ")
    )
}

/// A port that the system chooses.
pub(crate) const ANY_PORT: &str = r#"{address: "127.0.0.1:0"}"#;
