//! What the operator grants to one plugin. Deny by default: an empty value grants nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use globset::{Glob, GlobMatcher};

use crate::egress::AllowList;

/// What may be done in a granted directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// List and read.
    Read,
    /// Read, create, write and delete.
    ReadWrite,
}

/// One directory that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirGrant {
    /// On this machine.
    pub host: PathBuf,
    /// In the guest, for example `/data`.
    pub guest: String,
    /// What may be done in it.
    pub access: Access,
}

/// A pattern of task names, `reports.*`.
#[derive(Clone, Debug)]
pub struct TaskPattern(GlobMatcher);

impl TaskPattern {
    /// Reads a pattern; `*`, `?` and `[…]` as in file names.
    ///
    /// # Errors
    /// Not a pattern.
    pub fn new(pattern: &str) -> Result<Self, globset::Error> {
        Ok(Self(Glob::new(pattern)?.compile_matcher()))
    }
}

/// Everything granted to one plugin.
#[derive(Clone, Default)]
pub struct Grants {
    /// Directories.
    pub dirs: Vec<DirGrant>,
    /// Environment variables; also how secrets arrive. Never logged.
    pub env: Vec<(String, String)>,
    /// Where it may send HTTP requests.
    pub http: Arc<AllowList>,
    /// Which tasks it may send.
    pub submit: Vec<TaskPattern>,
}

/// Names the variables without their values, which may be secrets.
impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Grants")
            .field("dirs", &self.dirs)
            .field("env", &env)
            .field("http", &self.http)
            .field("submit", &self.submit)
            .finish()
    }
}

impl Grants {
    /// Whether the plugin may send this task. The sandbox cannot look into a signature: the host that publishes asks.
    pub fn may_submit(&self, task: &str) -> bool {
        self.submit.iter().any(|pattern| pattern.0.is_match(task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_granted_by_default() {
        let grants = Grants::default();
        assert!(grants.dirs.is_empty() && grants.env.is_empty() && grants.http.is_empty());
        assert!(!grants.may_submit("math.add"));
    }

    #[test]
    fn secrets_are_not_displayed() {
        let grants = Grants { env: vec![("TOKEN".to_owned(), "hunter2".to_owned())], ..Grants::default() };
        let shown = format!("{grants:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_task_is_granted_by_pattern() {
        let grants = Grants { submit: vec![TaskPattern::new("reports.*").unwrap()], ..Grants::default() };
        assert!(grants.may_submit("reports.daily"));
        assert!(!grants.may_submit("report.daily"));
    }
}
