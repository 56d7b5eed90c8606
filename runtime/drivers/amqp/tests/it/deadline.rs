//! One deadline for the whole way in and for a whole list of servers, on a paused clock: what is measured is what the
//! driver waits for, and not how busy the machine is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rwork_amqp::{Amqp, Options, Role};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

use crate::connecting::shown;
use crate::tls::Tls;

/// What the issue promises.
const PROMISED: Duration = Duration::from_secs(5);
/// Less than the deadline; two of them are less, too, and three are more.
const WAIT: Duration = Duration::from_millis(1500);
/// `connection.start` of RabbitMQ 3.10.8, shortened.
const START: &[u8] = b"\x01\x00\x00\x00\x00\x00\x58\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x33\
    \x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8\x09copyright\x56\
    \x00\x00\x00\x0ePLAIN AMQPLAIN\x00\x00\x00\x05en_US\xce";
/// `connection.tune`: 2047 channels, frames of 128 KiB, a heartbeat a minute.
const TUNE: &[u8] = b"\x01\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x1e\x07\xff\x00\x02\x00\x00\x00\x3c\xce";

/// What a pretender does with a connection, one after the other; then it keeps silent.
#[derive(Clone, Copy, Debug)]
enum Step {
    Wait,
    Secure,
    Say(&'static [u8]),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Takes connections and treats all of them so. Returns its port, and how many came.
async fn pretender(steps: &'static [Step], tls: TlsAcceptor) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (port, came) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let tls = tls.clone();
            tokio::spawn(async move {
                // Whoever has gone away is not pretended to any more.
                let _held = treat(stream, steps, tls).await;
                std::future::pending::<()>().await;
            });
        }
    });
    (port, came)
}

async fn treat(stream: TcpStream, steps: &[Step], tls: TlsAcceptor) -> std::io::Result<Box<dyn Stream>> {
    let mut stream: Box<dyn Stream> = Box::new(stream);
    for step in steps {
        match step {
            Step::Wait => sleep(WAIT).await,
            Step::Secure => stream = Box::new(tls.accept(stream).await?),
            Step::Say(words) => stream.write_all(words).await?,
        }
    }
    Ok(stream)
}

fn acceptor(tls: &Tls) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let certificate = CertificateDer::from_pem_file(&tls.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&tls.key).unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()).into()
}

/// How long the clock went on until it was refused, and in which words.
async fn refused(url: &str) -> (Duration, String) {
    let began = Instant::now();
    let error = Amqp::connect(Options::parse(url, Role::Broker).unwrap()).await.unwrap_err();
    (began.elapsed(), shown(&error))
}

#[tokio::test(start_paused = true)]
async fn every_step_of_the_way_in_is_under_one_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::make(folder.path()).unwrap();
    let secure = format!("?ssl_ca_certs={}", tls.authority.display());
    for (is_secure, steps, words) in [
        (false, &[][..], "it takes connections, but has not answered within 4 s"),
        (false, &[Step::Wait, Step::Say(START)], "has not answered within 4 s"),
        (
            false,
            &[Step::Wait, Step::Say(START), Step::Wait, Step::Say(TUNE), Step::Wait],
            "has not answered within 4 s",
        ),
        (true, &[], "has not answered our TLS handshake within 4 s"),
        (true, &[Step::Wait, Step::Secure], "has not answered within 4 s"),
        (
            true,
            &[Step::Wait, Step::Secure, Step::Wait, Step::Say(START), Step::Wait, Step::Say(TUNE)],
            "has not answered within 4 s",
        ),
    ] {
        let (port, came) = pretender(steps, acceptor(&tls)).await;
        let url = match is_secure {
            true => format!("amqps://me:hunter2@localhost:{port}/v{secure}"),
            false => format!("amqp://me:hunter2@127.0.0.1:{port}/v"),
        };
        let (took, line) = refused(&url).await;
        assert!(line.contains(words), "{steps:?}: {line}");
        assert!(took < PROMISED, "{steps:?}: it took {took:?}");
        assert_eq!(came.load(Ordering::Relaxed), 1, "{steps:?}: it was asked once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_list_is_under_the_same_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let tls = acceptor(&Tls::make(folder.path()).unwrap());
    let mut urls = Vec::new();
    let mut counts = Vec::new();
    for _ in 0..9 {
        let (port, came) = pretender(&[], tls.clone()).await;
        urls.push(format!("amqp://me:hunter2@127.0.0.1:{port}/v"));
        counts.push(came);
    }
    let (took, line) = refused(&urls.join(";")).await;
    assert!(took < PROMISED, "it took {took:?}");
    let first = urls[0].replace("me:hunter2@", "***@");
    assert!(line.contains(&first) && line.contains("has not answered within 4 s"), "{line}");
    let asked: Vec<usize> = counts.iter().map(|came| came.load(Ordering::Relaxed)).collect();
    assert_eq!(asked, [1; 9], "each was asked once");
}
