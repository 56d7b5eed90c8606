//! A Lua script and one call of it.

use std::sync::OnceLock;

use redis::{Cmd, ToRedisArgs};

/// A script, made once and called by its digest.
#[derive(Debug)]
pub(crate) struct Script {
    code: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    pub(crate) const fn new(code: &'static str) -> Self {
        Self { code, digest: OnceLock::new() }
    }

    /// A call with these keys; arguments are added to it.
    pub(crate) fn call(&self, keys: &[impl ToRedisArgs]) -> Call<'_> {
        let digest = self.digest.get_or_init(|| redis::Script::new(self.code).get_hash().to_owned());
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(digest).arg(keys.len());
        for key in keys {
            cmd.arg(key);
        }
        Call { script: self, cmd }
    }

    /// Teaches a server the script.
    pub(super) fn load(&self) -> Cmd {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(self.code);
        cmd
    }
}

/// A script with its keys and arguments.
pub(crate) struct Call<'a> {
    pub(super) script: &'a Script,
    pub(super) cmd: Cmd,
}

impl Call<'_> {
    /// Adds one argument, or all of a slice.
    pub(crate) fn arg(&mut self, value: impl ToRedisArgs) -> &mut Self {
        self.cmd.arg(value);
        self
    }
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Arguments are messages and records: not for logs.
        f.debug_struct("Call").field("script", &self.script.digest).finish_non_exhaustive()
    }
}
