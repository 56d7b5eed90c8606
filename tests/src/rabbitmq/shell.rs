//! The Erlang shell of a node: expressions in over standard input, JSON out in its log.

use std::io::Write as _;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use serde_json::Value;

use super::RabbitServer;

/// Before an answer; no log line has it.
const MARK: &str = "@rwork@";

/// Erlang's terms as JSON can say them: names of resources, tables of AMQP and property lists as objects.
const PLAIN: &str = "Plain = fun Plain(Term) -> case Term of \
    undefined -> null; \
    {resource, _, _, Name} -> Name; \
    [{Key, Type, _} | _] when is_binary(Key), is_atom(Type) -> \
        maps:from_list([{K, Plain(V)} || {K, _, V} <- Term]); \
    [{Key, _} | _] when is_atom(Key) -> maps:from_list([{atom_to_binary(K), Plain(V)} || {K, V} <- Term]); \
    _ when is_list(Term) -> [Plain(Inner) || Inner <- Term]; \
    _ when is_pid(Term) -> list_to_binary(pid_to_list(Term)); \
    _ when is_tuple(Term) -> [Plain(Inner) || Inner <- tuple_to_list(Term)]; \
    _ when is_boolean(Term) -> Term; \
    _ when is_atom(Term) -> atom_to_binary(Term); \
    _ -> Term end end.";

/// The writing end.
#[derive(Debug)]
pub(super) struct Shell {
    /// Held while a line is written.
    stdin: Mutex<ChildStdin>,
}

impl Shell {
    pub(super) fn new(stdin: ChildStdin) -> Self {
        Self { stdin: Mutex::new(stdin) }
    }

    /// Says once what every answer needs.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        self.write(PLAIN)
    }

    /// Has an expression evaluated beside others, and its value written behind a mark.
    fn ask(&self, id: u64, expression: &str) -> anyhow::Result<()> {
        self.write(&format!(
            "spawn(fun() -> {{How, What}} = try {{ok, begin {expression} end}} catch Class:Reason -> \
             {{failed, iolist_to_binary(io_lib:format(\"~0p: ~0p\", [Class, Reason]))}} end, \
             io:format(\"~n{MARK}{id} ~ts ~ts~n\", [How, rabbit_json:encode(Plain(What))]) end)."
        ))
    }

    fn write(&self, line: &str) -> anyhow::Result<()> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(stdin, "{line}").context("the server's shell is gone")
    }
}

impl RabbitServer {
    /// Evaluates an Erlang expression in the server, or several with commas between. The value comes as JSON.
    ///
    /// # Errors
    /// When the server does not run, ends, or the expression fails.
    ///
    /// # Cancel safety
    /// What was asked for is done all the same.
    pub async fn eval(&self, expression: &str) -> anyhow::Result<Value> {
        let (first, mark) = self.ask(expression)?;
        let line = self.log.find(first, |line| line.contains(&mark)).await?;
        answer(expression, &line, &mark)
    }

    /// [`RabbitServer::eval`] for code that is not async.
    ///
    /// # Errors
    /// As [`RabbitServer::eval`].
    pub fn eval_blocking(&self, expression: &str) -> anyhow::Result<Value> {
        let (first, mark) = self.ask(expression)?;
        let line = self.log.find_blocking(first, |line| line.contains(&mark))?;
        answer(expression, &line, &mark)
    }

    /// From where in the log on the answer will be, and what is before it.
    fn ask(&self, expression: &str) -> anyhow::Result<(usize, String)> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let first = self.log.count();
        let running = self.running();
        running.as_ref().context("the server does not run")?.shell.ask(id, expression)?;
        Ok((first, format!("{MARK}{id} ")))
    }
}

fn answer(expression: &str, line: &str, mark: &str) -> anyhow::Result<Value> {
    let (_, said) = line.split_once(mark).context("a line without its mark")?;
    let (how, what) = said.split_once(' ').context("an answer without a value")?;
    let value = serde_json::from_str(what).with_context(|| format!("`{expression}` is `{what}`"))?;
    anyhow::ensure!(how == "ok", "`{expression}` failed: {value}");
    Ok(value)
}
