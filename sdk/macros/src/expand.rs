//! The code that `#[task]` writes: the function unchanged, and beside it a module of the same name with the definition.
//!
//! ```text
//! fn add(a: i64, b: i64) -> i64 { … }     as written, without `#[default]`, `#[args]`, `#[kwargs]`
//! mod add { struct Task; macro hook }     what `plugin!` finds under the same path
//! const _: () = { … impl Task … };        name, options, parameters, and a function from bytes to bytes
//! ```

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprLit, Ident, ItemFn, Lit, Meta, ReturnType, Type};

use crate::options::Options;
use crate::parameters::{self, Fill, Parameters};

/// The whole expansion of one task.
pub(crate) fn task(options: &Options, mut function: ItemFn) -> syn::Result<TokenStream> {
    check_shape(&function)?;
    let parameters = parameters::take(&mut function)?;
    check_options(options, &parameters, &function)?;
    let definition = definition(options, &parameters, &function);
    let runner = runner(&parameters, &function);
    let module = module(options, &function);
    let task = &function.sig.ident;
    Ok(quote! {
        #function
        #module
        #[doc(hidden)]
        const _: () = {
            #runner
            impl ::rwork::__private::Task for #task::Task {
                const DEFINITION: ::rwork::__private::Definition = #definition;
            }
        };
    })
}

fn check_shape(function: &ItemFn) -> syn::Result<()> {
    let signature = &function.sig;
    if let Some(keyword) = &signature.asyncness {
        let text = "a task is a plain function, not an `async` one: it has an instance of its own, and waiting in it costs no thread";
        return Err(syn::Error::new_spanned(keyword, text));
    }
    if !signature.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(
            &signature.generics,
            "a task cannot be generic: a message names no types",
        ));
    }
    if let Some(dots) = &signature.variadic {
        return Err(syn::Error::new_spanned(dots, "use `#[args] rest: Vec<T>` for any number of arguments"));
    }
    Ok(())
}

fn check_options(options: &Options, parameters: &Parameters, function: &ItemFn) -> syn::Result<()> {
    match (&options.bind, parameters.context) {
        (Some((true, at)), None) => {
            let text = format!("`bind` needs `&Context` as the first parameter of `{}`", function.sig.ident);
            return Err(syn::Error::new(at.span(), text));
        }
        (Some((false, at)), Some(_)) => {
            return Err(syn::Error::new(
                at.span(),
                "the first parameter is a `Context`: `bind` cannot be `false`",
            ));
        }
        _ => {}
    }
    match &options.foreign_content {
        Some(at) if parameters.input.is_none() => Err(syn::Error::new(
            at.span(),
            "typed arguments are decoded from JSON: take one `rwork::Input` to accept other content",
        )),
        _ => Ok(()),
    }
}

