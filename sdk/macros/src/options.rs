//! The options of `#[task(...)]`: Celery's names, checked here and turned into the JSON document of the declaration.
//!
//! An option that nobody knows is an error that names the nearest one and lists them all; so is an option given twice and
//! a pair that cannot both hold.

use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Expr, Ident, Path, Token};

use crate::value;

/// Priorities fit in one byte on every broker.
const PRIORITY_MAX: u32 = 255;

/// How like an option an unknown name must be to be suggested (Jaro-Winkler, 0 to 1).
const SIMILARITY_MIN: f64 = 0.75;

/// What an option's value may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    Text,
    Priority,
    /// A whole number, or `None` for no limit.
    Count,
    Seconds,
    /// `true`, `false` or a number of seconds.
    Backoff,
    Bytes,
    Rate,
    Names,
    /// Read by the macro itself; not in the document.
    Own,
}

/// Every option; the documents's key is the option's name.
const OPTIONS: [(&str, Kind); 29] = [
    ("name", Kind::Own),
    ("bind", Kind::Own),
    ("max_retries", Kind::Count),
    ("default_retry_delay", Kind::Seconds),
    ("autoretry_for", Kind::Names),
    ("dont_autoretry_for", Kind::Names),
    ("retry_backoff", Kind::Backoff),
    ("retry_backoff_max", Kind::Seconds),
    ("retry_jitter", Kind::Boolean),
    ("rate_limit", Kind::Rate),
    ("time_limit", Kind::Seconds),
    ("soft_time_limit", Kind::Seconds),
    ("memory", Kind::Bytes),
    ("result_bytes", Kind::Bytes),
    ("log_bytes", Kind::Bytes),
    ("acks_late", Kind::Boolean),
    ("acks_on_failure", Kind::Boolean),
    ("acks_on_timeout", Kind::Boolean),
    ("acks_on_failure_or_timeout", Kind::Boolean),
    ("reject_on_worker_lost", Kind::Boolean),
    ("ignore_result", Kind::Boolean),
    ("store_errors_even_if_ignored", Kind::Boolean),
    ("track_started", Kind::Boolean),
    ("queue", Kind::Text),
    ("priority", Kind::Priority),
    ("expires", Kind::Seconds),
    ("accepts", Kind::Names),
    ("cleanup", Kind::Own),
    ("summary", Kind::Own),
];

/// What `#[task(...)]` was given.
#[derive(Default)]
pub(crate) struct Options {
    /// The registered name, when it is not the default.
    pub(crate) name: Option<String>,
    /// Whether the first parameter must be the context, when stated.
    pub(crate) bind: Option<(bool, Ident)>,
    /// The function that tidies up after a task that was ended from outside.
    pub(crate) cleanup: Option<Path>,
    /// One line for people, when it is not the first line of the documentation.
    pub(crate) summary: Option<String>,
    /// Media types other than JSON in `accepts`, with where it stands.
    pub(crate) foreign_content: Option<Ident>,
    /// Members of the declaration's JSON object, in the order written.
    document: Vec<(&'static str, String)>,
}

impl Options {
    /// The declaration's options as one JSON object, empty when there is none.
    pub(crate) fn document(&self) -> String {
        let mut members: Vec<String> =
            self.document.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        if self.cleanup.is_some() {
            members.push("\"cleanup\":true".to_owned());
        }
        if members.is_empty() { String::new() } else { format!("{{{}}}", members.join(",")) }
    }

    fn take(&mut self, option: &Written) -> syn::Result<()> {
        let found = option.name.unraw().to_string();
        let (name, kind) = OPTIONS
            .into_iter()
            .find(|(name, _)| *name == found)
            .ok_or_else(|| unknown(&option.name, &found))?;
        if kind == Kind::Own {
            return self.take_own(name, option);
        }
        let json = to_json(name, kind, &option.value)?;
        if name == "accepts" {
            self.note_foreign_content(option)?;
        }
        self.document.push((name, json));
        Ok(())
    }

    fn take_own(&mut self, name: &str, option: &Written) -> syn::Result<()> {
        match name {
            "name" => self.name = Some(task_name(&option.value)?),
            "bind" => self.bind = Some((value::boolean(name, &option.value)?, option.name.clone())),
            "summary" => self.summary = Some(value::text(name, &option.value)?),
            _ => match &option.value {
                Expr::Path(path) => self.cleanup = Some(path.path.clone()),
                other => return Err(value::expected(name, "the path of a function", other)),
            },
        }
        Ok(())
    }

    fn note_foreign_content(&mut self, option: &Written) -> syn::Result<()> {
        let types = value::names("accepts", &option.value)?;
        if types.iter().any(|content_type| content_type != "json" && content_type != "application/json") {
            self.foreign_content = Some(option.name.clone());
        }
        Ok(())
    }

    fn check_together(&self, written: &[Written]) -> syn::Result<()> {
        let seconds = |wanted: &str| {
            let (_, json) = self.document.iter().find(|(key, _)| *key == wanted)?;
            json.parse::<f64>().ok()
        };
        let (Some(soft), Some(hard)) = (seconds("soft_time_limit"), seconds("time_limit")) else {
            return Ok(());
        };
        // Zero means no hard limit.
        if hard > 0.0 && soft >= hard {
            let at =
                written.iter().find(|option| option.name == "soft_time_limit").map(|option| &option.value);
            let text = format!(
                "expected `soft_time_limit` to be shorter than `time_limit` ({hard} s), got {soft} s"
            );
            return Err(syn::Error::new_spanned(at.map(ToTokens::to_token_stream), text));
        }
        Ok(())
    }
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let written: Vec<Written> =
            Punctuated::<Written, Token![,]>::parse_terminated(input)?.into_iter().collect();
        let mut options = Self::default();
        for (index, option) in written.iter().enumerate() {
            if written.iter().take(index).any(|earlier| earlier.name == option.name) {
                return Err(syn::Error::new(
                    option.name.span(),
                    format!("option `{}` is given twice", option.name),
                ));
            }
            options.take(option)?;
        }
        options.check_together(&written)?;
        Ok(options)
    }
}

