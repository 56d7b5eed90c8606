//! Keeps the subscriptions: the only one who subscribes and unsubscribes, so that the two never cross.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use rwork_backend::Error;
use rwork_net::{Backoff, chain};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::Ask;
use super::table::Table;
use crate::link::{Link, Pushes, Target, Wire};

/// Channels that are subscribed and read by one pipeline: a few hundred keep the server's pause short.
const PIPELINE_MAX: usize = 256;
/// A line that is quiet so long is tried: what nobody publishes can't tell that it is dead.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Keeper {
    link: Link,
    commands: Link,
    table: Arc<Table>,
    asked: mpsc::Receiver<Ask>,
    /// Rings when the server has closed the connection.
    lost: Arc<Notify>,
    /// The connection that the subscriptions live on.
    wire: Option<Arc<Wire>>,
    /// When to subscribe everything again.
    again_at: Option<Instant>,
    /// Since when nothing can be heard, and attempts since then.
    outage: Option<(Instant, u32)>,
}

impl Keeper {
    pub(super) fn new(
        target: &Arc<Target>,
        commands: Link,
        table: Arc<Table>,
        asked: mpsc::Receiver<Ask>,
    ) -> Self {
        let lost = Arc::new(Notify::new());
        let (heard, rings) = (Arc::clone(&table), Arc::clone(&lost));
        let pushes: Pushes = Arc::new(move |info| hear(&heard, &rings, info));
        let link = Link::with_pushes(Arc::clone(target), pushes);
        Self { link, commands, table, asked, lost, wire: None, again_at: None, outage: None }
    }

    /// Until the handle is dropped.
    pub(super) async fn run(mut self) {
        let mut asks = Vec::new();
        loop {
            let again_at = self.again_at;
            tokio::select! {
                count = self.asked.recv_many(&mut asks, PIPELINE_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.admit(&mut asks).await;
                }
                () = self.table.deserted.notified() => self.unsubscribe().await,
                () = self.lost.notified() => self.again_at = Some(Instant::now()),
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => self.repair().await,
                () = sleep(PROBE_INTERVAL) => self.probe().await,
            }
        }
    }

    async fn admit(&mut self, asks: &mut Vec<Ask>) {
        // Whoever has gone meanwhile has left its channel deserted.
        asks.retain(|ask| !ask.reply.is_closed());
        let mut channels: Vec<String> = asks.iter().map(|ask| ask.channel.clone()).collect();
        channels.sort_unstable();
        channels.dedup();
        let mut outcome = self.subscribe(&channels).await;
        for ask in asks.drain(..) {
            let told = match &outcome {
                Ok(()) => Ok(()),
                Err(Error::Refused { url, why, hint }) => {
                    Err(Error::Refused { url: url.clone(), why: why.clone(), hint: hint.clone() })
                }
                Err(error) => {
                    Err(Error::Unreachable { url: self.link.url().clone(), source: chain(error).into() })
                }
            };
            // The first is told the error itself, the others what it says.
            let _ = ask.reply.send(std::mem::replace(&mut outcome, told));
        }
    }

    /// Subscribes and then reads each of these channels.
    async fn subscribe(&mut self, channels: &[String]) -> Result<(), Error> {
        let wire = self.link.wire().await?;
        if !self.wire.as_ref().is_some_and(|known| Arc::ptr_eq(known, &wire)) {
            // Whatever was subscribed on another connection is to be subscribed on this one.
            self.again_at = Some(Instant::now());
            self.wire = Some(Arc::clone(&wire));
        }
        for channels in channels.chunks(PIPELINE_MAX) {
            let mut pipe = redis::pipe();
            for channel in channels {
                pipe.cmd("SUBSCRIBE").arg(channel);
            }
            for channel in channels {
                pipe.cmd("EXISTS").arg(channel);
            }
            let answers = self.link.pipeline_on(&wire, "watch results", &pipe).await?;
            let stand = channels.iter().zip(answers.iter().skip(channels.len()));
            let stand: Vec<&String> =
                stand.filter(|(_, exists)| **exists == Value::Int(1)).map(|(channel, _)| channel).collect();
            self.read(&stand).await?;
        }
        Ok(())
    }

    /// Reads what stands there, now that nothing later can be missed.
    async fn read(&self, channels: &[&String]) -> Result<(), Error> {
        if channels.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        for channel in channels {
            pipe.cmd("GET").arg(channel);
        }
        let answers = self.commands.pipeline("read results", &pipe).await?;
        for (channel, answer) in channels.iter().zip(answers) {
            if let Value::BulkString(record) = answer {
                self.table.read(channel, &record.into());
            }
        }
        Ok(())
    }

    /// Subscribes everything again after the connection was lost, and reads what was missed.
    async fn repair(&mut self) {
        self.again_at = None;
        let channels = self.table.listen();
        if channels.is_empty() {
            self.outage = None;
            return;
        }
        let outcome = self.subscribe(&channels).await;
        match (outcome, self.outage) {
            (Ok(()), Some((since, _))) => {
                (self.again_at, self.outage) = (None, None);
                let outage_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(url = %self.link.url(), outage_ms, "can watch results again");
            }
            (Ok(()), None) => self.again_at = None,
            (Err(error), outage) => {
                let (since, attempts) = outage.unwrap_or_else(|| (Instant::now(), 0));
                if attempts == 0 {
                    let error = chain(&error);
                    tracing::warn!(url = %self.link.url(), %error, "can't watch results: trying again until it works");
                }
                self.outage = Some((since, attempts.saturating_add(1)));
                self.again_at = Some(Instant::now() + Backoff::default().pause(attempts));
            }
        }
    }

    async fn unsubscribe(&mut self) {
        let deserted = self.table.take_deserted();
        let Some(wire) = self.wire.as_ref().filter(|wire| !wire.is_broken()) else { return };
        for channels in deserted.chunks(PIPELINE_MAX) {
            let mut pipe = redis::pipe();
            for channel in channels {
                pipe.cmd("UNSUBSCRIBE").arg(channel);
            }
            if let Err(error) = self.link.pipeline_on(wire, "stop watching results", &pipe).await {
                // A connection that is lost has no subscriptions either.
                tracing::debug!(url = %self.link.url(), error = %chain(&error), "failed to unsubscribe");
            }
        }
    }

    async fn probe(&mut self) {
        let Some(wire) = self.wire.as_ref().filter(|_| !self.table.is_empty()) else { return };
        let mut pipe = redis::pipe();
        pipe.cmd("PING");
        if self.link.pipeline_on(wire, "watch results", &pipe).await.is_err() && wire.is_broken() {
            self.again_at = self.again_at.or_else(|| Some(Instant::now()));
        }
    }
}

fn hear(table: &Table, lost: &Notify, info: PushInfo) {
    match (info.kind, <[Value; 2]>::try_from(info.data)) {
        (PushKind::Message, Ok([Value::BulkString(channel), Value::BulkString(record)])) => {
            if let Ok(channel) = std::str::from_utf8(&channel) {
                table.hear(channel, &Bytes::from(record));
            }
        }
        (PushKind::Disconnection, _) => lost.notify_one(),
        _ => {}
    }
}
