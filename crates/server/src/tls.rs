//! TLS: files of certificate and key → what accepts a connection, and again whenever the files change.
//!
//! All cryptography is ring's, given by name where this process serves and installed once for its client.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use atelier_domain::limits::CERTIFICATE_CHECK_INTERVAL;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{DEFAULT_VERSIONS, ServerConfig};

/// The one protocol that the server speaks inside of TLS.
const PROTOCOL: &[u8] = b"http/1.1";

/// Where certificate and key lie, in PEM format.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, followed by those that signed it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Makes ring the cryptography of every TLS client of this process. Before any is built; again does nothing.
pub fn install_cryptography() {
    // It fails only where one is installed already, and nothing here installs another.
    let _ = ring::default_provider().install_default();
}

/// The certificate and key that connections are accepted with now.
pub struct Certificates {
    current: watch::Receiver<TlsAcceptor>,
}

impl Certificates {
    /// Reads the files, and goes on looking at them for as long as this lives.
    pub async fn load(files: TlsFiles) -> Result<Self> {
        let contents = Contents::read(&files).await?;
        let (sender, current) = watch::channel(contents.acceptor(&files)?);
        tokio::spawn(reload(files, contents, sender));
        Ok(Self { current })
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.borrow().clone()
    }
}

/// Takes what the files hold whenever it changed and fits together; until then the last that did is served.
async fn reload(files: TlsFiles, mut known: Contents, sender: watch::Sender<TlsAcceptor>) {
    let mut last_trouble = String::new();
    loop {
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(CERTIFICATE_CHECK_INTERVAL) => {}
        }
        let taken = async {
            let contents = Contents::read(&files).await?;
            if contents == known {
                return Ok(());
            }
            sender.send_replace(contents.acceptor(&files)?);
            known = contents;
            tracing::info!("serves the certificate that was renewed");
            anyhow::Ok(())
        };
        let trouble = taken.await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        // Said once, not every few seconds: two files are rarely replaced in the same moment.
        if !trouble.is_empty() && trouble != last_trouble {
            tracing::warn!(trouble, "the new certificate cannot be served; the last one is");
        }
        last_trouble = trouble;
    }
}

/// What the files hold. Without `Debug`: one of them is a private key.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    async fn read(files: &TlsFiles) -> Result<Self> {
        let certificate = tokio::fs::read(&files.certificate)
            .await
            .with_context(|| format!("Cannot read the certificate {}.", files.certificate.display()))?;
        let key = tokio::fs::read(&files.key)
            .await
            .with_context(|| format!("Cannot read the private key {}.", files.key.display()))?;
        Ok(Self { certificate, key })
    }

    fn acceptor(&self, files: &TlsFiles) -> Result<TlsAcceptor> {
        let name = files.certificate.display();
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{name} is no certificate in PEM format."))?;
        if chain.is_empty() {
            bail!("{name} holds no certificate in PEM format.");
        }
        // What the parser says of a key could quote it.
        let Ok(key) = PrivateKeyDer::from_pem_slice(&self.key) else {
            bail!("{} holds no private key in PEM format that is not encrypted.", files.key.display());
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(DEFAULT_VERSIONS)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .with_context(|| format!("{name} and {} do not belong together.", files.key.display()))?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
