//! One deadline for the whole way in and for a whole list of servers, on a paused clock: what is measured is what the
//! driver waits for, and not how busy the machine is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rwork_redis::{Options, Redis, Role};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// What is promised.
const PROMISED: Duration = Duration::from_secs(5);
/// Less than the deadline; two of them are less, too, and three are more.
const WAIT: Duration = Duration::from_millis(1500);

/// Takes connections, answers a little late and then keeps silent. Returns its port, and how many came.
async fn pretender(answers: &'static [&'static [u8]]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (port, came) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                for answer in answers {
                    sleep(WAIT).await;
                    let _ = stream.write_all(answer).await;
                }
                std::future::pending::<()>().await;
            });
        }
    });
    (port, came)
}

/// How long the clock went on until it was refused, and in which words.
async fn refused(options: Options) -> (Duration, String) {
    let began = Instant::now();
    let error = Redis::connect(options).await.unwrap_err();
    (began.elapsed(), crate::connecting::shown(&error))
}

fn options(urls: &[String]) -> Options {
    Options::parse(&urls.join(";"), Role::Broker).unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_step_of_the_way_in_is_under_one_deadline() {
    const HELLO: &[u8] = b"%1\r\n+server\r\n+redis\r\n";
    for answers in [&[][..], &[HELLO], &[HELLO, b"%", b"1"]] {
        let (port, came) = pretender(answers).await;
        let (took, line) = refused(options(&[format!("redis://127.0.0.1:{port}")])).await;
        assert!(line.contains("it takes connections, but has not answered within 4 s"), "{line}");
        assert!(took < PROMISED, "it took {took:?}");
        assert_eq!(came.load(Ordering::Relaxed), 1, "it was asked once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_list_is_under_the_same_deadline() {
    for scheme in ["redis", "sentinel"] {
        let mut urls = Vec::new();
        let mut counts = Vec::new();
        for _ in 0..9 {
            let (port, came) = pretender(&[]).await;
            urls.push(format!("{scheme}://127.0.0.1:{port}"));
            counts.push(came);
        }
        let mut options = options(&urls);
        options.transport.set("master_name", "mymaster").unwrap();
        let (took, line) = refused(options).await;
        assert!(took < PROMISED, "it took {took:?}");
        assert!(line.contains(&urls[0].replace("sentinel", "redis")), "{line}");
        assert!(line.contains("has not answered within"), "{line}");
        let asked: Vec<usize> = counts.iter().map(|came| came.load(Ordering::Relaxed)).collect();
        assert_eq!(asked, [1; 9], "each was asked once");
    }
}

#[tokio::test]
async fn the_next_server_has_its_turn_while_the_first_is_silent() {
    let server = crate::common::Server::start();
    let (silent, _) = pretender(&[]).await;
    let urls = [format!("redis://127.0.0.1:{silent}"), server.url()];
    let began = Instant::now();
    Redis::connect(options(&urls)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
}
