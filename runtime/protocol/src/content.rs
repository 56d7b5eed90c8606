//! Which bodies are taken: the one place where a content type or a compression is decided on.

use crate::error::Fault;

/// The media type of JSON.
pub const JSON: &str = "application/json";

/// The character set that goes with [`JSON`].
pub const UTF_8: &str = "utf-8";

/// How a body is encoded. More kinds are added here, and with them their decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentType {
    /// `application/json`, always read as UTF-8.
    Json,
}

impl ContentType {
    /// Decides by the media type; its parameters and its case don't matter.
    pub fn of(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(JSON).then_some(Self::Json)
    }

    /// Decides whether a body is taken.
    pub(crate) fn accept(media_type: &str, compression: Option<&str>) -> Result<Self, Fault> {
        let Some(kind) = Self::of(media_type) else {
            let found = if media_type.is_empty() { "none".to_owned() } else { format!("`{media_type}`") };
            return Err(Fault::ContentRefused { expected: "content type `application/json`", found });
        };
        match compression {
            None | Some("") => Ok(kind),
            Some(codec) => Err(Fault::ContentRefused {
                expected: "a body without compression",
                found: format!("`{codec}`"),
            }),
        }
    }
}
