//! Secrets that the configuration holds, or leaves to us: then they are made once and kept beside the data.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::clock::Rng;
use crate::error::ServiceError;

/// The secrets in use.
#[derive(Debug)]
pub struct Secrets {
    /// Shared with Synapse.
    pub matrix: conf::Secret,
    /// `secrets.encryption`; never printed.
    pub encryption: Encryption,
}

/// 32 bytes from which keys are derived.
#[derive(Clone)]
pub struct Encryption(pub [u8; 32]);

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Secrets {
    /// Takes them from the configuration, else from `<data_dir>/matrix-secret` and `<data_dir>/encryption-secret`, made when absent
    /// (mode 0600, hexadecimal).
    ///
    /// # Errors
    /// When a file can neither be read nor made, or does not hold what it should.
    pub fn load(config: &conf::Auth, data_dir: &Path, rng: &Rng) -> Result<Self, ServiceError> {
        let matrix = match &config.matrix.secret {
            Some(secret) => secret.clone(),
            None => conf::Secret::new(read_or_make(&data_dir.join("matrix-secret"), rng)?),
        };
        let encryption = match config.encryption {
            Some(bytes) => bytes,
            None => {
                let path = data_dir.join("encryption-secret");
                let text = read_or_make(&path, rng)?;
                let mut bytes = [0; 32];
                hex::decode_to_slice(&text, &mut bytes).map_err(|_| ServiceError::SecretForm { path })?;
                bytes
            }
        };
        Ok(Self { matrix, encryption: Encryption(encryption) })
    }
}

fn read_or_make(path: &Path, rng: &Rng) -> Result<String, ServiceError> {
    let fault = |source| ServiceError::SecretFile { path: path.to_owned(), source };
    match read(path) {
        Ok(text) if text.is_empty() => Err(ServiceError::SecretForm { path: path.to_owned() }),
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => match make(path, rng) {
            // Another process was faster: its secret counts.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => read(path).map_err(fault),
            made => made.map_err(fault),
        },
        Err(error) => Err(fault(error)),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST_SECRET).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Written beside and linked into place, so that nobody ever reads half a secret.
fn make(path: &Path, rng: &Rng) -> std::io::Result<String> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let text = hex::encode(rng.bytes::<32>());
    let beside = path.with_extension(format!("{}.tmp", hex::encode(rng.bytes::<6>())));
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| std::fs::hard_link(&beside, path));
    std::fs::remove_file(&beside)?;
    linked.map(|()| text)
}

const LONGEST_SECRET: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_read_ever_after() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/matrix-secret");
        let made = read_or_make(&path, &Rng::seeded(1)).unwrap();
        assert_eq!(made.len(), 64);
        assert_eq!(read_or_make(&path, &Rng::seeded(2)).unwrap(), made);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
