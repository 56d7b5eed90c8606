//! The `#[task]` attribute of the crate `rwork`; use it from there.
//!
//! Steps: read the options ([`options`], [`value`]), read the function's parameters ([`parameters`]), write the code
//! that binds a call to them ([`expand`]). The function itself stays as it was written, so that it can be called and
//! tested like any other. Nothing here runs in a guest: what a task declares becomes a constant at compile time.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a panic is how a test fails"
    )
)]

mod expand;
mod options;
mod parameters;
mod value;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Makes a task out of a plain function. Documented in the crate `rwork`, which re-exports it.
#[proc_macro_attribute]
pub fn task(options: TokenStream, function: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as options::Options);
    let function = parse_macro_input!(function as syn::ItemFn);
    expand::task(&options, function).unwrap_or_else(syn::Error::into_compile_error).into()
}
