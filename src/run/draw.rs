//! Random numbers, from the system.

use tokio_rustls::rustls::crypto::ring;

/// 128 bits that nobody else draws; none if the system gives no random numbers.
pub fn random() -> Option<u128> {
    let mut bytes = [0; 16];
    ring::default_provider().secure_random.fill(&mut bytes).ok()?;
    Some(u128::from_le_bytes(bytes))
}
