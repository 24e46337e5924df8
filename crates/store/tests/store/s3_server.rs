//! A server that speaks S3 over a socket and checks every signature, with a folder for each bucket. It is somebody
//! else's: what our client sends is read by those who read Amazon's documents, not by us.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::sync::oneshot;

pub const ACCESS_KEY: &str = "AKIDATELIERTEST";
pub const SECRET_KEY: &str = "a-secret-that-nobody-may-print/7f";
/// The bucket that is there from the start.
pub const SHARED_BUCKET: &str = "shared-code";
/// Says, in a server's folder, where it listens.
pub const ENDPOINT_FILE: &str = ".endpoint";

/// A server on a loopback port. Ends when it is dropped; what it holds stays.
pub struct S3Server {
    folder: PathBuf,
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl S3Server {
    /// A server that holds nothing yet.
    pub fn start(folder: &Path) -> Self {
        // Clients of this process need it, be it that they speak no TLS. The first of many tests does it.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        fs::create_dir_all(folder.join(SHARED_BUCKET)).unwrap();
        let mut server = Self { folder: folder.to_owned(), address: ([127, 0, 0, 1], 0).into(), running: None };
        server.resume();
        fs::write(folder.join(ENDPOINT_FILE), server.endpoint()).unwrap();
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn make_bucket(&self, name: &str) {
        fs::create_dir(self.folder.join(name)).unwrap();
    }

    /// Where it lies what a bucket holds.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Cuts every connection and takes no more.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// Goes on, with what it holds and where it was.
    pub fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.address = listener.local_addr().unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&self.folder).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let (stop, stopped) = oneshot::channel();
        // A runtime of its own: what the test blocks does not hold up the server, and dropping it cuts the connections.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, service) => {}
                    _ = stopped => {}
                }
            });
        });
        self.running = Some((stop, thread));
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service.clone());
        tokio::spawn(async move {
            // A client that goes away is no fault of the server's.
            let _ = connection.await;
        });
    }
}
