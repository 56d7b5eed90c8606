//! The RabbitMQ of a page: what its examples call `localhost:5672` is a virtual host that only this page has.

use rwork_tests::rabbitmq::RabbitServer;

use super::page::Page;

/// Where RabbitMQ is by default, and so where pages say that it is.
const SHOWN: &str = "localhost:5672";

/// Where it really is, if the page speaks of one: server and virtual host.
pub(super) struct RabbitMq(Option<String>);

impl RabbitMq {
    pub(super) fn of(page: &Page) -> Self {
        let place = || {
            let server = RabbitServer::shared();
            let vhost = server.fresh_vhost_blocking().unwrap_or_else(|error| panic!("{error:#}"));
            format!("127.0.0.1:{}/{vhost}", server.port())
        };
        Self(page.text.contains(SHOWN).then(place))
    }

    /// A text of the page with the server's real place in it.
    pub(super) fn to_real(&self, text: &str) -> String {
        self.0.as_ref().map_or_else(|| text.to_owned(), |place| text.replace(SHOWN, place))
    }

    /// What a command printed, with the place that the page shows.
    pub(super) fn to_shown(&self, printed: &str) -> String {
        self.0.as_ref().map_or_else(|| printed.to_owned(), |place| printed.replace(place, SHOWN))
    }
}
