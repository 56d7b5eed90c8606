//! For producers: send tasks and await their results.
