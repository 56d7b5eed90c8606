//! Deliveries that one call of `receive` takes.

use rwork_broker::{Delivery, Room};

/// Deliveries, until there is no more room for them.
#[derive(Debug)]
pub(crate) struct Basket {
    pub(super) deliveries: Vec<Delivery>,
    room: Room,
    bytes: usize,
}

impl Basket {
    pub(super) fn new(room: Room) -> Self {
        Self { deliveries: Vec::new(), room, bytes: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.deliveries.len() >= self.room.messages || self.bytes >= self.room.bytes && self.bytes > 0
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        self.bytes += delivery.message.size();
        self.deliveries.push(delivery);
    }
}

#[cfg(test)]
mod tests {
    use rwork_broker::Receipt;
    use rwork_protocol::{Message, QueueName};

    use super::*;

    fn filled(messages: usize, bytes: usize) -> usize {
        let mut basket = Basket::new(Room { messages, bytes });
        while !basket.is_full() {
            basket.push(Delivery {
                message: Message { body: vec![b' '; 100].into(), ..Message::default() },
                queue: QueueName::new("q").unwrap(),
                redelivered: false,
                delivery_count: 1,
                receipt: Receipt(1),
            });
        }
        basket.deliveries.len()
    }

    #[test]
    fn the_last_delivery_may_go_beyond_the_bytes() {
        let each = Message { body: vec![b' '; 100].into(), ..Message::default() }.size();
        for (messages, bytes, expect) in
            [(0, 1000, 0), (3, usize::MAX, 3), (9, 1, 1), (9, 0, 1), (9, each, 1), (9, each + 1, 2)]
        {
            assert_eq!(filled(messages, bytes), expect, "{messages} {bytes}");
        }
    }
}
