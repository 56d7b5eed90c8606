//! The harness of rwork's integration tests.

pub mod binary;
pub mod celery;
pub mod child;
pub mod conformance;
pub mod guests;
pub mod history;
pub mod journal;
pub mod lines;
pub mod process;
pub mod proxy;
pub mod python;
pub mod rabbitmq;
pub mod redis;
pub mod rig;
pub mod stage;
pub mod tls;
