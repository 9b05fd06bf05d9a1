//! The cluster's certificate authority: a key and a certificate in a directory, with which each node's are made.

use crate::run::log::tls::server_name;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long certificates are good for.
const VALID: Duration = Duration::days(3650);
/// Clocks may differ by this.
const SKEW: Duration = Duration::days(1);
/// Bytes of the cluster's secret.
const SECRET: usize = 32;
/// What the CA calls itself, in its own certificate and in those that it signs.
const CA_NAME: &str = "Steerage cluster CA";

/// Why nothing was made. Never holds what is in a key file.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file is there already. Nothing was written.
    #[error("{0} exists; nothing was written")]
    Exists(PathBuf),
    /// A name that can't stand in a certificate.
    #[error("{0:?} can't be a node's name: use letters, digits, `-` and `.`, with a letter in it")]
    Name(String),
    /// A name twice.
    #[error("node {0:?} is named twice")]
    Twice(String),
    /// Reading or writing.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// Making a key or a certificate.
    #[error("{0}: {1}")]
    Certificate(PathBuf, rcgen::Error),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// Makes in `dir` a CA (`ca.crt`, `ca.key`), the cluster's secret (`cluster.key`) and for each of `nodes` a certificate and a
/// key (`NAME.crt`, `NAME.key`). Keys and secret are readable for their owner alone. Gives the paths of all that was made.
///
/// # Errors
/// [`AuthorityError`].
pub fn init(dir: &Path, nodes: &[String]) -> Result<Vec<PathBuf>, AuthorityError> {
    let mut files = vec![dir.join("ca.crt"), dir.join("ca.key"), dir.join("cluster.key")];
    for (n, name) in nodes.iter().enumerate() {
        judge(name)?;
        if nodes[..n].contains(name) {
            return Err(AuthorityError::Twice(name.clone()));
        }
        files.extend(of(dir, name));
    }
    absent(&files)?;
    let io = |error| AuthorityError::File(dir.to_owned(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;

    let mut secret = [0; SECRET];
    ring::default_provider().secure_random.fill(&mut secret).map_err(|_| AuthorityError::Random)?;
    let mut hex = secret.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String can't fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    hex.push('\n');

    let failed = |error| AuthorityError::Certificate(files[0].clone(), error);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = ca_params().self_signed(&key).map_err(failed)?;
    put(&files[0], &certificate.pem(), 0o644)?;
    put(&files[1], &key.serialize_pem(), 0o600)?;
    put(&files[2], &hex, 0o600)?;
    for name in nodes {
        issue(dir, name, &key)?;
    }
    Ok(files)
}

/// Makes a certificate and a key for one more node, with the CA in `dir`. Gives their paths.
///
/// # Errors
/// [`AuthorityError`].
pub fn certificate(dir: &Path, name: &str) -> Result<Vec<PathBuf>, AuthorityError> {
    judge(name)?;
    let files = of(dir, name);
    absent(&files)?;
    let path = dir.join("ca.key");
    let pem = std::fs::read_to_string(&path).map_err(|error| AuthorityError::File(path.clone(), error))?;
    let key = KeyPair::from_pem(&pem).map_err(|error| AuthorityError::Certificate(path, error))?;
    issue(dir, name, &key)?;
    Ok(files.into())
}

/// A node's certificate and key file.
fn of(dir: &Path, name: &str) -> [PathBuf; 2] {
    [dir.join(format!("{name}.crt")), dir.join(format!("{name}.key"))]
}

fn judge(name: &str) -> Result<(), AuthorityError> {
    let reserved = ["ca", "cluster"].contains(&name);
    match server_name(name) {
        Some(ServerName::DnsName(_)) if !reserved => Ok(()),
        _ => Err(AuthorityError::Name(name.to_owned())),
    }
}

fn absent(files: &[PathBuf]) -> Result<(), AuthorityError> {
    match files.iter().find(|file| file.symlink_metadata().is_ok()) {
        Some(file) => Err(AuthorityError::Exists(file.clone())),
        None => Ok(()),
    }
}

fn params(common_name: &str, names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - SKEW, now + VALID);
    Ok(params)
}

/// The CA's; the same whenever it signs, but for its time.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - SKEW, now + VALID);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn issue(dir: &Path, name: &str, ca: &KeyPair) -> Result<(), AuthorityError> {
    let [certificate_file, key_file] = of(dir, name);
    let failed = |error| AuthorityError::Certificate(certificate_file.clone(), error);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate: Certificate = node_params(name)
        .and_then(|params| params.signed_by(&key, &Issuer::new(ca_params(), ca)))
        .map_err(failed)?;
    put(&certificate_file, &certificate.pem(), 0o644)?;
    put(&key_file, &key.serialize_pem(), 0o600)
}

/// A node is server and client in one.
fn node_params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(name, vec![name.to_owned()])?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Writes a new file; one that has appeared meanwhile is left alone.
fn put(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| AuthorityError::File(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::log::ReplicaId;
    use crate::run::log::tls::{Files, Identity, TlsError};
    use std::os::unix::fs::PermissionsExt;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("steerage-ca-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn files(dir: &Path, name: &str) -> Files {
        let [certificate, key] = of(dir, name);
        Files { ca: dir.join("ca.crt"), certificate, key }
    }

    #[test]
    fn what_is_made_fits_together() {
        let folder = Folder::new("fits");
        let made = init(&folder.0, &["n1".to_owned(), "n2".to_owned()]).unwrap();
        assert_eq!(made.len(), 7);
        certificate(&folder.0, "late.example").unwrap();
        for name in ["n1", "n2", "late.example"] {
            assert!(Identity::load(ReplicaId(0), name, &files(&folder.0, name)).is_ok(), "{name}");
        }
        let wrong = Identity::load(ReplicaId(0), "n2", &files(&folder.0, "n1"));
        assert!(matches!(wrong, Err(TlsError::Name(..))));
        let secret = std::fs::read_to_string(folder.0.join("cluster.key")).unwrap();
        assert_eq!(secret.trim().len(), 2 * SECRET);
        for file in std::fs::read_dir(&folder.0).unwrap().map(Result::unwrap) {
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            let secret = file.path().extension().is_some_and(|e| e == "key");
            assert_eq!(mode & 0o077 == 0, secret, "{:?} has mode {mode:o}", file.path());
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = Folder::new("again");
        init(&folder.0, &["n1".to_owned()]).unwrap();
        let before = std::fs::read(folder.0.join("ca.key")).unwrap();
        assert!(matches!(init(&folder.0, &["n2".to_owned()]), Err(AuthorityError::Exists(_))));
        assert!(matches!(certificate(&folder.0, "n1"), Err(AuthorityError::Exists(_))));
        assert_eq!(std::fs::read(folder.0.join("ca.key")).unwrap(), before);
        assert!(!folder.0.join("n2.crt").exists());
    }

    #[test]
    fn names_that_cannot_be() {
        let folder = Folder::new("names");
        for name in ["", "a b", "../x", "10.0.0.1", "ca", "cluster", "-x"] {
            let made = init(&folder.0, &[name.to_owned()]);
            assert!(matches!(made, Err(AuthorityError::Name(_))), "{name:?}");
        }
        let twice = init(&folder.0, &["n1".to_owned(), "n1".to_owned()]);
        assert!(matches!(twice, Err(AuthorityError::Twice(_))));
        assert!(!folder.0.exists());
    }
}
