//! One step with all that an outcome causes: records, follow-ups and the end of the delivery.

use rwork_backend::Store;

use crate::Publish;
use crate::delivery::{Receipt, Settlement};

/// Commits of one call, with their number.
///
/// Numbers of a consumer grow. The store keeps the last number with the answer to each commit: the same number again gets
/// the same answers and changes nothing, so that a batch whose answer was lost is sent again as it was; a lower number is
/// refused with [`crate::Error::LeaseLost`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// At least 1, one more than the batch before.
    pub number: u64,
    /// In order. [`BATCH_BYTES_MAX`] together, or a single larger one.
    pub commits: Vec<Commit>,
}

/// Bytes of records, follow-ups and kept messages in one batch. A larger commit goes alone.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Everything that one outcome causes: all of it, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Records to be stored; empty unless [`crate::Capabilities::commits_records`].
    pub records: Vec<Store>,
    /// Messages to be published.
    pub publish: Vec<Publish>,
    /// End of the delivery, which also fences the rest.
    pub ending: Ending,
}

/// Effect of a commit on its delivery. All but [`Ending::Unfenced`] are fenced: where the delivery is not ours, nothing
/// is changed and the answer is [`Committed::Lost`]; only records of a SUCCESS are stored, since those are final.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every ending settles: a box would be an allocation for each"
)]
pub enum Ending {
    /// Ends it.
    Settle(Settlement),
    /// Writes down that a redelivered message starts, before it does: its count becomes that of the delivery.
    Starting(Receipt),
    /// Leaves it held: a state between, or what its task submits while it runs.
    Holds(Receipt),
    /// No delivery is held: an early ack, or a store that has lost everything. Its number alone keeps it from being applied
    /// twice.
    Unfenced,
}

impl Ending {
    /// The delivery that must be ours.
    pub fn receipt(&self) -> Option<Receipt> {
        match self {
            Self::Settle(settlement) => Some(settlement.receipt),
            Self::Starting(receipt) | Self::Holds(receipt) => Some(*receipt),
            Self::Unfenced => None,
        }
    }
}

/// The answer to one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// All of it is done.
    Done,
    /// The delivery is not ours. Nothing was changed; a SUCCESS was recorded.
    Lost,
    /// A part can never be done. Nothing was changed.
    Refused(Refusal),
}

/// Why a commit was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Refused part.
    pub part: Part,
    /// One line for people.
    pub why: String,
}

/// A part of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A record.
    Record,
    /// A message to be published.
    FollowUp,
    /// The end of the delivery.
    Settlement,
}

impl Commit {
    /// Bytes that it carries.
    pub fn size(&self) -> usize {
        let records: usize = self.records.iter().map(Store::size).sum();
        let published: usize = self.publish.iter().map(|publish| publish.message.size()).sum();
        let kept = match &self.ending {
            Ending::Settle(settlement) => {
                settlement.message.as_ref().map_or(0, rwork_protocol::Message::size)
            }
            _ => 0,
        };
        records + published + kept
    }
}
