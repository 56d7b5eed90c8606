//! One delivery from receive to settle.
