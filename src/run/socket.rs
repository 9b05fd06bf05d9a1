//! The admin API's Unix socket as a file: claimed without robbing a living process, removed when it is given up.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Read and write for owner and group: connecting takes both.
const MODE: u32 = 0o660;

/// Why the socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error(
        "{path}: another process is listening on this socket: stop it, or give this node another \
         `node.admin_socket`", path = .0.display()
    )]
    InUse(PathBuf),
    /// Something else has that name.
    #[error("{path}: there is a file of this name that is no socket: move it away", path = .0.display())]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("{path}: the admin socket can't be made: {error}", path = .path.display())]
    Io {
        /// The socket or its directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A claimed socket file; removed when dropped, unless someone else has put another in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens at `path`. Makes its directory, and takes the place of a socket on which nobody listens any more.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn claim(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let failed = |error| SocketError::Io { path: path.to_owned(), error };
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            fs::create_dir_all(directory)
                .map_err(|error| SocketError::Io { path: directory.to_owned(), error })?;
        }
        clear(path)?;
        let listener = UnixListener::bind(path).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => SocketError::InUse(path.to_owned()),
            _ => failed(error),
        })?;
        let identity = identity(path).map_err(failed)?;
        let file = Self { path: path.to_owned(), identity };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok((file, listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // It may be gone by now, which is what is wanted.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

/// Removes what a process that died left at `path`.
fn clear(path: &Path) -> Result<(), SocketError> {
    let failed = |error| SocketError::Io { path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        // It accepted, or has a full queue: somebody is there.
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::InUse(path.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of the test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("steerage-socket-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn claimed_for_owner_and_group_and_removed() {
        let scratch = Scratch::new("claim");
        let path = scratch.0.join("run/deep/n1.sock");
        let (file, _listener) = SocketFile::claim(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(UnixStream::connect(&path).is_ok());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_living_socket_is_left_alone_and_a_dead_one_replaced() {
        let scratch = Scratch::new("stale");
        let path = scratch.0.join("n1.sock");
        let first = UnixListener::bind(&path).unwrap();
        assert!(matches!(SocketFile::claim(&path), Err(SocketError::InUse(_))));
        assert!(path.exists());
        drop(first);
        assert!(path.exists(), "a closed listener leaves its file");
        let (file, _listener) = SocketFile::claim(&path).unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn another_file_is_never_removed() {
        let scratch = Scratch::new("file");
        let path = scratch.0.join("n1.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(SocketFile::claim(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_successor_keeps_its_socket() {
        let scratch = Scratch::new("successor");
        let path = scratch.0.join("n1.sock");
        let (file, listener) = SocketFile::claim(&path).unwrap();
        drop(listener);
        // The first inode is kept in use by another name, so that its number can't be given out again.
        fs::rename(&path, scratch.0.join("old.sock")).unwrap();
        let _successor = SocketFile::claim(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
