//! A folder in place of the embedded files: read once at start, bounded, nothing outside it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use conf::Encoding;

use super::{Asset, Assets};

/// All files together. A front end of MAS has about 10 MB with its pre-compressed forms.
const LARGEST_TOTAL_BYTES: u64 = 64 << 20;
/// Files and folders.
const MOST_ENTRIES: usize = 10_000;

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file or folder that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than is kept in memory.
    #[error("{path} holds more than 64 MiB or 10000 entries: let the edge serve it (a route with `static`)")]
    TooLarge {
        /// The folder.
        path: PathBuf,
    },
}

impl Assets {
    /// Every file below `root`, whose `.br`, `.zst` and `.gz` neighbours are its compressed forms. Dot files and symbolic links are left out.
    ///
    /// # Errors
    /// When something cannot be read, or the folder is too large: see [`FolderError`].
    pub async fn from_folder(root: &Path) -> Result<Self, FolderError> {
        let folder = root.to_owned();
        let read = tokio::task::spawn_blocking(move || files_below(&folder)).await;
        let found = read.map_err(|error| FolderError::Read {
            path: root.to_owned(),
            source: io::Error::other(error),
        })??;

        let mut assets = Self::default();
        for (name, content) in &found {
            let given: Vec<(Encoding, Bytes)> =
                [(Encoding::Brotli, "br"), (Encoding::Zstd, "zst"), (Encoding::Gzip, "gz")]
                    .into_iter()
                    .filter_map(|(encoding, suffix)| {
                        Some((encoding, found.get(&format!("{name}.{suffix}"))?.clone()))
                    })
                    .collect();
            let asset = Asset::compress(name, content.clone(), &given).await;
            assets.files.insert(
                name.clone(),
                asset.map_err(|source| FolderError::Read { path: root.join(name), source })?,
            );
        }
        Ok(assets)
    }
}

type Files = std::collections::BTreeMap<String, Bytes>;

fn files_below(root: &Path) -> Result<Files, FolderError> {
    let mut found = Files::new();
    let mut pending = vec![(root.to_owned(), String::new())];
    let (mut entries, mut total) = (0_usize, 0_u64);
    while let Some((folder, prefix)) = pending.pop() {
        let fault = |path: &Path, source| FolderError::Read { path: path.to_owned(), source };
        for entry in std::fs::read_dir(&folder).map_err(|source| fault(&folder, source))? {
            let entry = entry.map_err(|source| fault(&folder, source))?;
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            entries += 1;
            let metadata = entry.metadata().map_err(|source| fault(&path, source))?;
            total += if metadata.is_file() { metadata.len() } else { 0 };
            if entries > MOST_ENTRIES || total > LARGEST_TOTAL_BYTES {
                return Err(FolderError::TooLarge { path: root.to_owned() });
            }
            if metadata.is_dir() {
                pending.push((path, format!("{prefix}{name}/")));
            } else if metadata.is_file() {
                let content = std::fs::read(&path).map_err(|source| fault(&path, source))?;
                found.insert(format!("{prefix}{name}"), content.into());
            }
        }
    }
    Ok(found)
}
