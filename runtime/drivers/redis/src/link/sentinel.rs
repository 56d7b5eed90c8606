//! Asking the sentinels where the master is, each time a connection is made.

use std::time::Duration;

use redis::Value;
use rwork_net::{Deadline, Failure, ServerList};
use rwork_protocol::service::RedactedUrl;

use super::connect::log_in;
use super::target::ConnectOptions;
use crate::options::SentinelOptions;
use crate::url::{Address, Endpoint, Login};

/// For all sentinels: what is left of the time is the master's.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The sentinels of one master.
#[derive(Debug)]
pub(super) struct Sentinels {
    sentinels: ServerList<Endpoint>,
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
        Self { sentinels: ServerList::new(url.clone(), sentinels, Endpoint::url), name, login, url }
    }

    /// The master's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The master, from the first sentinel that knows it.
    pub(super) async fn master(
        &self,
        options: &ConnectOptions,
        deadline: Deadline,
    ) -> Result<Endpoint, Failure> {
        let ask = |sentinel: Endpoint, deadline| async move { self.ask(&sentinel, options, deadline).await };
        let address = self.sentinels.connect(deadline.at_most(ANSWER_TIMEOUT), ask).await?;
        Ok(Endpoint { address, login: self.login.clone() })
    }

    async fn ask(
        &self,
        sentinel: &Endpoint,
        options: &ConnectOptions,
        deadline: Deadline,
    ) -> Result<Address, Failure> {
        let mut wire = log_in(sentinel, options, None, deadline).await?;
        let url = sentinel.url();
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.name);
        let answer = wire.connection.send_packed_command(&question);
        let late = |_| Failure::unreachable(&url, "this sentinel does not answer", "");
        let answer = deadline.bound(answer, late).await?.and_then(Value::extract_error);
        let answer = answer.map_err(|error| crate::error::unwelcome(&url, &error))?;
        match redis::from_redis_value::<Option<(String, u16)>>(answer) {
            Ok(Some((host, port))) => Ok(Address::Tcp(host, port)),
            Ok(None) => Err(Failure::refused(
                &self.url,
                format!("no sentinel knows a master `{}`", self.name),
                "check the transport option `master_name`: `SENTINEL MASTERS` at a sentinel lists the names",
            )),
            Err(_) => {
                let hint = "check the URL: sentinels usually listen on port 26379";
                Err(Failure::refused(&url, "it is no sentinel", hint))
            }
        }
    }
}
