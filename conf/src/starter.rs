//! Texts for `gatehouse init`: a configuration to start from, and what to paste into Synapse's.

use std::path::Path;

use crate::preset::parse_server_name;

/// The text of a `gatehouse.yaml` for a server name. It expects the files `matrix-secret` and `encryption-secret` beside it.
///
/// # Errors
/// When the name is not a Matrix server name, in words.
pub fn starter(server_name: &str) -> Result<String, String> {
    let server_name = parse_server_name(server_name)?;
    let domain = server_name.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let domain = domain.map_or(server_name.as_str(), |(domain, _)| domain);
    Ok(TEMPLATE.replace("{server_name}", &server_name).replace("{domain}", domain))
}

/// What to paste into Synapse's `homeserver.yaml` so that it asks the bundled auth service.
pub fn synapse_snippet(secret_file: &Path) -> String {
    SNIPPET.replace("{secret_file}", &secret_file.display().to_string())
}

const TEMPLATE: &str = "\
# Gatehouse for {server_name}. `gatehouse check` says what is wrong with this file, `gatehouse config show` what it stands for.

# Database, sockets and whatever else Gatehouse makes itself.
data_dir: /var/lib/gatehouse

edge:
  matrix:
    # The part after the colon of user ids: @alice:{server_name}
    server_name: {server_name}
    # Where clients find Synapse and the auth service; both names have to lead to this machine.
    # host: matrix.{domain}
    # auth_host: auth.{domain}
    # Where Synapse listens: http://host:port, or unix:/path/to/socket.
    synapse: http://localhost:8008
    # The auth service of this program; or where a Matrix Authentication Service listens.
    auth: bundled
    # Networks that may reach /_synapse/admin: nobody without this.
    # admin_allow: [192.168.1.0/24]
  tls:
    certificates:
      # One certificate for all names, or one entry for each.
      - certificate_file: /etc/letsencrypt/live/{domain}/fullchain.pem
        key_file: /etc/letsencrypt/live/{domain}/privkey.pem

matrix:
  # Synapse has to know the same secret.
  secret_file: matrix-secret

secrets:
  # Encrypts what must not lie in the database in the clear. Keep it: it cannot be replaced.
  encryption_file: encryption-secret
";

const SNIPPET: &str = "\
matrix_authentication_service:
  enabled: true
  endpoint: http://127.0.0.1:8080/
  secret_path: {secret_file}
";
