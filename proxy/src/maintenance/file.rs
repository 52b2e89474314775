//! The state of maintenance mode as a file: there and readable means on, not there means off. Written by the command, read by
//! the edge. It blocks; the edge calls it where that does no harm.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::Notice;

/// Where the state is kept.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

/// Why the state cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is no such folder as `data_dir`.
    #[error("there is no folder {}, which is the data_dir of the configuration: make it, owned by the user that runs Gatehouse", .0.display())]
    NoFolder(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file, or another in its folder, cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what the command writes.
    #[error("{} is faulty: {what}; switch maintenance mode on again, or off, to replace it", path.display())]
    Faulty {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl StateFile {
    /// `maintenance.json` in the configuration's `data_dir`.
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join("maintenance.json") }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state; `None`: off.
    ///
    /// # Errors
    /// [`StateError::Read`] and [`StateError::Faulty`].
    pub fn read(&self) -> Result<Option<Notice>, StateError> {
        let read = |source| StateError::Read { path: self.path.clone(), source };
        let faulty = |what| StateError::Faulty { path: self.path.clone(), what };
        let metadata = match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            result => result.map_err(read)?,
        };
        // A pipe would be waited for.
        if !metadata.is_file() {
            return Err(faulty("it is not a file".to_owned()));
        }
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)).map_err(read)?,
        };
        if bytes.len() as u64 > MOST_BYTES {
            return Err(faulty(format!("it has more than {MOST_BYTES} bytes")));
        }
        parse(&bytes).map(Some).map_err(faulty)
    }

    /// Switches the mode on, or replaces what is said: all of it or nothing, also when the machine fails.
    ///
    /// # Errors
    /// [`StateError::NoFolder`] and [`StateError::Write`].
    pub fn write(&self, notice: &Notice) -> Result<(), StateError> {
        let folder = self.folder()?;
        let temporary = folder.join(format!(".maintenance.{}.new", std::process::id()));
        let written = self.replace(folder, &temporary, &print(notice));
        if written.is_err() {
            // It may not be there.
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(|source| StateError::Write { path: self.path.clone(), source })
    }

    fn replace(&self, folder: &Path, temporary: &Path, text: &str) -> io::Result<()> {
        // Of an attempt that was broken off, or a link that leads elsewhere, which root must not follow.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(temporary)?;
        // Root may write it, and the edge, which is another user, has to read it whatever root's umask is.
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(temporary, &self.path)?;
        File::open(folder)?.sync_all()
    }

    /// Switches the mode off; whether it was on.
    ///
    /// # Errors
    /// [`StateError::NoFolder`] and [`StateError::Write`].
    pub fn remove(&self) -> Result<bool, StateError> {
        let folder = self.folder()?;
        let removed = match fs::remove_file(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            result => result.and_then(|()| File::open(folder)?.sync_all()),
        };
        removed.map(|()| true).map_err(|source| StateError::Write { path: self.path.clone(), source })
    }

    fn folder(&self) -> Result<&Path, StateError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        if folder.is_dir() { Ok(folder) } else { Err(StateError::NoFolder(folder.to_owned())) }
    }
}

fn print(notice: &Notice) -> String {
    let since = notice.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let allow: Vec<String> = notice.allow.iter().map(ToString::to_string).collect();
    let retry_after = u64::try_from(notice.retry_after.as_millis()).unwrap_or(u64::MAX);
    let state = json!({
        "message": notice.message,
        "retry_after_ms": retry_after,
        "allow": allow,
        "since": since,
    });
    format!("{state:#}\n")
}

fn parse(bytes: &[u8]) -> Result<Notice, String> {
    let state: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let message = state["message"].as_str().ok_or("`message` has to be text")?;
    let retry_after = state["retry_after_ms"].as_u64().ok_or("`retry_after_ms` has to be a whole number")?;
    let since = state["since"].as_u64().ok_or("`since` has to be a whole number")?;
    let since = UNIX_EPOCH.checked_add(Duration::from_secs(since)).ok_or("`since` is too large")?;
    let networks = state["allow"].as_array().ok_or("`allow` has to be a list of networks")?;
    let network = |item: &Value| -> Result<IpNet, String> {
        item.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| format!("{item} is not a network"))
    };
    let allow = networks.iter().map(network).collect::<Result<Vec<_>, _>>()?;
    Notice::new(Some(message), Duration::from_millis(retry_after), allow, since)
        .map_err(|error| error.to_string())
}

/// Far more than a message and some hundred networks.
const MOST_BYTES: u64 = 64 << 10;

/// Nothing in it is secret: everybody is told.
const MODE: u32 = 0o644;

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, StateFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::of(folder.path());
        (folder, file)
    }

    fn notice(message: &str) -> Notice {
        let since = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let allow = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::7/128".parse().unwrap()];
        Notice::new(Some(message), Duration::from_millis(90_500), allow, since).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let (folder, file) = folder();
        assert_eq!(file.read().unwrap(), None);
        for message in ["back <soon>", "bald zurück \"…\""] {
            file.write(&notice(message)).unwrap();
            assert_eq!(file.read().unwrap(), Some(notice(message)));
        }
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        assert!(file.remove().unwrap());
        assert!(!file.remove().unwrap());
        assert_eq!(file.read().unwrap(), None);
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let (folder, file) = folder();
        let other = folder.path().join("shadow");
        fs::write(&other, "secret").unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
        let temporary = folder.path().join(format!(".maintenance.{}.new", std::process::id()));
        std::os::unix::fs::symlink(&other, &temporary).unwrap();
        file.write(&notice("x")).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "secret");
        assert_eq!(fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.read().unwrap(), Some(notice("x")));
    }

    #[test]
    fn faulty_files_are_told_apart() {
        let (_folder, file) = folder();
        let good = print(&notice("x"));
        for (text, what) in [
            ("", "EOF while parsing"),
            ("{", "EOF while parsing"),
            ("[]", "`message` has to be text"),
            (&good.replace("90500", "\"90500\""), "`retry_after_ms` has to be"),
            (&good.replace("90500", "1"), "1s to 30d"),
            (&good.replace("192.0.2.0/24", "everybody"), "\"everybody\" is not a network"),
            (&good.replace("\"x\"", "\"a\\nb\""), "one line"),
            (&good.replace("1800000000", "18446744073709551615"), "`since` is too large"),
            (&" ".repeat(70_000), "more than 65536 bytes"),
        ] {
            fs::write(file.path(), text).unwrap();
            let error = file.read().unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("maintenance.json is faulty"), "{error}");
        }
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
        assert!(file.read().unwrap_err().to_string().contains("not a file"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let file = StateFile::of(Path::new("/nonexistent/data"));
        for error in [file.write(&notice("x")).unwrap_err(), file.remove().unwrap_err()] {
            assert!(error.to_string().starts_with("there is no folder /nonexistent/data,"), "{error}");
        }
        assert_eq!(file.read().unwrap(), None);
    }
}
