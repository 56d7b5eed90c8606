//! The arguments of `rwork run`: those that set a setting, and those of Celery that are accepted, mapped or refused.

use std::path::PathBuf;
use std::thread::available_parallelism;

use crate::config::Flag;
use crate::failure::Failure;

const EXAMPLES: &str = "\
The first SIGINT or SIGTERM takes no more messages and lets running tasks end; the second stops
them and gives their messages back; SIGQUIT does both at once.

Examples:
  rwork run --plugins ./plugins
  rwork run -Q reports,mail -c 8 -n worker1@%h
  rwork run --drain          work off what waits, then leave";

/// Arguments of `rwork run`.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory of the plugins [default: ./plugins]
    #[arg(long, value_name = "DIR")]
    pub(super) plugins: Option<PathBuf>,
    /// Queues to take from, with commas between them [default: celery]
    #[arg(short = 'Q', long, value_name = "A,B")]
    pub(super) queues: Option<String>,
    /// Tasks that may run on a CPU at once [default: the cores]
    #[arg(short = 'c', long, value_name = "N")]
    pub(super) concurrency: Option<usize>,
    /// Tasks that may exist at once, waiting ones too [default: concurrency × 64]
    #[arg(long, value_name = "N")]
    pub(super) max_in_flight: Option<usize>,
    /// Node name; %h host with domain, %n host, %d domain; `rwork@%h` by default
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(super) hostname: Option<String>,
    /// Messages held unstarted for each CPU slot [default: 4]
    #[arg(long, value_name = "N")]
    pub(super) prefetch_multiplier: Option<usize>,
    /// Hard time limit of tasks that have none of their own, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub(super) time_limit: Option<String>,
    /// Soft time limit of tasks that have none of their own, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub(super) soft_time_limit: Option<String>,
    /// How long running tasks may go on after the first signal [default: as long as they take]
    #[arg(long, value_name = "SECONDS")]
    pub(super) shutdown_timeout: Option<String>,
    /// Directory for compiled plugins [default: the user's cache directory]
    #[arg(long, value_name = "DIR")]
    pub(super) plugins_cache: Option<PathBuf>,
    /// Leave when nothing is ready and nothing runs any more; messages that are not due yet stay
    #[arg(long)]
    pub(super) drain: bool,
    /// Delete the waiting messages of the queues first
    #[arg(long)]
    pub(super) purge: bool,
    /// Celery's pool; rwork has one, and says what it made of the name
    #[arg(short = 'P', long, value_name = "POOL")]
    pub(super) pool: Option<Pool>,
    /// Celery's task events; not in this version
    #[arg(short = 'E', long)]
    pub(super) task_events: bool,
    /// Celery's embedded scheduler; not in this version
    #[arg(short = 'B', long)]
    pub(super) beat: bool,
}

/// Celery's pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Pool {
    Prefork,
    Processes,
    Threads,
    Gevent,
    Eventlet,
    Solo,
}

impl Args {
    /// What the flags set, and what is to be said about them.
    ///
    /// # Errors
    /// For what this version can't do and what must not be passed over.
    pub(super) fn settings(&self) -> Result<(Vec<Flag>, Vec<String>), Failure> {
        if self.beat {
            return Err(Failure::usage("the scheduler (`-B`) is not in this version")
                .hint("run `celery beat`, or call `rwork call` from cron"));
        }
        let mut notes = Vec::new();
        if self.task_events {
            notes.push(
                "task events (`-E`) are not in this version; the log has every task with its id".to_owned(),
            );
        }
        let mut flags = self.plain();
        if let Some(pool) = self.pool {
            notes.push(self.pool(pool, &mut flags));
        }
        Ok((flags, notes))
    }

    fn plain(&self) -> Vec<Flag> {
        let path = |path: &PathBuf| path.display().to_string();
        let number = |number: &usize| number.to_string();
        let rows = [
            ("plugins_dir", "--plugins", self.plugins.as_ref().map(path)),
            ("plugins_cache_dir", "--plugins-cache", self.plugins_cache.as_ref().map(path)),
            ("task_queues", "-Q", self.queues.clone()),
            ("worker_concurrency", "-c", self.concurrency.as_ref().map(number)),
            ("worker_max_in_flight", "--max-in-flight", self.max_in_flight.as_ref().map(number)),
            ("worker_hostname", "-n", self.hostname.clone()),
            (
                "worker_prefetch_multiplier",
                "--prefetch-multiplier",
                self.prefetch_multiplier.as_ref().map(number),
            ),
            ("task_time_limit", "--time-limit", self.time_limit.clone()),
            ("task_soft_time_limit", "--soft-time-limit", self.soft_time_limit.clone()),
            ("worker_shutdown_timeout", "--shutdown-timeout", self.shutdown_timeout.clone()),
        ];
        rows.into_iter().filter_map(|(key, flag, value)| Some(Flag::new(key, flag, value?))).collect()
    }

    /// One pool serves all: what computes holds one of `-c` slots, what waits holds none. Green threads count waiting
    /// tasks, so that their number is the one in flight.
    fn pool(&self, pool: Pool, flags: &mut Vec<Flag>) -> String {
        match pool {
            Pool::Prefork | Pool::Processes | Pool::Threads => {
                "`-P`: rwork has one pool; `-c` is how many tasks may compute at once".to_owned()
            }
            Pool::Solo => {
                flags.retain(|flag| !matches!(flag.key, "worker_concurrency" | "worker_max_in_flight"));
                flags.push(Flag::new("worker_concurrency", "-P", 1));
                flags.push(Flag::new("worker_max_in_flight", "-P", 1));
                "`-P solo`: one task at a time".to_owned()
            }
            Pool::Gevent | Pool::Eventlet => {
                let Some(wanted) = self.concurrency else {
                    return "`-P`: rwork has one pool; tasks that wait give their CPU slot back".to_owned();
                };
                let cores = available_parallelism().map_or(1, usize::from);
                flags.retain(|flag| flag.key != "worker_concurrency");
                flags.push(Flag::new("worker_concurrency", "-P", cores.min(wanted)));
                if self.max_in_flight.is_none() {
                    flags.push(Flag::new("worker_max_in_flight", "-c", wanted));
                }
                format!(
                    "`-P`: rwork has one pool; up to {wanted} tasks in flight, as many as there are cores compute"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn green_threads_become_tasks_in_flight() {
        let args = Args { pool: Some(Pool::Gevent), concurrency: Some(500), ..Args::default() };
        let (flags, notes) = args.settings().unwrap();
        assert!(flags.contains(&Flag::new("worker_max_in_flight", "-c", 500)), "{flags:?}");
        assert!(!flags.contains(&Flag::new("worker_concurrency", "-c", 500)), "{flags:?}");
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn solo_is_one_at_a_time() {
        let args = Args { pool: Some(Pool::Solo), concurrency: Some(500), ..Args::default() };
        let (flags, _) = args.settings().unwrap();
        assert_eq!(
            flags,
            [Flag::new("worker_concurrency", "-P", 1), Flag::new("worker_max_in_flight", "-P", 1)]
        );
    }

    #[test]
    fn the_scheduler_is_refused_and_events_are_noted() {
        assert!(Args { beat: true, ..Args::default() }.settings().is_err());
        assert_eq!(Args { task_events: true, ..Args::default() }.settings().unwrap().1.len(), 1);
    }
}