fn module(options: &Options, function: &ItemFn) -> TokenStream {
    let (visibility, task) = (&function.vis, &function.sig.ident);
    // The hooks of all tasks are called one after the other; the first task with a cleanup ends the row by exporting it.
    let next = if options.cleanup.is_some() {
        quote!(::rwork::__export_cleanup! {})
    } else {
        quote!(::rwork::__cleanup_chain! { $($rest)* })
    };
    quote! {
        #[doc(hidden)]
        #visibility mod #task {
            #[derive(Debug)]
            pub struct Task;
            #[allow(unused_macros, reason = "only `plugin!` uses it")]
            macro_rules! hook { ($($rest:tt)*) => { #next } }
            #[allow(unused_imports, reason = "only `plugin!` uses it")]
            pub(crate) use hook;
        }
    }
}

fn definition(options: &Options, parameters: &Parameters, function: &ItemFn) -> TokenStream {
    let short = function.sig.ident.unraw().to_string();
    let name = options.name.clone().unwrap_or_else(|| format!("{}.{short}", package_name()));
    let summary = options.summary.clone().unwrap_or_else(|| first_line(&function.attrs));
    let document = options.document();
    let of_kind = |wanted: fn(&Fill) -> bool| {
        let kept = parameters.filled.iter().filter(move |parameter| wanted(&parameter.fill));
        kept.map(|parameter| {
            let (name, required) = (&parameter.name, parameter.default.is_none());
            quote!(::rwork::__private::Parameter { name: #name, required: #required })
        })
    };
    let positional = of_kind(|fill| matches!(fill, Fill::Positional));
    let keyword = of_kind(|fill| matches!(fill, Fill::Keyword));
    let args = parameters.filled.iter().any(|parameter| matches!(parameter.fill, Fill::Args));
    let kwargs = parameters.filled.iter().any(|parameter| matches!(parameter.fill, Fill::Kwargs));
    let cleanup = match &options.cleanup {
        Some(path) => quote!(::core::option::Option::Some(#path)),
        None => quote!(::core::option::Option::None),
    };
    quote! {
        ::rwork::__private::Definition {
            name: #name,
            summary: #summary,
            options: #document,
            parameters: ::rwork::__private::Parameters {
                function: #short,
                positional: &[#(#positional),*],
                args: #args,
                keyword: &[#(#keyword),*],
                kwargs: #kwargs,
            },
            run: __rwork_run,
            cleanup: #cleanup,
        }
    }
}

/// The function from an input to an encoded result.
fn runner(parameters: &Parameters, function: &ItemFn) -> TokenStream {
    let task = &function.sig.ident;
    let context = parameters.context.map(|by_reference| {
        if by_reference {
            quote!(__rwork_context,)
        } else {
            quote!(::core::clone::Clone::clone(__rwork_context),)
        }
    });
    let whole = parameters
        .input
        .map(|by_reference| if by_reference { quote!(&__rwork_input,) } else { quote!(__rwork_input,) });
    let bind = parameters.input.is_none().then(|| {
        quote! {
            let __rwork_call = ::rwork::__private::bind(
                &<#task::Task as ::rwork::__private::Task>::DEFINITION.parameters,
                &__rwork_input,
            )?;
        }
    });
    let decode = decode(parameters);
    let pass = parameters.filled.iter().map(|parameter| {
        let ident = local(&parameter.ident);
        if parameter.by_reference { quote!(&#ident) } else { quote!(#ident) }
    });
    let call = quote!(#task(#context #whole #(#pass),*));
    let output = function.sig.output.span();
    let result = if returns_result(&function.sig.output) {
        quote_spanned! { output =>
            match #call {
                ::core::result::Result::Ok(value) => ::rwork::__private::encode(&value),
                ::core::result::Result::Err(error) => ::core::result::Result::Err(::core::convert::Into::into(error)),
            }
        }
    } else {
        quote_spanned!(output => ::rwork::__private::encode(&#call))
    };
    quote! {
        #[allow(unused_variables, clippy::let_unit_value, clippy::unit_arg, reason = "depends on the task's signature")]
        fn __rwork_run(
            __rwork_context: &::rwork::Context,
            __rwork_input: ::rwork::Input,
        ) -> ::core::result::Result<::std::vec::Vec<u8>, ::rwork::TaskError> {
            #bind
            #decode
            #result
        }
    }
}

/// One `let` per parameter. Positional and keyword-only parameters share one numbering, in the order of the binder.
fn decode(parameters: &Parameters) -> TokenStream {
    let positional =
        parameters.filled.iter().filter(|parameter| matches!(parameter.fill, Fill::Positional)).count();
    let (mut next_positional, mut next_keyword) = (0_usize, positional);
    let mut code = TokenStream::new();
    for parameter in &parameters.filled {
        let (ident, owned) = (local(&parameter.ident), &parameter.owned);
        let place = match parameter.fill {
            Fill::Positional => &mut next_positional,
            Fill::Keyword => &mut next_keyword,
            Fill::Args => {
                code.extend(quote!(let #ident: #owned = __rwork_call.rest()?;));
                continue;
            }
            Fill::Kwargs => {
                code.extend(quote!(let #ident: #owned = __rwork_call.named()?;));
                continue;
            }
        };
        let index = *place;
        *place += 1;
        code.extend(match &parameter.default {
            None => quote!(let #ident: #owned = __rwork_call.required(#index)?;),
            Some(default) => {
                let default =
                    if parameter.by_reference { quote!((#default).into()) } else { default.clone() };
                quote! {
                    let #ident: #owned = match __rwork_call.optional(#index)? {
                        ::core::option::Option::Some(value) => value,
                        ::core::option::Option::None => #default,
                    };
                }
            }
        });
    }
    code
}

/// A parameter's variable in the runner: apart from the task's own name and from the runner's other variables.
fn local(parameter: &Ident) -> Ident {
    format_ident!("__rwork_argument_{}", parameter.unraw(), span = parameter.span())
}

/// `Result<…>` by its name, whatever path or alias leads to it.
fn returns_result(output: &ReturnType) -> bool {
    let ReturnType::Type(_, written) = output else { return false };
    matches!(&**written, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Result"))
}

fn first_line(attributes: &[Attribute]) -> String {
    let lines =
        attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).filter_map(|attribute| {
            let Meta::NameValue(pair) = &attribute.meta else { return None };
            let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value else { return None };
            Some(text.value().trim().to_owned())
        });
    // A summary is the first paragraph, which may be wrapped.
    let paragraph: Vec<String> =
        lines.skip_while(String::is_empty).take_while(|line| !line.is_empty()).collect();
    paragraph.join(" ")
}

fn package_name() -> String {
    let name = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "tasks".to_owned());
    name.replace('-', "_")
}
