//! Asking the sentinels where the master is, each time a connection is made.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::Value;
use rwork_protocol::service::RedactedUrl;
use tokio::time::timeout;

use super::connect::{Door, knock};
use crate::options::SentinelOptions;
use crate::url::{Address, Endpoint, Login};
use rwork_tls::Failure;

/// For one sentinel; another one knows as much.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The sentinels of one master.
#[derive(Debug)]
pub(super) struct Sentinels {
    sentinels: Vec<Endpoint>,
    /// Which one is asked first: the one that answered last.
    first: AtomicUsize,
    name: String,
    /// How to enter the master.
    login: Login,
    /// All of them, for people.
    url: RedactedUrl,
}

impl Sentinels {
    pub(super) fn new(
        addresses: Vec<Address>,
        name: String,
        options: &SentinelOptions,
        login: Login,
        url: RedactedUrl,
    ) -> Self {
        let SentinelOptions { username, password, tls } = options.clone();
        let theirs = Login { username, password, db: 0, tls };
        let sentinel = |address| Endpoint { address, login: theirs.clone() };
        let sentinels = addresses.into_iter().map(sentinel).collect();
        Self { sentinels, first: AtomicUsize::new(0), name, login, url }
    }

    /// The master's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The master, from the first sentinel that knows it.
    pub(super) async fn master(&self, door: &Door) -> Result<Endpoint, Failure> {
        let door = Door { connect_timeout: door.connect_timeout.min(ANSWER_TIMEOUT), ..door.clone() };
        let begin = self.first.load(Ordering::Relaxed);
        let mut reached = false;
        let mut told: Option<Failure> = None;
        let count = self.sentinels.len();
        for (place, sentinel) in self.sentinels.iter().enumerate().cycle().skip(begin).take(count) {
            match self.ask(sentinel, &door).await {
                Ok(Some(address)) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok(Endpoint { address, login: self.login.clone() });
                }
                Ok(None) => reached = true,
                Err(failure) => told = Some(Failure::or_worse(told, failure)),
            }
        }
        match told {
            Some(failure) if !reached => Err(failure),
            _ => Err(Failure::refused(
                &self.url,
                format!("no sentinel knows a master `{}`", self.name),
                "check the transport option `master_name`: `SENTINEL MASTERS` at a sentinel lists the names",
            )),
        }
    }

    async fn ask(&self, sentinel: &Endpoint, door: &Door) -> Result<Option<Address>, Failure> {
        let mut parts = knock(sentinel, door, None).await?;
        let url = sentinel.url();
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.name);
        let answer = timeout(ANSWER_TIMEOUT, parts.connection.send_packed_command(&question)).await;
        let answer = answer.map_err(|_| Failure::unreachable(&url, "this sentinel does not answer", ""))?;
        let answer = answer.and_then(Value::extract_error);
        read_address(&answer.map_err(|error| crate::error::unwelcome(&url, &error))?).map_or(
            Ok(None),
            |found| {
                let hint = "check the URL: sentinels usually listen on port 26379";
                found.map(Some).ok_or_else(|| Failure::refused(&url, "it is no sentinel", hint))
            },
        )
    }
}

/// `None`: the name is not known. `Some(None)`: no address at all.
fn read_address(answer: &Value) -> Option<Option<Address>> {
    if *answer == Value::Nil {
        return None;
    }
    let text = |value: &Value| redis::from_redis_value_ref::<String>(value).ok();
    let address = match answer.as_sequence() {
        Some([host, port]) => {
            text(host).zip(text(port)).and_then(|(host, port)| Some(Address::Tcp(host, port.parse().ok()?)))
        }
        _ => None,
    };
    Some(address)
}
