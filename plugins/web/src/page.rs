//! What a page says about itself.

/// The text of the first `<title>`, with white space collapsed and the common entities decoded.
pub(crate) fn title(html: &str) -> Option<String> {
    let lower = html.to_ascii_lowercase();
    let opening = lower.find("<title")?;
    let start = opening + lower.get(opening..)?.find('>')? + 1;
    let end = start + lower.get(start..)?.find("</title")?;
    let text: Vec<&str> = html.get(start..end)?.split_whitespace().collect();
    let text =
        ENTITIES.iter().fold(text.join(" "), |text, (entity, character)| text.replace(entity, character));
    (!text.is_empty()).then_some(text)
}

/// `&amp;` comes last: what it makes is not decoded again.
const ENTITIES: [(&str, &str); 6] =
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_found() {
        for (html, wanted) in [
            ("", None),
            ("<p>no title</p>", None),
            ("<title>never closed", None),
            ("<title> \n </title>", None),
            ("<html><TITLE lang=en>\n  Two\n words </Title>", Some("Two words")),
            ("<title>a &lt; b &amp;amp; c</title>", Some("a < b &amp; c")),
            ("\u{130}<title>\u{e9}</title>", Some("\u{e9}")),
        ] {
            assert_eq!(title(html).as_deref(), wanted, "{html}");
        }
    }
}
