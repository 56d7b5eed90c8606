//! The Redis of a page: what its examples call `localhost:6379` is a server that only this page has.

use rwork_tests::redis::{Options, RedisServer};

use super::page::Page;

/// Where Redis is by default, and so where pages say that it is.
const SHOWN: &str = "localhost:6379";

/// A server, if the page speaks of one.
pub(super) struct Redis(Option<RedisServer>);

impl Redis {
    pub(super) fn of(page: &Page) -> Self {
        let start = || RedisServer::start(Options::default()).unwrap_or_else(|error| panic!("{error:#}"));
        Self(page.text.contains(SHOWN).then(start))
    }

    /// A text of the page with the server's real place in it.
    pub(super) fn to_real(&self, text: &str) -> String {
        match &self.0 {
            Some(server) => text.replace(SHOWN, &address(server)),
            None => text.to_owned(),
        }
    }

    /// What a command printed, with the place that the page shows.
    pub(super) fn to_shown(&self, printed: &str) -> String {
        match &self.0 {
            Some(server) => printed.replace(&address(server), SHOWN),
            None => printed.to_owned(),
        }
    }
}

fn address(server: &RedisServer) -> String {
    format!("127.0.0.1:{}", server.port())
}
