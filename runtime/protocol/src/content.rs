//! Which bodies are taken: the one place where a content type is decided on.

use crate::error::Fault;

/// The media type of JSON.
pub const JSON: &str = "application/json";

/// The character set that goes with [`JSON`].
pub const UTF_8: &str = "utf-8";

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentType {
    /// `application/json`, always read as UTF-8.
    Json,
    /// `application/x-msgpack`.
    Msgpack,
    /// `application/x-yaml`, read as PyYAML's safe loader reads it.
    Yaml,
    /// `application/data`: a signed body around another one (kombu's serializer `auth`).
    Signed,
    /// `application/x-python-serialize`. Known by name only: to read a pickle is to run what is in it.
    Pickle,
}

impl ContentType {
    /// By the media type, whose parameters and case don't matter, or by kombu's name for the serializer.
    pub fn of(name: &str) -> Option<Self> {
        let essence = name.split(';').next().unwrap_or_default().trim();
        let is = |known: &str| essence.eq_ignore_ascii_case(known);
        Self::KNOWN
            .into_iter()
            .find(|kind| is(kind.media_type()) || is(kind.name()))
            .or_else(|| OLD_PICKLE.into_iter().any(is).then_some(Self::Pickle))
    }

    const KNOWN: [Self; 5] = [Self::Json, Self::Msgpack, Self::Yaml, Self::Signed, Self::Pickle];

    /// kombu's name for the serializer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Msgpack => "msgpack",
            Self::Yaml => "yaml",
            Self::Signed => "auth",
            Self::Pickle => "pickle",
        }
    }

    /// The media type on the wire.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Msgpack => "application/x-msgpack",
            Self::Yaml => "application/x-yaml",
            Self::Signed => "application/data",
            Self::Pickle => "application/x-python-serialize",
        }
    }
}

/// What else pickles have been called.
const OLD_PICKLE: [&str; 2] = ["application/x-pickle", "application/x-python"];

/// Which content types are taken (Celery's `accept_content`). Default: JSON alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptContent {
    json: bool,
    msgpack: bool,
    yaml: bool,
    signed: bool,
}

impl Default for AcceptContent {
    fn default() -> Self {
        Self { json: true, ..Self::NOTHING }
    }
}

/// What `accept_content` can't name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownContent {
    /// Nothing goes by this name.
    #[error("expected content types out of `json`, `msgpack`, `yaml`, `auth` or their MIME types, got `{0}`")]
    Name(String),
    /// Pickles are never read.
    #[error(
        "expected content types out of `json`, `msgpack`, `yaml`, `auth`, got `{0}`: to read a pickle is to run what is in it, \
         so that none is ever read"
    )]
    Pickle(String),
    /// Then no message could be read.
    #[error("expected at least one content type out of `json`, `msgpack`, `yaml`, `auth`, got none")]
    None,
}

impl AcceptContent {
    /// What may be in a signed body: all that can be read without harm, but for another signed body.
    pub(crate) const SIGNABLE: Self = Self { json: true, msgpack: true, yaml: true, signed: false };

    const NOTHING: Self = Self { json: false, msgpack: false, yaml: false, signed: false };

    /// From kombu's names (`json`, `msgpack`, `yaml`, `auth`) or MIME types.
    ///
    /// # Errors
    /// When there is none, one is not known, or one is pickle.
    pub fn parse<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Self, UnknownContent> {
        let mut accept = Self::NOTHING;
        for name in names {
            let name = name.as_ref();
            match ContentType::of(name) {
                Some(ContentType::Json) => accept.json = true,
                Some(ContentType::Msgpack) => accept.msgpack = true,
                Some(ContentType::Yaml) => accept.yaml = true,
                Some(ContentType::Signed) => accept.signed = true,
                Some(ContentType::Pickle) => return Err(UnknownContent::Pickle(name.to_owned())),
                None => return Err(UnknownContent::Name(name.to_owned())),
            }
        }
        if accept == Self::NOTHING { Err(UnknownContent::None) } else { Ok(accept) }
    }

    /// Whether a body of this kind is taken.
    pub fn takes(self, kind: ContentType) -> bool {
        match kind {
            ContentType::Json => self.json,
            ContentType::Msgpack => self.msgpack,
            ContentType::Yaml => self.yaml,
            ContentType::Signed => self.signed,
            ContentType::Pickle => false,
        }
    }

    /// Decides whether a body is taken.
    pub(crate) fn decide(self, media_type: &str) -> Result<ContentType, Fault> {
        let kind = ContentType::of(media_type);
        kind.filter(|kind| self.takes(*kind)).ok_or_else(|| self.refusal(media_type, kind))
    }

    fn refusal(self, media_type: &str, kind: Option<ContentType>) -> Fault {
        let found = match kind {
            _ if media_type.is_empty() => "none".to_owned(),
            Some(ContentType::Pickle) => format!("`{media_type}`, a pickle, which is never read"),
            _ => format!("`{media_type}`"),
        };
        Fault::ContentRefused { expected: self.expected(), found }
    }

    fn expected(self) -> String {
        let taken = ContentType::KNOWN.into_iter().filter(|kind| self.takes(*kind));
        let names: Vec<String> = taken.map(|kind| format!("`{}`", kind.media_type())).collect();
        format!("content type {}", names.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_mime_types_are_the_same() {
        for kind in ContentType::KNOWN {
            assert_eq!(ContentType::of(kind.name()), Some(kind));
            assert_eq!(
                ContentType::of(&format!(" {};charset=x", kind.media_type().to_uppercase())),
                Some(kind)
            );
        }
        for unknown in ["", "text/plain", "raw", "application/text", "application/jsonp"] {
            assert_eq!(ContentType::of(unknown), None, "{unknown}");
        }
        let accept = AcceptContent::parse(["application/x-msgpack", "yaml"]).unwrap();
        let taken: Vec<_> = ContentType::KNOWN.into_iter().filter(|kind| accept.takes(*kind)).collect();
        assert_eq!(taken, [ContentType::Msgpack, ContentType::Yaml]);
        assert_eq!(AcceptContent::parse(["json"]), Ok(AcceptContent::default()));
    }

    #[test]
    fn what_is_not_taken_is_named() {
        let refused = |names: &[&str]| AcceptContent::parse(names).unwrap_err().to_string();
        assert_eq!(
            refused(&["json", "jsonp"]),
            "expected content types out of `json`, `msgpack`, `yaml`, `auth` or their MIME types, got `jsonp`"
        );
        assert!(refused(&["pickle"]).contains("to read a pickle is to run what is in it"));
        assert!(refused(&["application/x-python-serialize"]).contains("to read a pickle"));
        assert!(refused(&[]).ends_with("got none"));
        let accept = AcceptContent::parse(["json", "yaml"]).unwrap();
        assert_eq!(accept.decide("application/x-yaml"), Ok(ContentType::Yaml));
        let fault = accept.decide("application/x-msgpack").unwrap_err();
        assert_eq!(
            (fault.kind(), fault.to_string().as_str()),
            (
                "content-refused",
                "expected content type `application/json` or `application/x-yaml`, found `application/x-msgpack`"
            )
        );
    }
}
