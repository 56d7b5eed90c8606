//! The table of docs/guarantees.md, word for word; a test compares them.

use super::Column;

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// The promise.
    pub(super) what: &'static str,
    /// Keeping of the promise by each column, in the order of [`Column`].
    by_column: [&'static str; 5],
}

impl Promise {
    /// Keeping of the promise by one column.
    pub(super) fn kept(&self, column: Column) -> &'static str {
        let [embedded, redis, elsewhere, rabbitmq, rpc] = self.by_column;
        match column {
            Column::Embedded => embedded,
            Column::Redis => redis,
            Column::RedisElsewhere => elsewhere,
            Column::RabbitMq => rabbitmq,
            Column::RabbitMqRpc => rpc,
        }
    }
}

const fn all(what: &'static str, kept: &'static str) -> Promise {
    Promise { what, by_column: [kept; 5] }
}

/// Columns with Redis as their broker are alike, and so are those with RabbitMQ.
const fn by_broker(
    what: &'static str,
    embedded: &'static str,
    redis: &'static str,
    rabbitmq: &'static str,
) -> Promise {
    Promise { what, by_column: [embedded, redis, redis, rabbitmq, rabbitmq] }
}

/// Every row.
pub(super) const PROMISES: [Promise; 13] = [
    all("an accepted task is lost", "never"),
    by_broker(
        "while a task runs, the connection is lost",
        "there is none",
        "it runs on, and its result is stored",
        "it is ended, and runs again",
    ),
    by_broker(
        "a task starts a second time",
        "when its worker died",
        "when its worker died, or was stopped or cut off for a lease while another was not",
        "when its worker died or lost its connection",
    ),
    by_broker(
        "a chain's next step, a retry is sent twice",
        "never",
        "never",
        "when the connection is lost between its confirmation and the ack",
    ),
    Promise {
        what: "result, next steps and ack of a task",
        by_column: [
            "are one step",
            "are one step",
            "are two: the result, then the rest",
            "are three: the result, the next steps, the ack",
            "are three: the result, the next steps, the ack",
        ],
    },
    by_broker(
        "a failure or state of an earlier run replaces that of a later one",
        "never",
        "never",
        "when the connection was lost while it was stored",
    ),
    by_broker("after its worker died, a task starts anew", "within seconds", "within two leases", "at once"),
    by_broker(
        "a task that kills its worker is given up",
        "after one death more than `task_deliveries_max`",
        "after one death more than `task_deliveries_max`",
        "after `task_deliveries_max` deaths",
    ),
    by_broker(
        "a task that has not begun when its worker dies",
        "counts as never started",
        "counts as never started",
        "counts as started",
    ),
    all("a next step that the broker refuses", "concerns its own task alone"),
    by_broker(
        "a worker is told to stop",
        "what has not begun goes back, unmarked",
        "what has not begun goes back, unmarked",
        "what has not begun goes back, marked redelivered",
    ),
    by_broker(
        "there is no room for more messages",
        "producers are told, and what is there is worked off",
        "producers are told, and what is there is worked off",
        "producers wait, and what is there is worked off",
    ),
    by_broker(
        "the server loses its data",
        "a deleted file is noticed within seconds",
        "what runs ends, and its result is stored",
        "what runs of a deleted queue ends, and the queue is made again",
    ),
];
