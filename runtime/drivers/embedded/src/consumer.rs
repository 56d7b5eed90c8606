//! The consumer trait on the file.

use std::sync::Arc;

use async_trait::async_trait;
use rwork_broker::{Consumer, Delivery, Error, Settled, Settlement};

use crate::acts::session::{Close, Renew};
use crate::acts::settle::Settle;
use crate::error;
use crate::handle::Inner;
use crate::seat::Mailbox;

/// A consumer. Dropped without `close` it is dead to the others only when its lease runs out, as after a crash.
#[derive(Debug)]
pub(crate) struct Seated {
    inner: Arc<Inner>,
    owner: i64,
    name: String,
    mailbox: Arc<Mailbox>,
}

impl Seated {
    pub(crate) fn new(inner: Arc<Inner>, owner: i64, name: String, mailbox: Arc<Mailbox>) -> Self {
        Self { inner, owner, name, mailbox }
    }
}

#[async_trait]
impl Consumer for Seated {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let _withdraw = Withdraw(&self.mailbox);
        loop {
            if let Some(answer) = self.mailbox.take_or_ask(max) {
                return answer;
            }
            self.inner.writes.ring();
            if self.inner.writes.is_closed() {
                return Err(error::closed(&self.inner.url));
            }
            // `notify_one` keeps one permit, so that an arrival between the look and this wait is not missed.
            self.mailbox.arrived.notified().await;
        }
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Result<Vec<Settled>, Error> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.inner.act(Settle { owner: self.owner, batch }).await
    }

    async fn renew(&self) -> Result<(), Error> {
        let renew = Renew { owner: self.owner, name: self.name.clone(), lease: self.inner.options.lease };
        if self.inner.act(renew).await? { Ok(()) } else { Err(Error::LeaseLost { name: self.name.clone() }) }
    }

    async fn close(&self) -> Result<(), Error> {
        self.inner.act(Close { owner: self.owner }).await
    }
}

/// Takes the wish back when the call ends, cancelled or not.
struct Withdraw<'a>(&'a Mailbox);

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        self.0.ask_no_more();
    }
}
