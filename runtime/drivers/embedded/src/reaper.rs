//! Finding the dead: sessions in the file whose consumers live in no process.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::acts::session::NO_LEASE;
use crate::consumer_state::Consumers;
use crate::presence::{self, Presence, Sign};

/// Longest absence of a session's lock file. Its consumer, if it lives, makes the file again within a second or two.
const MISSING_MAX: Duration = Duration::from_secs(10);
/// A session of the first edition has no lock file: it is dead when nobody renewed it for its lease and this long.
const GRACE: Duration = Duration::from_secs(1);

/// Knowledge of one process about others' sessions.
#[derive(Debug)]
pub(crate) struct Reaper {
    folder: PathBuf,
    /// Sessions without a lock file, by owner.
    doubts: HashMap<i64, Doubt>,
}

/// A session that may be dead.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// The end of its lease, which a living consumer of the first edition moves.
    until: i64,
    since: Instant,
}

/// A session whose consumer is dead.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) owner: i64,
    /// Its lock, so that no other process frees the same.
    presence: Option<Presence>,
}

impl Dead {
    /// Deletes what is left of it; its row must be gone.
    pub(crate) fn remove(&self) {
        if let Some(presence) = &self.presence {
            presence.remove();
        }
    }
}

impl Reaper {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, doubts: HashMap::new() }
    }

    /// The dead among other processes' consumers, and those of this one that were dropped.
    pub(crate) fn find(
        &mut self,
        db: &Connection,
        consumers: &Consumers,
        now: Instant,
    ) -> rusqlite::Result<Vec<Dead>> {
        let sessions = sessions(db)?;
        let mut dead = Vec::new();
        let mut doubts = HashMap::new();
        for (owner, until, lease) in
            sessions.into_iter().filter(|(owner, ..)| consumers.get(*owner).is_none())
        {
            match presence::look(&self.folder, owner) {
                Ok(Sign::Alive) => {}
                Ok(Sign::Dead(presence)) => dead.push(Dead { owner, presence: Some(presence) }),
                Ok(Sign::Missing) => {
                    let doubt = self.doubts.get(&owner).filter(|doubt| doubt.until == until);
                    let doubt = doubt.copied().unwrap_or(Doubt { until, since: now });
                    if now.duration_since(doubt.since) >= patience(lease) {
                        dead.push(Dead { owner, presence: None });
                    } else {
                        doubts.insert(owner, doubt);
                    }
                }
                Err(error) => tracing::warn!(owner, %error, "failed to look whether a consumer lives"),
            }
        }
        self.doubts = doubts;
        Ok(dead)
    }

    /// Deletes lock files that belong to no session.
    pub(crate) fn clean(&self, db: &Connection) -> rusqlite::Result<()> {
        let owners: HashSet<i64> = sessions(db)?.into_iter().map(|(owner, ..)| owner).collect();
        if let Err(error) = presence::clean(&self.folder, |owner| owners.contains(&owner)) {
            tracing::debug!(%error, "failed to delete lock files of dead consumers");
        }
        Ok(())
    }
}

fn patience(lease: i64) -> Duration {
    if lease == NO_LEASE {
        return MISSING_MAX;
    }
    Duration::from_micros(u64::try_from(lease).unwrap_or(0)) + GRACE
}

/// Owner, end and length of the lease of each session.
fn sessions(db: &Connection) -> rusqlite::Result<Vec<(i64, i64, i64)>> {
    db.prepare_cached("SELECT owner, until, lease FROM session")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}
