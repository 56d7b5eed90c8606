//! Keys that a script is given once each and that its arguments name by their place.

use std::collections::HashMap;

/// Keys of one call.
#[derive(Debug, Default)]
pub(crate) struct Places {
    keys: Vec<String>,
    places: HashMap<String, usize>,
}

impl Places {
    /// The first ones, which a script knows by fixed places.
    pub(crate) fn beginning_with(keys: &[&str]) -> Self {
        let mut places = Self::default();
        for key in keys {
            places.push((*key).to_owned());
        }
        places
    }

    /// The place of a key, counted from 1 as Lua does; added when it is new.
    pub(crate) fn of(&mut self, key: String) -> usize {
        match self.places.get(&key) {
            Some(place) => *place,
            None => self.push(key),
        }
    }

    fn push(&mut self, key: String) -> usize {
        self.keys.push(key.clone());
        let place = self.keys.len();
        self.places.insert(key, place);
        place
    }

    pub(crate) fn keys(&self) -> &[String] {
        &self.keys
    }
}
