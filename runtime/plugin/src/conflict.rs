//! Who keeps a name that two plugins claim. Pure.
//!
//! What serves keeps its names; of two newcomers the first by path gets them. A refused newcomer leaves its old version
//! serving, whose names then count again: so the rounds are repeated until nobody else is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rwork_protocol::TaskName;

use crate::error::Error;
use crate::id::PluginId;

/// What one plugin wants to be called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) path: &'a Path,
    pub(crate) id: &'a PluginId,
    pub(crate) tasks: &'a [TaskName],
}

/// The candidates that must be refused, by their place in `candidates`, which is ordered by path. `serving` are the
/// versions in service, except those whose file is gone; a candidate takes the place of the one with its path.
pub(crate) fn refused(serving: &[Claim<'_>], candidates: &[Claim<'_>]) -> BTreeMap<usize, Error> {
    let mut refused = BTreeMap::new();
    loop {
        let replaced: BTreeSet<&Path> = accepted(candidates, &refused).map(|(_, claim)| claim.path).collect();
        let mut names = Names::default();
        for claim in serving.iter().filter(|claim| !replaced.contains(claim.path)) {
            names.take(claim);
        }
        let conflict =
            accepted(candidates, &refused).find_map(|(index, claim)| match names.conflict(claim) {
                Some(error) => Some((index, error)),
                None => {
                    names.take(claim);
                    None
                }
            });
        match conflict {
            Some((index, error)) => refused.insert(index, error),
            None => return refused,
        };
    }
}

fn accepted<'c, 'a>(
    candidates: &'c [Claim<'a>],
    refused: &BTreeMap<usize, Error>,
) -> impl Iterator<Item = (usize, &'c Claim<'a>)> {
    candidates.iter().enumerate().filter(|(index, _)| !refused.contains_key(index))
}

/// Every name that is taken, and by whom.
#[derive(Default)]
struct Names<'a> {
    plugins: BTreeMap<&'a PluginId, Claim<'a>>,
    tasks: BTreeMap<&'a TaskName, Claim<'a>>,
}

impl<'a> Names<'a> {
    fn take(&mut self, claim: &Claim<'a>) {
        self.plugins.insert(claim.id, *claim);
        self.tasks.extend(claim.tasks.iter().map(|task| (task, *claim)));
    }

    fn conflict(&self, claim: &Claim<'_>) -> Option<Error> {
        let path = claim.path.to_owned();
        if let Some(other) = self.plugins.get(claim.id) {
            return Some(Error::SamePlugin {
                plugin: claim.id.clone(),
                path,
                other_path: other.path.to_owned(),
            });
        }
        let (task, other) = claim.tasks.iter().find_map(|task| Some((task, self.tasks.get(task)?)))?;
        Some(Error::SameTask {
            task: task.clone(),
            plugin: claim.id.clone(),
            path,
            other: other.id.clone(),
            other_path: other.path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `path id task task …`
    struct Row(std::path::PathBuf, PluginId, Vec<TaskName>);

    fn row(text: &str) -> Row {
        let mut words = text.split(' ');
        let path = words.next().unwrap().into();
        let id = PluginId::new(words.next().unwrap()).unwrap();
        Row(path, id, words.map(|task| TaskName::new(task).unwrap()).collect())
    }

    fn claims(rows: &[Row]) -> Vec<Claim<'_>> {
        rows.iter().map(|Row(path, id, tasks)| Claim { path, id, tasks }).collect()
    }

    fn check(serving: &[&str], candidates: &[&str], expected: &[(usize, &str)]) {
        let serving: Vec<_> = serving.iter().map(|text| row(text)).collect();
        let candidates: Vec<_> = candidates.iter().map(|text| row(text)).collect();
        let refused = refused(&claims(&serving), &claims(&candidates));
        let found: Vec<_> = refused.iter().map(|(index, error)| (*index, error.to_string())).collect();
        let expected: Vec<_> = expected.iter().map(|(index, text)| (*index, (*text).to_owned())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_name_is_kept_by_who_serves_it() {
        check(
            &["a.wasm a x"],
            &["b.wasm b y x"],
            &[(0, "task `x` is in two plugins: `b` (`b.wasm`) and `a` (`a.wasm`), which has it already")],
        );
        check(
            &["z.wasm a x"],
            &["b.wasm a y"],
            &[(0, "two components are called `a`: `b.wasm` and `z.wasm`, which has the name already")],
        );
    }

    #[test]
    fn of_two_newcomers_the_first_by_path_gets_it() {
        check(
            &[],
            &["a.wasm a x", "b.wasm b x", "c.wasm c y"],
            &[(1, "task `x` is in two plugins: `b` (`b.wasm`) and `a` (`a.wasm`), which has it already")],
        );
    }

    #[test]
    fn a_new_version_may_keep_drop_and_pass_on_names() {
        check(&["a.wasm a x y"], &["a.wasm a x"], &[]);
        check(&["a.wasm a x y", "b.wasm b z"], &["a.wasm a x", "b.wasm b y z"], &[]);
        check(&["a.wasm a x", "b.wasm b y"], &["a.wasm a y", "b.wasm b x"], &[]);
    }

    #[test]
    fn the_old_version_of_a_refused_one_counts_again() {
        // `a` would pass `x` on to `b`, but its new version wants `z`, which is taken: `a` stays, so `b` can't have `x`.
        check(
            &["a.wasm a x", "b.wasm b y", "c.wasm c z"],
            &["a.wasm a z", "b.wasm b x"],
            &[
                (0, "task `z` is in two plugins: `a` (`a.wasm`) and `c` (`c.wasm`), which has it already"),
                (1, "task `x` is in two plugins: `b` (`b.wasm`) and `a` (`a.wasm`), which has it already"),
            ],
        );
    }
}
