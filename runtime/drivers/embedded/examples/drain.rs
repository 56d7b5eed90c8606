//! Measures: `drain throughput [COUNT] [full]`, `drain trips [COUNT]`. Not part of the crate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement"
)]
use bytes::Bytes;
use futures_util::StreamExt;
use rwork_backend::{ResultBackend, Store};
use rwork_broker::*;
use rwork_embedded::{Embedded, Options};
use rwork_protocol::{Message, Properties, QueueName, Record, State, TaskId, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn open(path: &str) -> Embedded {
    Embedded::open(Options::parse_url(&format!("embedded:{path}")).unwrap()).unwrap()
}
fn q() -> QueueName {
    QueueName::new("celery").unwrap()
}
fn msg() -> Publish {
    let id = TaskId::generate();
    Publish {
        route: Route::queue(&q()),
        not_before: None,
        message: Message {
            headers: Bytes::from(format!(
                "{{\"id\":\"{id}\",\"task\":\"math.add\",\"lang\":\"py\",\"argsrepr\":\"(2, 2)\",\"root_id\":\"{id}\",\"retries\":0}}"
            )),
            properties: Properties {
                correlation_id: Some(id.to_string()),
                delivery_mode: Some(2),
                priority: Some(0),
                ..Default::default()
            },
            content_type: "application/json".into(),
            content_encoding: "utf-8".into(),
            body: Bytes::from_static(
                b"[[2, 2], {}, {\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}]",
            ),
        },
    }
}
fn rec(id: &str) -> Store {
    Store {
        record: Record {
            task_id: TaskId::new(id).unwrap(),
            status: State::Success,
            result: Bytes::from_static(b"4"),
            traceback: None,
            children: None,
            date_done: Some(Timestamp::from_millis(1_795_000_000_000)),
            group_id: None,
            parent_id: None,
            component: None,
        },
        expires: Some(Duration::from_secs(86400)),
        reply_to: None,
        correlation_id: None,
    }
}
async fn finish(b: &Embedded, c: &dyn Consumer, batch: Vec<Delivery>) {
    let stores = batch.iter().map(|d| rec(d.message.properties.correlation_id.as_deref().unwrap())).collect();
    b.store(stores).await.unwrap();
    c.settle(batch.into_iter().map(|d| d.settle(Disposition::Ack)).collect()).await.unwrap();
}
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let path = std::env::var("DB").unwrap();
    let count: usize = args.get(2).map_or(100_000, |c| c.parse().unwrap());
    let me = std::env::current_exe().unwrap();
    match args[1].as_str() {
        "produce" => {
            let b = open(&path);
            let began = Instant::now();
            for _ in 0..count / 100 {
                b.publish((0..100).map(|_| msg()).collect()).await.unwrap();
            }
            println!("  producer alone {:.0}/s", count as f64 / began.elapsed().as_secs_f64());
        }
        "throughput" => {
            let b = open(&path);
            let c: Arc<dyn Consumer> = Arc::from(
                b.consume(Consume { queues: vec![q()], name: "w".into(), unsettled_max: 2048 })
                    .await
                    .unwrap(),
            );
            let beat = {
                let c = Arc::clone(&c);
                tokio::spawn(async move {
                    loop {
                        tokio::time::sleep(Duration::from_millis(1500)).await;
                        c.renew().await.unwrap();
                    }
                })
            };
            let mut child =
                std::process::Command::new(me).args(["produce", &count.to_string()]).spawn().unwrap();
            let mut began = None;
            let (mut got, mut receives) = (0, 0);
            let mut set = tokio::task::JoinSet::new();
            while got < count {
                let batch = c.receive(64).await.unwrap();
                began.get_or_insert_with(Instant::now);
                got += batch.len();
                receives += 1;
                let (b, c) = (b.clone(), Arc::clone(&c));
                set.spawn(async move { finish(&b, &*c, batch).await });
                while set.len() > 4 {
                    set.join_next().await;
                }
            }
            while set.join_next().await.is_some() {}
            let took = began.unwrap().elapsed().as_secs_f64();
            println!("{:.0} tasks/s ({count} in {took:.2}s, {receives} receives)", count as f64 / took);
            child.wait().unwrap();
            beat.abort();
        }
        "echo" => {
            let b = open(&path);
            let c =
                b.consume(Consume { queues: vec![q()], name: "w".into(), unsettled_max: 64 }).await.unwrap();
            loop {
                tokio::select! {
                    batch = c.receive(64) => finish(&b, &*c, batch.unwrap()).await,
                    _ = tokio::time::sleep(Duration::from_millis(1500)) => c.renew().await.unwrap(),
                }
            }
        }
        "trips" => {
            let b = open(&path);
            let mut child = std::process::Command::new(me).args(["echo"]).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut took = Vec::new();
            for i in 0..count {
                let m = msg();
                let id = TaskId::new(m.message.properties.correlation_id.as_deref().unwrap()).unwrap();
                let began = Instant::now();
                b.publish(vec![m]).await.unwrap();
                let mut w = b.watch(&id).await.unwrap();
                w.next().await.unwrap().unwrap();
                if i > 20 {
                    took.push(began.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            took.sort();
            let at = |p: usize| took[(took.len() - 1) * p / 100];
            println!("round trip p50 {:?} p90 {:?} p99 {:?}", at(50), at(90), at(99));
            tokio::time::sleep(Duration::from_secs(5)).await;
            let cpu = |pid: u32| {
                let s = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
                let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
                f[11].parse::<u64>().unwrap() + f[12].parse::<u64>().unwrap()
            };
            let (a, began) = (cpu(child.id()), Instant::now());
            tokio::time::sleep(Duration::from_secs(10)).await;
            println!("idle cpu {:.3} %", (cpu(child.id()) - a) as f64 / began.elapsed().as_secs_f64());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        other => panic!("{other}"),
    }
}
