//! Broker and result backend in one durable SQLite file.
