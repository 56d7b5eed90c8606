//! Fate of one message that is published.

use lapin::Confirmation;
use lapin::message::BasicReturnMessage;
use rwork_protocol::service::Error;

use super::{ACT, Parcel};
use crate::delayed;
use crate::handle::Inner;

/// Larger messages go alone: the server closes the channel of one that is beyond its own `max_message_size`.
const TOGETHER_BYTES_MAX: usize = 1 << 20;

/// One message of a batch.
#[derive(Debug)]
pub(crate) enum Fate {
    /// To be published.
    Ready(Parcel),
    /// On its way. Stays so when its answer was lost: the server may have it.
    Unknown,
    /// Confirmed.
    Kept,
    /// The server found no queue for it.
    Returned(Parcel),
    /// Not accepted. If the error is retryable, another attempt may be.
    Refused(Error),
}

impl Fate {
    /// A message that was made ready, or why it could not be.
    ///
    /// # Errors
    /// A lost connection says nothing about a message.
    pub(crate) fn prepared(parcel: Result<Parcel, Error>) -> Result<Self, Error> {
        match parcel {
            Ok(parcel) => Ok(Self::Ready(parcel)),
            Err(error @ Error::Unreachable { .. }) => Err(error),
            Err(error) => Ok(Self::Refused(error)),
        }
    }

    pub(super) fn answered(inner: &Inner, confirmation: Confirmation) -> Self {
        let is_refused = matches!(&confirmation, Confirmation::Nack(None));
        match confirmation.take_message() {
            Some(message) => Self::Returned(returned(message)),
            None if is_refused => Self::Refused(not_kept(inner)),
            None => Self::Kept,
        }
    }

    /// Takes the message to be published.
    pub(super) fn depart(&mut self) -> Option<Parcel> {
        match std::mem::replace(self, Self::Unknown) {
            Self::Ready(parcel) => Some(parcel),
            other => {
                *self = other;
                None
            }
        }
    }

    /// The server may close the channel with it, and nobody can tell then what became of others there.
    pub(super) fn is_risky(&self) -> bool {
        let Self::Ready(Parcel { exchange, properties, body, .. }) = self else { return false };
        let is_foreign = !exchange.as_str().is_empty() && !delayed::is_entrance(exchange);
        let expiration = properties.expiration().as_ref();
        let expires_oddly = expiration.is_some_and(|time| time.as_str().parse::<u32>().is_err());
        is_foreign || expires_oddly || body.len() > TOGETHER_BYTES_MAX
    }

    /// It enters delayed delivery.
    pub(super) fn is_delayed(&self) -> bool {
        matches!(self, Self::Ready(parcel) if delayed::is_entrance(&parcel.exchange))
    }

    /// The end of it, after which nothing is under way.
    pub(super) fn outcome(self) -> Result<(), Error> {
        match self {
            Self::Kept => Ok(()),
            Self::Refused(error) => Err(error),
            Self::Ready(_) | Self::Unknown | Self::Returned(_) => Err(unanswered()),
        }
    }
}

fn returned(message: BasicReturnMessage) -> Parcel {
    let delivery = message.delivery;
    Parcel {
        exchange: delivery.exchange,
        routing_key: delivery.routing_key,
        properties: delivery.properties,
        body: delivery.data.into(),
    }
}

fn not_kept(inner: &Inner) -> Error {
    Error::Act {
        act: format!("{ACT} at {}", inner.publishing.url()),
        retryable: true,
        source:
            "the server did not keep a message: a queue has its `x-max-length`, or a quorum queue no majority"
                .into(),
    }
}

fn unanswered() -> Error {
    Error::Act { act: ACT.to_owned(), retryable: true, source: "the server did not answer".into() }
}
