//! The last snapshot on disk, so that a pod which starts while Postgres is away serves the keys it knew. Credentials in it
//! are sealed and keys are hashes. The file's modification time says when it was last proven to be current.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Whether the file holds what is in memory.
    is_current: Arc<AtomicBool>,
}

impl Mirror {
    /// The mirror of this pool in `dir`.
    pub(super) fn new(dir: &Path, cluster_id: &str, namespace: &str, pool: &str) -> Self {
        Self {
            path: dir.join("directory.json"),
            cluster_id: cluster_id.to_owned(),
            namespace: namespace.to_owned(),
            pool: pool.to_owned(),
            is_current: Arc::default(),
        }
    }

    /// Notes that memory is about to hold something else than the file.
    pub(super) fn outdated(&self) {
        self.is_current.store(false, Ordering::Release);
    }

    /// Takes the file away: nothing in it is true any more.
    pub(super) fn remove(&self) {
        self.outdated();
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(error = %error, path = %self.path.display(), "outdated mirror cannot be removed");
        }
    }

    /// Replaces the file as a whole, readable by this user only. When that fails no file is left: an older one may hold keys
    /// that were revoked since.
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
        match written() {
            Ok(()) => {
                self.is_current.store(true, Ordering::Release);
                Ok(())
            }
            Err(source) => {
                self.remove();
                Err(self.unusable(source))
            }
        }
    }

    /// Notes that memory is current, and so the file's content, unless that is something else.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub(super) fn touch(&self) -> Result<(), MirrorError> {
        if !self.is_current.load(Ordering::Acquire) {
            return Ok(());
        }
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
        self.is_current.store(true, Ordering::Release);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::index::tests::snapshot;

    const HOUR: Duration = Duration::from_hours(1);

    /// A mirror in `dir` whose content was proven an hour ago.
    async fn old_mirror(dir: &Path) -> (Mirror, PoolSnapshot) {
        let mirror = Mirror::new(dir, "local", "spillway", "default");
        let snapshot = snapshot().await;
        mirror.write(&snapshot).unwrap();
        let file = File::options().write(true).open(&mirror.path).unwrap();
        file.set_modified(SystemTime::now() - HOUR).unwrap();
        (mirror, snapshot)
    }

    #[tokio::test]
    async fn its_age_is_brought_up_to_date_only_while_it_holds_what_is_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let (mirror, _) = old_mirror(dir.path()).await;
        let age = || mirror.read().unwrap().unwrap().1;
        assert!(age() >= HOUR);
        mirror.outdated();
        mirror.touch().unwrap();
        assert!(age() >= HOUR);
        mirror.touch().unwrap();
        assert!(age() < HOUR, "it was read, and so is what is in memory");
    }

    #[tokio::test]
    async fn what_could_not_be_replaced_or_is_gone_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (mirror, snapshot) = old_mirror(dir.path()).await;
        fs::create_dir(dir.path().join("directory.json.new")).unwrap();
        assert!(mirror.write(&snapshot).is_err());
        assert!(mirror.read().unwrap().is_none());
        fs::remove_dir(dir.path().join("directory.json.new")).unwrap();
        mirror.write(&snapshot).unwrap();
        mirror.remove();
        assert!(mirror.read().unwrap().is_none());
        mirror.touch().unwrap();
    }
}