/// One `name = value` as written; a bare `name` stands for `name = true`.
struct Written {
    name: Ident,
    value: Expr,
}

impl Parse for Written {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name = input.call(Ident::parse_any)?;
        let value = if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            input.parse()?
        } else {
            syn::parse_quote_spanned!(name.span() => true)
        };
        Ok(Self { name, value })
    }
}

fn to_json(name: &str, kind: Kind, written: &Expr) -> syn::Result<String> {
    let list = |names: Vec<String>| {
        let quoted: Vec<String> = names.iter().map(|name| value::json_string(name)).collect();
        format!("[{}]", quoted.join(","))
    };
    Ok(match kind {
        Kind::Boolean => value::boolean(name, written)?.to_string(),
        Kind::Text => value::json_string(&value::text(name, written)?),
        Kind::Priority => value::integer(name, written, PRIORITY_MAX)?.to_string(),
        Kind::Count if value::is_none(written) => "null".to_owned(),
        Kind::Count => value::integer(name, written, u32::MAX)
            .map_err(|_| value::expected(name, "a whole number, or `None` for no limit", written))?
            .to_string(),
        Kind::Seconds => value::json_number(value::seconds(name, written)?),
        Kind::Backoff => match value::boolean(name, written) {
            Ok(on) => on.to_string(),
            Err(_) => value::json_number(value::seconds(name, written).map_err(|_| {
                value::expected(
                    name,
                    "`true`, `false` or the first delay, in seconds or as `\"5s\"`",
                    written,
                )
            })?),
        },
        Kind::Bytes => value::json_number(value::bytes(name, written)?),
        Kind::Rate => value::rate(name, written)?,
        Kind::Names => list(value::names(name, written)?),
        Kind::Own => {
            return Err(syn::Error::new_spanned(written, format!("`{name}` is not part of the declaration")));
        }
    })
}

fn task_name(written: &Expr) -> syn::Result<String> {
    let name = value::text("name", written)?;
    if name.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(value::expected("name", "a task name without spaces", written));
    }
    Ok(name)
}

fn unknown(at: &Ident, found: &str) -> syn::Error {
    let nearest = OPTIONS
        .iter()
        .map(|(name, _)| (strsim::jaro_winkler(name, found), *name))
        .filter(|(likeness, _)| *likeness >= SIMILARITY_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    let hint = nearest.map_or(String::new(), |(_, name)| format!("; did you mean `{name}`?"));
    let names: Vec<&str> = OPTIONS.iter().map(|(name, _)| *name).collect();
    syn::Error::new(at.span(), format!("unknown option `{found}`{hint}\noptions are: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Result<String, String> {
        syn::parse_str::<Options>(text).map(|options| options.document()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_document_has_celerys_names_and_plain_numbers() {
        let text = "name = \"a.b\", max_retries = 5, time_limit = \"1m\", soft_time_limit = 30.5, memory = \"64MiB\", \
                    autoretry_for = [ConnectionError, \"TimeoutError\"], retry_backoff, rate_limit = \"10/m\", \
                    acks_on_failure = false, queue = \"mail\", priority = 9, cleanup = tidy";
        let wanted = "{\"max_retries\":5,\"time_limit\":60,\"soft_time_limit\":30.5,\"memory\":67108864,\
                      \"autoretry_for\":[\"ConnectionError\",\"TimeoutError\"],\"retry_backoff\":true,\"rate_limit\":\"10/m\",\
                      \"acks_on_failure\":false,\"queue\":\"mail\",\"priority\":9,\"cleanup\":true}";
        assert_eq!(document(text).unwrap(), wanted);
    }

    #[test]
    fn no_options_no_document() {
        assert_eq!(document("").unwrap(), "");
        assert_eq!(document("name = \"x.y\", bind").unwrap(), "");
    }

    #[test]
    fn unlimited_retries_are_null() {
        for text in ["max_retries = None", "max_retries = \"none\""] {
            assert_eq!(document(text).unwrap(), "{\"max_retries\":null}");
        }
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        for (text, wanted) in [
            ("max_retires = 3", "unknown option `max_retires`; did you mean `max_retries`?"),
            ("zzz = 3", "unknown option `zzz`\noptions are: name, bind, max_retries"),
            ("queue = \"a\", queue = \"b\"", "option `queue` is given twice"),
            ("priority = 256", "expected `priority` to be a whole number from 0 to 255"),
            ("max_retries = -1", "expected `max_retries` to be a whole number, or `None` for no limit"),
            (
                "time_limit = 10, soft_time_limit = 10",
                "expected `soft_time_limit` to be shorter than `time_limit` (10 s)",
            ),
            ("cleanup = \"tidy\"", "expected `cleanup` to be the path of a function"),
            ("name = \"a b\"", "expected `name` to be a task name without spaces"),
            ("retry_backoff = \"soon\"", "expected `retry_backoff` to be `true`, `false` or the first delay"),
        ] {
            let error = document(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn no_hard_limit_allows_any_soft_limit() {
        assert!(document("time_limit = 0, soft_time_limit = 10").is_ok());
    }
}
