//! What is published after an outcome: a pure function from message and outcome.
