//! Tests of single steps, and of one worker, in the model world in calm. What no table can show is the simulation's.

mod host;
mod intake;
mod next;
mod records;
mod worker;
