//! The host's side of `wit/`, generated at compile time.
//!
//! Cheap imports are plain functions; whatever can take longer than a microsecond is async, so that it can be
//! cancelled and gives its CPU slot back. Arguments of exports are borrowed, so a message's bytes are copied once, into
//! the guest's memory.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    reason = "generated code"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package rwork:host;
        world everything {
            include rwork:task/plugin@0.1.0;
            include rwork:task/cleanup-hook@0.1.0;
        }
    ",
    world: "rwork:host/everything",
    imports: {
        default: trappable,
        "rwork:task/limits.sleep": async | trappable,
        "rwork:task/progress.update": async | trappable,
        "rwork:task/submit.send": async | trappable,
        "rwork:task/submit.send-many": async | trappable,
        "rwork:task/submit.await-result": async | trappable,
    },
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
    with: { "wasi:io/poll": wasmtime_wasi::p2::bindings::io::poll },
});
