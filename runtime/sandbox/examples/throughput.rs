#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::expect_used, clippy::indexing_slicing, reason = "scratch")]
use std::sync::Arc;
use std::time::{Duration, Instant};
use rwork_sandbox::*;
fn inv() -> Invocation {
    Invocation { task: "guest.run".into(), id: "1234-1234-1234".into(), input: Input::Call { content_type: "application/json".into(), args: bytes::Bytes::from_static(b"[1, 2]"), kwargs: bytes::Bytes::from_static(b"{}") },
        info: Arc::new(RequestInfo::default()), headers: bytes::Bytes::new(), limits: Limits::default(), host: Arc::new(NoHost), stop: Stop::default() }
}
fn main() {
    let wasm = std::fs::read(std::env::args().nth(1).unwrap()).unwrap();
    for conc in [2usize] {
        let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let sb = Sandbox::new(SandboxConfig::with_concurrency(conc), io.handle().clone()).unwrap();
        let code = sb.compile_in_memory(&wasm).unwrap();
        let prepared = Arc::new(sb.link(&code, "g", Arc::default()).unwrap());
        for round in 0..3 {
            // one admission loop, as the worker does
            let sb2 = sb.clone(); let p2 = prepared.clone();
            let n = 100_000u64;
            let t = Instant::now();
            io.block_on(io.handle().spawn(async move {
                let mut set = tokio::task::JoinSet::new();
                for _ in 0..n {
                    let slot = sb2.admit().await;
                    let run = sb2.execute(slot, p2.clone(), inv());
                    set.spawn(run);
                    while let Some(r) = set.try_join_next() { assert!(matches!(r.unwrap().outcome, Outcome::Success(_))); }
                }
                while let Some(r) = set.join_next().await { assert!(matches!(r.unwrap().outcome, Outcome::Success(_))); }
            })).unwrap();
            let e = t.elapsed();
            println!("conc {conc} round {round}: execute {:.0}/s ({:.2} us)", n as f64 / e.as_secs_f64(), e.as_secs_f64() * 1e6 / n as f64);
        }
        for round in 0..3 {
            // bare: the same store without slots, threads, supervision
            let n = 100_000u64;
            let t = Instant::now();
            let threads: Vec<_> = (0..conc).map(|_| { let sb = sb.clone(); let p = prepared.clone(); std::thread::spawn(move || {
                sb.bare_tmp(&p, n / conc as u64);
            }) }).collect();
            for th in threads { th.join().unwrap(); }
            let e = t.elapsed();
            println!("conc {conc} round {round}: bare    {:.0}/s ({:.2} us)", n as f64 / e.as_secs_f64(), e.as_secs_f64() * 1e6 / n as f64);
        }
        let _ = Duration::ZERO;
    }
}
