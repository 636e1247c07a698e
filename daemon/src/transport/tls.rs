//! TLS between devices: self-signed certificates, of which only the key counts.

use std::sync::Arc;

use kith_core::id::DeviceId;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
};

use crate::identity::{Identity, PublicKey};

/// What members of a circle speak.
pub const ALPN_MEMBER: &[u8] = b"kith/1";
/// What a device speaks that wants to join.
pub const ALPN_PAIRING: &[u8] = b"kith-pair/1";

/// The name in the handshake. It says nothing: devices are known by their keys.
pub const SERVER_NAME: &str = "kith";

/// The cipher suites in the order of preference: AES-128-GCM measured fastest.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let order = |suite: CipherSuite| match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(0),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some(1),
        _ => None,
    };
    provider.cipher_suites.retain(|suite| order(suite.suite()).is_some());
    provider.cipher_suites.sort_by_key(|suite| order(suite.suite()));
    Arc::new(provider)
}

/// Checks that the other side has the key of its certificate and, where one is expected, that it
/// is that key.
#[derive(Debug)]
struct KeyVerifier {
    provider: Arc<CryptoProvider>,
    expected: Option<DeviceId>,
}

impl KeyVerifier {
    fn check(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        // A chain has no meaning here: whoever sends one wants something else.
        if !others.is_empty() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let key = public_key(own).ok_or(CertificateError::BadEncoding)?;
        match self.expected {
            Some(expected) if expected != key.device() => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(CertificateError::BadSignature.into());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }
}

/// Why TLS 1.2 is never verified: it isn't offered, and QUIC has no use for it.
fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// The Ed25519 key of a certificate.
fn public_key(certificate: &CertificateDer<'_>) -> Option<PublicKey> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    PublicKey::from_spki(&parsed.subject_public_key_info())
}

/// The server's side of TLS: any device gets through the handshake, and is looked at after it.
///
/// # Errors
/// If the identity's key isn't one that TLS can use.
pub fn server(identity: &Identity) -> Result<QuicServerConfig, Error> {
    let provider = provider();
    let verifier = KeyVerifier { provider: provider.clone(), expected: None };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(vec![identity.certificate()], identity.private_key().into())?;
    config.alpn_protocols = vec![ALPN_MEMBER.to_vec(), ALPN_PAIRING.to_vec()];
    // A resumed session would skip the certificate.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
}

/// The client's side of TLS, for one protocol, and for one device unless any will do.
///
/// # Errors
/// If the identity's key isn't one that TLS can use.
pub fn client(
    identity: &Identity,
    protocol: &[u8],
    expected: Option<DeviceId>,
) -> Result<QuicClientConfig, Error> {
    let provider = provider();
    let verifier = KeyVerifier { provider: provider.clone(), expected };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![identity.certificate()], identity.private_key().into())?;
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    QuicClientConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
}

/// The key of the device at the other end of an established connection.
#[must_use]
pub fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    public_key(chain.first()?)
}

/// The protocol that was agreed on.
#[must_use]
pub fn protocol(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::SupportedCipherSuite;

    fn verifier(expected: Option<DeviceId>) -> KeyVerifier {
        KeyVerifier { provider: provider(), expected }
    }

    #[test]
    fn only_the_expected_key_alone_is_taken() {
        let (one, other) = (Identity::ephemeral(), Identity::ephemeral());
        let (certificate, another) = (one.certificate(), other.certificate());
        assert!(verifier(Some(one.device())).check(&certificate, &[]).is_ok());
        assert!(verifier(None).check(&certificate, &[]).is_ok());
        assert!(verifier(Some(other.device())).check(&certificate, &[]).is_err());
        assert!(verifier(None).check(&certificate, std::slice::from_ref(&another)).is_err());
        assert!(verifier(None).check(&CertificateDer::from(vec![1, 2, 3]), &[]).is_err());
    }

    #[test]
    fn a_key_that_is_not_ed25519_is_refused() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        assert!(verifier(None).check(certificate.der(), &[]).is_err());
    }

    #[test]
    fn the_fast_cipher_comes_first() {
        let suites: Vec<_> =
            provider().cipher_suites.iter().map(SupportedCipherSuite::suite).collect();
        assert_eq!(suites[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(suites.len(), 2);
    }
}
