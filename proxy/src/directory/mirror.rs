//! The last snapshot on disk, so that a pod which starts while Postgres is away serves the keys it knew. Credentials in it
//! are sealed and keys are hashes. The file's modification time says when it was last proven to be current.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use spillway_core::domain::pool::PoolSnapshot;

/// Raised when the form changes: a mirror of another form is not read.
const FORM: u32 = 1;

/// Why the mirror could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum MirrorError {
    /// The file could not be used.
    #[error("{} could not be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The content is no snapshot.
    #[error("the mirror is damaged")]
    Content(#[from] serde_json::Error),
    /// Written by a proxy of another version, or for another pool.
    #[error("the mirror is of another version or pool")]
    Foreign,
}

#[derive(Serialize, Deserialize)]
struct Content<S> {
    form: u32,
    cluster_id: String,
    snapshot: S,
}

/// The mirror of one pool.
#[derive(Debug, Clone)]
pub(super) struct Mirror {
    path: PathBuf,
    cluster_id: String,
    namespace: String,
    pool: String,
}

impl Mirror {
    /// The mirror of this pool in `dir`.
    pub(super) fn new(dir: &Path, cluster_id: &str, namespace: &str, pool: &str) -> Self {
        Self {
            path: dir.join("directory.json"),
            cluster_id: cluster_id.to_owned(),
            namespace: namespace.to_owned(),
            pool: pool.to_owned(),
        }
    }

    /// Replaces the file as a whole, readable by this user only.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&self, snapshot: &PoolSnapshot) -> Result<(), MirrorError> {
        let json = serde_json::to_vec(&Content {
            form: FORM,
            cluster_id: self.cluster_id.clone(),
            snapshot,
        })?;
        let new = self.path.with_extension("json.new");
        let written = || -> io::Result<()> {
            let mut file = File::options()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&new)?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        written().map_err(|source| self.unusable(source))
    }

    /// Notes that the file's content is still current.
    ///
    /// # Errors
    /// There is no file yet, or it cannot be changed.
    pub(super) fn touch(&self) -> Result<(), MirrorError> {
        let touched = || {
            File::options()
                .write(true)
                .open(&self.path)?
                .set_modified(SystemTime::now())
        };
        touched().map_err(|source| self.unusable(source))
    }

    /// The snapshot, and how long ago it was last proven to be current. `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not of this pool.
    pub(super) fn read(&self) -> Result<Option<(PoolSnapshot, Duration)>, MirrorError> {
        let json = match fs::read(&self.path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.unusable(source)),
        };
        let proven = fs::metadata(&self.path)
            .and_then(|file| file.modified())
            .map_err(|source| self.unusable(source))?;
        let content: Content<PoolSnapshot> = serde_json::from_slice(&json)?;
        let pool = &content.snapshot.pool;
        if (
            content.form,
            &content.cluster_id,
            &pool.namespace,
            &pool.name,
        ) != (FORM, &self.cluster_id, &self.namespace, &self.pool)
        {
            return Err(MirrorError::Foreign);
        }
        Ok(Some((
            content.snapshot,
            proven.elapsed().unwrap_or_default(),
        )))
    }

    fn unusable(&self, source: io::Error) -> MirrorError {
        MirrorError::File {
            path: self.path.clone(),
            source,
        }
    }
}
