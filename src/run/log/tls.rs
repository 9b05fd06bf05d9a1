//! Who speaks on the log's connections: mutual TLS 1.3 under the cluster's CA, each certificate made out to its node's name.

use crate::cluster::log::ReplicaId;
use crate::run::log::frame::{Hello, VERSION};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig, CommonState, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The files that make a replica known to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The cluster CA's certificate.
    pub ca: PathBuf,
    /// This replica's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a replica has no identity. Never holds what is in a key file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or holds no PEM of its kind.
    #[error("{0}: {1}")]
    File(PathBuf, String),
    /// The files don't fit together.
    #[error("{0}: {1}")]
    Unfit(PathBuf, rustls::Error),
    /// The certificate is made out to another name.
    #[error("{0}: the certificate is not {1}'s")]
    Name(PathBuf, String),
}

/// A replica, and how it proves that it is the one.
#[derive(Clone)]
pub struct Identity {
    /// Its number.
    pub id: ReplicaId,
    /// Its name.
    pub name: String,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Identity {
    /// Reads the files of replica `id`, which has the name `name`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(id: ReplicaId, name: &str, files: &Files) -> Result<Self, TlsError> {
        let ca = read(&files.ca)?;
        let chain = read(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| file(&files.key, e))?;
        let unfit = |path: &Path| {
            let path = path.to_owned();
            move |error| TlsError::Unfit(path, error)
        };
        let mut roots = RootCertStore::empty();
        for certificate in ca {
            roots.add(certificate).map_err(unfit(&files.ca))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(ring::default_provider());
        let named = chain.first().is_some_and(|own| is_named(own, name));
        if !named {
            return Err(TlsError::Name(files.certificate.clone(), name.to_owned()));
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let verifier = verifier.build().map_err(|error| file(&files.ca, error))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit(&files.certificate))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unfit(&files.key))?;
        // A resumed session would skip the look at the certificate.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit(&files.certificate))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unfit(&files.key))?;
        Ok(Self {
            id,
            name: name.to_owned(),
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    /// The answering end of connections.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// The asking end.
    pub fn connector(&self) -> &TlsConnector {
        &self.connector
    }

    /// What it says of itself first.
    pub fn hello(&self) -> Hello {
        Hello { version: VERSION, id: self.id, name: self.name.clone() }
    }
}

fn file(path: &Path, error: impl std::fmt::Display) -> TlsError {
    TlsError::File(path.to_owned(), error.to_string())
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match all.map_err(|error| file(path, error))? {
        none if none.is_empty() => Err(file(path, "holds no certificate")),
        all => Ok(all),
    }
}

/// The name as it stands in a certificate; none if it can't.
pub fn server_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).ok()
}

fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let parsed = ParsedCertificate::try_from(certificate).ok();
    parsed.zip(server_name(name)).is_some_and(|(parsed, name)| verify_server_name(&parsed, &name).is_ok())
}

/// Judges the other end's first frame by the certificate that it has shown, which the CA has signed.
///
/// # Errors
/// What is wrong with it.
pub fn judge(hello: &Hello, connection: &CommonState) -> Result<(), String> {
    if hello.version != VERSION {
        return Err(format!("speaks version {} of the protocol, not {VERSION}", hello.version));
    }
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    if !shown.is_some_and(|certificate| is_named(certificate, &hello.name)) {
        return Err(format!("says that it is {:?}, and its certificate doesn't", hello.name));
    }
    Ok(())
}
