//! Who a node is: Ed25519 raw public keys in TLS 1.3 (RFC 7250), pinned by the tree.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::ring::{default_provider, sign::any_eddsa_type};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerMisbehaved, ServerConfig, SignatureScheme,
};

use super::directory::Directory;
use super::error::NetError;

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Public Ed25519 key of a node: value of `ips/key-HOST`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads 64 hex digits; `None` if it is anything else.
    pub fn parse(hex_digits: &str) -> Option<Self> {
        let mut key = [0; 32];
        hex::decode_to_slice(hex_digits, &mut key).ok()?;
        Some(Self(key))
    }

    /// The first 16 hex digits, enough to tell keys apart in a message.
    pub fn fingerprint(&self) -> String {
        hex::encode(&self.0[..8])
    }

    fn from_spki(der: &[u8]) -> Option<Self> {
        Some(Self(der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The key pair of this node, ready for TLS.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    public: PublicKey,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Takes a private key in PKCS#8 DER.
    ///
    /// # Errors
    /// It is not an Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, NetError> {
        let bad = |cause: &str| NetError::OwnKey {
            cause: cause.to_owned(),
        };
        let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(der))
            .map_err(|e| bad(&format!("it is not an Ed25519 key: {e}")))?;
        let spki = signer
            .public_key()
            .map(|spki| spki.as_ref().to_vec())
            .ok_or_else(|| bad("it has no public half"))?;
        let public = PublicKey::from_spki(&spki).ok_or_else(|| bad("it is not an Ed25519 key"))?;
        Ok(Self {
            key: Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer)),
            public,
            provider: Arc::new(default_provider()),
        })
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// TLS for one connection to the node that has exactly `expected`; the second value tells what was shown.
    pub(super) fn client_config(
        &self,
        expected: PublicKey,
    ) -> Result<(Arc<ClientConfig>, Arc<OnceLock<PublicKey>>), NetError> {
        let verifier = Verifier::new(&self.provider, Accept::Exactly(expected));
        let shown = Arc::clone(&verifier.shown);
        let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(resolver));
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok((Arc::new(config), shown))
    }

    /// TLS for one connection from any node of `directory`; the second value tells which key it has shown.
    pub(super) fn server_config(
        &self,
        directory: &Directory,
    ) -> Result<(Arc<ServerConfig>, Arc<OnceLock<PublicKey>>), NetError> {
        let verifier = Verifier::new(&self.provider, Accept::Known(directory.clone()));
        let shown = Arc::clone(&verifier.shown);
        let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(resolver));
        // Without tickets there is no resumption: each connection is checked against the directory of now.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok((Arc::new(config), shown))
    }
}

#[derive(Debug)]
enum Accept {
    Exactly(PublicKey),
    Known(Directory),
}

/// Accepts a peer by its raw public key, and remembers the key for the error text.
#[derive(Debug)]
struct Verifier {
    accept: Accept,
    shown: Arc<OnceLock<PublicKey>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(provider: &Arc<CryptoProvider>, accept: Accept) -> Self {
        Self {
            accept,
            shown: Arc::default(),
            provider: Arc::clone(provider),
        }
    }

    fn check(&self, spki: &CertificateDer<'_>) -> Result<(), Error> {
        let key = PublicKey::from_spki(spki)
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let shown = self.shown.get_or_init(|| key);
        let good = match &self.accept {
            Accept::Exactly(expected) => key == *expected,
            Accept::Known(directory) => directory.has_key(&key),
        };
        if good && *shown == key {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ))
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(cert.as_ref());
        let schemes = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &spki, dss, schemes)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
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

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
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

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_garbage_is_none() {
        let text = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let key = PublicKey::parse(text).unwrap();
        assert_eq!(key.to_string(), text);
        assert_eq!(key.fingerprint(), "0011223344556677");
        for bad in [
            "",
            "00",
            &text[1..],
            &format!("{text}0"),
            &text.replace('0', "g"),
        ] {
            assert_eq!(PublicKey::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_private_key_that_is_none_is_refused() {
        let error = Identity::from_pkcs8(b"garbage").unwrap_err();
        assert!(error.to_string().contains("private key of this node"));
    }
}
