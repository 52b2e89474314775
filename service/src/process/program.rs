//! The executable of this process, as it can be started again: by the path it was started by, for what lies there now is the next
//! version. A process cannot be asked for that path later: `/proc/self/exe` follows links, and the file it was started from
//! may be gone.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use tokio::process::{Child, Command};

/// Tells a new process where the one that it replaces listens for it; as the option `--take-over`, which it overrides.
pub(super) const TAKE_OVER_VARIABLE: &str = "GATEHOUSE_TAKE_OVER";

/// What is meant for this process alone: inherited sockets are handed over, and the watchdog is anybody's who is the service.
const OURS_ALONE: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// Path and arguments.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Of this process; to be called before the file can have been replaced.
    ///
    /// # Errors
    /// When the system does not say what runs.
    pub(super) fn current() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let running = env::current_exe()?;
        let path = started_by(Path::new(&name), &running, env::var_os("PATH").as_deref());
        Ok(Self { path: std::path::absolute(path)?, arguments: arguments.collect() })
    }

    #[cfg(test)]
    pub(super) fn of(path: &str, arguments: &[&str]) -> Self {
        Self { path: path.into(), arguments: arguments.iter().map(Into::into).collect() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts it, to take over from whoever listens at `control`.
    ///
    /// # Errors
    /// When it cannot be started: there is nothing at the path, or it is no executable of this machine.
    pub(super) fn start(&self, control: &Path) -> io::Result<Started> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env(TAKE_OVER_VARIABLE, control);
        for name in OURS_ALONE {
            command.env_remove(name);
        }
        command.spawn().map(|child| Started(Some(child)))
    }
}

/// A process that was started, and is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Started(Option<Child>);

impl Started {
    /// Its number; 0 once it has ended.
    pub(super) fn id(&self) -> u32 {
        self.0.as_ref().and_then(Child::id).unwrap_or_default()
    }

    /// Waits for its end. Cancel safe.
    ///
    /// # Errors
    /// What waitpid(2) says.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        match &mut self.0 {
            Some(child) => child.wait().await,
            None => std::future::pending().await,
        }
    }

    /// Lets it live. Should it end before we do, it is not left a zombie.
    pub(super) fn keep(mut self) {
        if let Some(mut child) = self.0.take() {
            tokio::spawn(async move { child.wait().await });
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // An error means that it has ended.
            let _ = child.start_kill();
        }
    }
}

/// The path that led to the executable `running`: the first argument, if it is one; what a shell found for it; else `running` itself,
/// without what Linux adds to the name of a file that is gone.
fn started_by(name: &Path, running: &Path, search: Option<&std::ffi::OsStr>) -> PathBuf {
    let is_it = |path: &Path| is_same_file(path, running);
    if name.components().nth(1).is_some() || name.is_absolute() {
        if is_it(name) {
            return name.to_owned();
        }
    } else if let Some(found) =
        search.iter().flat_map(env::split_paths).map(|folder| folder.join(name)).find(|path| is_it(path))
    {
        return found;
    }
    match running.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(path) => OsString::from_vec(path.to_owned()).into(),
        None => running.to_owned(),
    }
}

fn is_same_file(one: &Path, two: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((identity(one), identity(two)), (Ok(one), Ok(two)) if one == two)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_that_led_to_the_executable_leads_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("gatehouse-1"), "").unwrap();
        symlink(at("gatehouse-1"), at("gatehouse")).unwrap();
        assert_eq!(started_by(&at("gatehouse"), &at("gatehouse-1"), None), at("gatehouse"));
        let search = env::join_paths([Path::new("/nowhere"), folder.path()]).unwrap();
        let found = started_by(Path::new("gatehouse"), &at("gatehouse-1"), Some(&search));
        assert_eq!(found, at("gatehouse"));
    }

    #[test]
    fn another_name_than_its_own_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("one"), "").unwrap();
        fs::write(at("two"), "").unwrap();
        assert_eq!(started_by(&at("two"), &at("one"), None), at("one"));
        assert_eq!(started_by(Path::new("-sh"), &at("one"), None), at("one"));
        let deleted = PathBuf::from(format!("{} (deleted)", at("gone").display()));
        assert_eq!(started_by(&at("gone"), &deleted, None), at("gone"));
    }
}
