//! Putting messages into queues.

use rusqlite::params;
use rwork_protocol::{Message, QueueName, Timestamp};

use super::{Act, Turn};
use crate::row;

/// A message and where it goes.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) queue: QueueName,
    pub(crate) message: Message,
    pub(crate) not_before: Option<Timestamp>,
}

/// Inserts a batch, whole or not at all.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) batch: Vec<Post>,
}

impl Act for Publish {
    type Answer = ();
    const NAME: &'static str = "publish messages";
    const DRAINS: bool = false;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<()> {
        insert(turn, &self.batch)
    }
}

/// Inserts messages, in order.
pub(crate) fn insert(turn: &mut Turn<'_>, posts: &[Post]) -> rusqlite::Result<()> {
    let mut last = None;
    let mut insert = turn.prepare(concat!(
        "INSERT INTO msg(queue, prio, eta, ",
        row::columns!(),
        ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
    ))?;
    for post in posts {
        if last != Some(&post.queue) {
            declare(turn, &post.queue)?;
            last = Some(&post.queue);
        }
        let eta = post.not_before.filter(|eta| *eta > turn.now).map(Timestamp::as_micros);
        insert.raw_bind_parameter(1, post.queue.as_str())?;
        insert.raw_bind_parameter(2, row::rank(&post.message))?;
        insert.raw_bind_parameter(3, eta)?;
        row::bind(&mut insert, 4, &post.message)?;
        insert.raw_execute()?;
    }
    turn.rings.messages |= !posts.is_empty();
    Ok(())
}

/// Makes a queue known. A queue that was once named stays, empty or not.
pub(crate) fn declare(turn: &Turn<'_>, queue: &QueueName) -> rusqlite::Result<()> {
    turn.prepare("INSERT OR IGNORE INTO queue(name) VALUES(?1)")?.execute(params![queue.as_str()])?;
    Ok(())
}
