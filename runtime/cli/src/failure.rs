//! Errors at the edge: which exit status an error means, and what the user can do about it.

use std::fmt;

/// The exit statuses, as `rwork --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// The operation failed: a task failed, nothing was found.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Broker or result backend out of reach.
    Unreachable = 3,
    /// Interrupted.
    Interrupted = 130,
}

/// An error of the command line itself. Lower case, no full stop, values in backticks.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

impl Failure {
    /// Wrong arguments or configuration (exit status 2).
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: None, source: None }
    }

    /// The operation failed (exit status 1).
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, ..Self::usage(message) }
    }

    /// What the user can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What caused it.
    #[must_use]
    pub(crate) fn because(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// The exit status that an error means: the outermost error that knows decides.
pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(known_exit).unwrap_or(Exit::Failed)
}

/// Every hint in the chain, outermost first.
pub(crate) fn hints_of(error: &anyhow::Error) -> Vec<String> {
    let mut hints: Vec<String> = error.chain().filter_map(known_hint).collect();
    // An error may repeat what its cause advises.
    hints.dedup();
    hints
}

fn known_exit(error: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    use rwork_protocol::service::Error as Service;
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return Some(failure.exit);
    }
    if let Some(rwork_plugin::Error::Directory { .. } | rwork_plugin::Error::CacheNotPrivate { .. }) =
        error.downcast_ref()
    {
        return Some(Exit::Usage);
    }
    if let Some(rwork_sandbox::Error::Setting { .. }) = error.downcast_ref() {
        return Some(Exit::Usage);
    }
    match error.downcast_ref::<Service>()? {
        Service::Url { .. } => Some(Exit::Usage),
        Service::Unreachable { .. } | Service::Refused { .. } => Some(Exit::Unreachable),
        _ => Some(Exit::Failed),
    }
}

/// The crates below know best what helps; each has a `hint` on its error.
fn known_hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.hint.clone();
    }
    if let Some(plugin) = error.downcast_ref::<rwork_plugin::Error>() {
        return plugin.hint();
    }
    if let Some(sandbox) = error.downcast_ref::<rwork_sandbox::Error>() {
        return sandbox.hint();
    }
    if let Some(client) = error.downcast_ref::<rwork_client::Error>() {
        return client.hint().map(str::to_owned);
    }
    let service = error.downcast_ref::<rwork_protocol::service::Error>()?;
    service.hint().map(str::to_owned).or_else(|| out_of_reach(service))
}

/// Only here is it known that `embedded:` is a file.
fn out_of_reach(error: &rwork_protocol::service::Error) -> Option<String> {
    match error {
        rwork_protocol::service::Error::Unreachable { url, .. }
            if url.to_string().starts_with("embedded:") =>
        {
            Some("the file must be in a directory that this user can write to".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rwork_protocol::service::{Error, RedactedUrl};

    use super::*;

    #[test]
    fn the_outermost_error_that_knows_decides() {
        let url = RedactedUrl::new("embedded:x");
        let service = || Error::Unreachable { url: url.clone(), source: "gone".into() };
        let check = |error: anyhow::Error, expect| assert_eq!(exit_of(&error), expect, "{error:#}");
        check(anyhow::anyhow!("anything"), Exit::Failed);
        check(service().into(), Exit::Unreachable);
        check(anyhow::Error::from(service()).context("while sending"), Exit::Unreachable);
        check(Failure::usage("wrong").because(service()).into(), Exit::Usage);
        check(Error::Url { url: url.clone(), expected: "a path".into() }.into(), Exit::Usage);
    }

    #[test]
    fn hints_come_from_every_level() {
        let inner =
            Error::Full { url: RedactedUrl::new("embedded:x"), why: "disk".into(), hint: "make room".into() };
        let error = anyhow::Error::from(Failure::failed("not sent").hint("try again").because(inner));
        assert_eq!(hints_of(&error), ["try again", "make room"]);
    }
}
