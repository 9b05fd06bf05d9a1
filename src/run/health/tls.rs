//! TLS of probes: with the certificate looked at, or without.

use super::failure::Failure;
use std::sync::{Arc, OnceLock};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// How a client speaks, by whether it looks at certificates.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    trusting: OnceLock<Arc<ClientConfig>>,
    /// Why there is none, if the system's certificates can't be read.
    verifying: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Tls {
    /// Nothing is read before it is needed.
    pub(super) fn new() -> Self {
        let provider = Arc::new(ring::default_provider());
        Self { provider, trusting: OnceLock::new(), verifying: OnceLock::new() }
    }

    /// The client for a check. Certificates are looked at by what the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` may
    /// name something else), as it was when the first such check was made.
    pub(super) fn client(&self, verify: bool) -> Result<Arc<ClientConfig>, Failure> {
        if verify {
            self.verifying.get_or_init(|| self.verifying()).clone().map_err(Failure::Unable)
        } else if let Some(made) = self.trusting.get() {
            Ok(Arc::clone(made))
        } else {
            let made = self.trusting().map_err(|error| Failure::Unable(error.to_string()))?;
            Ok(Arc::clone(self.trusting.get_or_init(|| made)))
        }
    }

    fn trusting(&self) -> Result<Arc<ClientConfig>, Error> {
        let anyone = Arc::new(Anyone(Arc::clone(&self.provider)));
        let versions = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?;
        let mut config = versions.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn verifying(&self) -> Result<Arc<ClientConfig>, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A system's store may hold some that are of no use; without any, nothing can be verified.
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(format!("the system has no certificates to verify by{why}"));
        }
        let versions = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = versions.with_root_certificates(roots).with_no_client_auth();
        // Each probe sees the whole handshake, as a new client would.
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// Takes any certificate: a real server's is often its own, and a probe sends no secret.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
