//! Files that only their owner may read (keys, secrets, passwords), and the random text in some of them.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes `path` with mode 0600, all of it or nothing: a reader never sees half a file.
pub(crate) fn write(path: &Path, contents: &str) -> Result<()> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", temporary.display()));
        }
        _ => {}
    }
    create(&temporary, contents)?;
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a new file with mode 0600.
///
/// # Errors
/// A file that is there already is left as it is.
pub(crate) fn create(path: &Path, contents: &str) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(what)?;
    file.write_all(contents.as_bytes()).with_context(what)?;
    file.sync_all().with_context(what)
}

/// The contents of `path`, which are made and written first if there is no such file.
pub(crate) fn read_or_create(path: &Path, make: impl FnOnce() -> String) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = make();
            write(path, &format!("{text}\n"))?;
            Ok(text)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// 256 random bits as hexadecimal text.
pub(crate) fn random_token() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert_eq!(read_or_create(&path, || "one".to_owned()).unwrap(), "one");
        assert_eq!(read_or_create(&path, || "two".to_owned()).unwrap(), "one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn create_never_overwrites() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, "one").unwrap();
        assert!(create(&path, "two").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }
}
