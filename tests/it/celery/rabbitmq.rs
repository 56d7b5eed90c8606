//! Checklist C and what else is RabbitMQ's own: declarations, acknowledgements, delayed delivery, outages, rpc results.

mod delivery;
mod outages;
mod patience;
mod rpc;
mod topology;
