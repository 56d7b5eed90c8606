//! The parameters of a task function: which of them a message may fill, and how.
//!
//! Python's four kinds: positional (which may also be named), the catch-all `#[args]`, keyword-only (all that come after
//! it), and the catch-all `#[kwargs]`. A first parameter of type `&Context` is not one of them: rwork fills it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Attribute, Expr, FnArg, Ident, ItemFn, Pat, PatType, Type};

/// How a message fills a parameter.
pub(crate) enum Fill {
    /// By position or name.
    Positional,
    /// All further positional arguments.
    Args,
    /// By name alone.
    Keyword,
    /// All further named arguments.
    Kwargs,
}

/// One parameter that the message fills.
pub(crate) struct Parameter {
    /// As callers write it, without `r#`.
    pub(crate) name: String,
    /// The variable that holds it in the generated code.
    pub(crate) ident: Ident,
    /// The type to decode: owned, for a parameter that is a reference.
    pub(crate) owned: TokenStream,
    /// Whether the function takes a reference to it.
    pub(crate) by_reference: bool,
    /// What an absent argument is, when it may be absent.
    pub(crate) default: Option<TokenStream>,
    /// How it is filled.
    pub(crate) fill: Fill,
}

/// All of a function's parameters.
pub(crate) struct Parameters {
    /// The first one is the context: `Some(true)` when taken by reference.
    pub(crate) context: Option<bool>,
    /// The only one takes the whole input undecoded: `Some(true)` when taken by reference.
    pub(crate) input: Option<bool>,
    /// Those that the message fills, in order.
    pub(crate) filled: Vec<Parameter>,
}

/// Reads the parameters and strips this macro's own attributes from them.
pub(crate) fn take(function: &mut ItemFn) -> syn::Result<Parameters> {
    let mut found = Parameters { context: None, input: None, filled: Vec::new() };
    let count = function.sig.inputs.len();
    for (index, argument) in function.sig.inputs.iter_mut().enumerate() {
        let typed = match argument {
            FnArg::Typed(typed) => typed,
            FnArg::Receiver(receiver) => {
                return Err(syn::Error::new_spanned(
                    receiver,
                    "a task is a free function: it cannot take `self`",
                ));
            }
        };
        if let (0, Some(by_reference)) = (index, named(&typed.ty, "Context")) {
            found.context = Some(by_reference);
            continue;
        }
        let only = index + 1 == count && found.filled.is_empty();
        if let (true, Some(by_reference)) = (only, named(&typed.ty, "Input")) {
            found.input = Some(by_reference);
            continue;
        }
        let parameter = read(typed, &found.filled)?;
        found.filled.push(parameter);
    }
    Ok(found)
}

fn read(typed: &mut PatType, before: &[Parameter]) -> syn::Result<Parameter> {
    let pattern = match &*typed.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => pattern.ident.clone(),
        other => {
            return Err(syn::Error::new_spanned(
                other,
                "a parameter of a task needs a plain name: callers use it",
            ));
        }
    };
    let marks = Marks::take(&mut typed.attrs)?;
    let fill = fill(&pattern, &marks, before)?;
    let (owned, by_reference) = owned(&typed.ty)?;
    let default = match (&marks.default, &fill) {
        (Some(at), Fill::Args | Fill::Kwargs) => {
            return Err(syn::Error::new_spanned(
                at,
                "a catch-all has no default: it is empty when nothing is left",
            ));
        }
        (Some(expression), _) => Some(quote!(#expression)),
        (None, Fill::Args | Fill::Kwargs) => None,
        (None, _) => is_option(&typed.ty).then(|| quote!(::core::option::Option::None)),
    };
    let misplaced = matches!(fill, Fill::Positional)
        && default.is_none()
        && before.iter().any(|earlier| matches!(earlier.fill, Fill::Positional) && earlier.default.is_some());
    if misplaced {
        let text = format!("`{pattern}` has no default but follows a parameter that has one");
        return Err(syn::Error::new_spanned(&typed.pat, text));
    }
    Ok(Parameter {
        name: pattern.unraw().to_string(),
        ident: quote::format_ident!("argument_{}", before.len()),
        owned,
        by_reference,
        default,
        fill,
    })
}

fn fill(pattern: &Ident, marks: &Marks, before: &[Parameter]) -> syn::Result<Fill> {
    let has = |wanted: fn(&Fill) -> bool| before.iter().any(|earlier| wanted(&earlier.fill));
    if has(|fill| matches!(fill, Fill::Kwargs)) {
        return Err(syn::Error::new_spanned(pattern, "nothing can follow `#[kwargs]`"));
    }
    let after_args = has(|fill| matches!(fill, Fill::Args));
    match (marks.args, marks.kwargs) {
        (true, true) => {
            Err(syn::Error::new_spanned(pattern, "a parameter is `#[args]` or `#[kwargs]`, not both"))
        }
        (true, false) if after_args => Err(syn::Error::new_spanned(pattern, "there can be one `#[args]`")),
        (true, false) => Ok(Fill::Args),
        (false, true) => Ok(Fill::Kwargs),
        (false, false) if after_args => Ok(Fill::Keyword),
        (false, false) => Ok(Fill::Positional),
    }
}

/// The attributes that mean something to this macro.
#[derive(Default)]
struct Marks {
    args: bool,
    kwargs: bool,
    default: Option<Expr>,
}

impl Marks {
    fn take(attributes: &mut Vec<Attribute>) -> syn::Result<Self> {
        let mut marks = Self::default();
        let mut kept = Vec::new();
        for attribute in attributes.drain(..) {
            if attribute.path().is_ident("args") {
                attribute.meta.require_path_only()?;
                marks.args = true;
            } else if attribute.path().is_ident("kwargs") {
                attribute.meta.require_path_only()?;
                marks.kwargs = true;
            } else if attribute.path().is_ident("default") {
                marks.default = Some(attribute.parse_args()?);
            } else {
                kept.push(attribute);
            }
        }
        *attributes = kept;
        Ok(marks)
    }
}

/// The type to decode for a parameter: `String` for `&str`, `Vec<T>` for `&[T]`, `T` for any other `&T`.
fn owned(written: &Type) -> syn::Result<(TokenStream, bool)> {
    let Type::Reference(reference) = written else { return Ok((quote!(#written), false)) };
    if reference.mutability.is_some() {
        return Err(syn::Error::new_spanned(written, "an argument cannot be a `&mut`: take it by value"));
    }
    let target = &reference.elem;
    Ok(match &**target {
        Type::Path(path) if path.path.is_ident("str") => (quote!(::std::string::String), true),
        Type::Slice(slice) => {
            let item = &slice.elem;
            (quote!(::std::vec::Vec<#item>), true)
        }
        other => (quote!(#other), true),
    })
}

/// Whether a type is `name` or `&name`, by its last segment: `Some(true)` for the reference.
fn named(written: &Type, name: &str) -> Option<bool> {
    match written {
        Type::Reference(reference) if reference.mutability.is_none() => {
            matches!(named(&reference.elem, name), Some(false)).then_some(true)
        }
        Type::Path(path) => path
            .path
            .segments
            .last()
            .filter(|last| last.ident == name && last.arguments.is_empty())
            .map(|_| false),
        _ => None,
    }
}

fn is_option(written: &Type) -> bool {
    matches!(written, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Option"))
}
