//! Servers to probe, on loopback; all end with their values.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A directory that is removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(test: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("steerage-health-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port on which nobody listened a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A certificate authority's certificate, and one that it has given to `name`, with its key; all PEM.
pub struct Certificates {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

pub fn certificates(name: &str) -> Certificates {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "tests");
    let signed = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    Certificates { authority: signed.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
}

/// An nginx with a page for every purpose, on all of this machine's addresses.
pub struct Nginx {
    child: Child,
    pub http: SocketAddr,
    pub https: SocketAddr,
    /// Speaks nothing newer than TLS 1.2.
    pub tls12: SocketAddr,
    pub authority: PathBuf,
    _directory: Scratch,
}

impl Nginx {
    /// Its certificate is for `www.example.com`.
    pub fn start(test: &str) -> Self {
        let directory = Scratch::new(test);
        let path = directory.path();
        let made = certificates("www.example.com");
        let write = |name: &str, text: &[u8]| fs::write(path.join(name), text).unwrap();
        write("authority.pem", made.authority.as_bytes());
        write("certificate.pem", made.certificate.as_bytes());
        write("key.pem", made.key.as_bytes());
        fs::create_dir(path.join("pages")).unwrap();
        let filler = "x".repeat(60_000);
        write("pages/early", format!("needle{filler}{filler}").as_bytes());
        write("pages/late", format!("{filler}{filler}needle").as_bytes());
        let [http, https, tls12] = [0; 3].map(|_| free_port());
        let tls = format!(
            "ssl_certificate {dir}/certificate.pem; ssl_certificate_key {dir}/key.pem;",
            dir = path.display()
        );
        let pages = format!(
            "location / {{ root {dir}/pages; }}
             location = /well {{ return 200 'all is well'; }}
             location = /nothing {{ return 204; }}
             location = /moved {{ return 301 /well; }}
             location = /ill {{ return 503 'all is ill'; }}
             location = /host {{ return 200 'for $host by $http_user_agent'; }}
             location = /slow {{ root {dir}/pages; limit_rate 1000; try_files /late =404; }}",
            dir = path.display()
        );
        let config = format!(
            "daemon off; worker_processes 1; error_log {dir}/error.log; pid {dir}/pid;
             events {{ worker_connections 512; }}
             http {{ access_log off; client_body_temp_path {dir}/a; proxy_temp_path {dir}/b;
               fastcgi_temp_path {dir}/c; uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
               server {{ listen 0.0.0.0:{http}; {pages} }}
               server {{ listen 0.0.0.0:{https} ssl; {tls} {pages} }}
               server {{ listen 0.0.0.0:{tls12} ssl; ssl_protocols TLSv1.2; {tls} {pages} }} }}",
            dir = path.display()
        );
        write("nginx.conf", config.as_bytes());
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(path)
            .arg("-c")
            .arg(path.join("nginx.conf"))
            .arg("-e")
            .arg(path.join("error.log"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let nginx = Self {
            child: child.unwrap(),
            http: address(http),
            https: address(https),
            tls12: address(tls12),
            authority: path.join("authority.pem"),
            _directory: directory,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while [nginx.http, nginx.https, nginx.tls12].iter().any(|to| TcpStream::connect(to).is_err()) {
            assert!(Instant::now() < deadline, "nginx did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it only if it is asked to end.
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TCP server that does what it is told with each connection, one after the other.
pub struct Misbehaving {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Misbehaving {
    pub fn start(mut serve: impl FnMut(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
                serve(stream);
            }
        });
        Self { address, connections, stop, thread: Some(thread) }
    }

    /// One that reads a request and answers with `bytes`, then closes.
    pub fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&bytes);
        })
    }

    /// One that says `start`, then `again` every `pause`, until the other end has had enough.
    pub fn dripping(start: &'static str, again: &'static str, pause: Duration) -> Self {
        Self::start(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            if again.is_empty() {
                // Writing nothing never fails.
                let _ = stream.read_to_end(&mut Vec::new());
                return;
            }
            let mut next = stream.write_all(start.as_bytes());
            while next.is_ok() {
                std::thread::sleep(pause);
                next = stream.write_all(again.as_bytes());
            }
        })
    }
}

impl Drop for Misbehaving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A UDP server that answers each datagram with what it is told; nothing if that is empty.
pub struct Answering {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    pub fn start(at: &str, mut answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind((at, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
                if let Some(answer) = answer(&bytes[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
