//! The embedded broker and backend: a path, and parameters that may stand in the URL or in `[embedded]`.

use rwork_embedded::{Embedded, Options};

use super::Place;
use crate::config::{Config, EMBEDDED, Parameter};

/// Opens the file.
pub(super) async fn open(config: &Config, place: &Place<'_>) -> anyhow::Result<Embedded> {
    let url = with_parameters(place.url, config.parameters(EMBEDDED));
    let mut options = Options::parse_url(&url)?;
    if options.path.is_relative() {
        options.path = config.resolve(place.key, &options.path.to_string_lossy());
    }
    // Opening touches the disk, and may wait for another process that does the same.
    Ok(tokio::task::spawn_blocking(move || Embedded::open(options)).await??)
}

/// The URL with the parameters of `[embedded]` that it does not name itself.
fn with_parameters<'a>(url: &str, parameters: impl Iterator<Item = &'a Parameter>) -> String {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let named = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let mut whole = url.to_owned();
    for Parameter { name, value, .. } in parameters.filter(|parameter| !named(&parameter.name)) {
        whole.push(if whole.contains('?') { '&' } else { '?' });
        whole.push_str(&format!("{name}={value}"));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    #[test]
    fn the_url_wins_over_the_table() {
        let parameter = |name: &str, value: &str| Parameter {
            table: EMBEDDED,
            name: name.to_owned(),
            value: value.to_owned(),
            origin: Origin::Default,
        };
        let table = [parameter("lease", "2"), parameter("synchronous", "full")];
        let with = |url: &str| with_parameters(url, table.iter());
        assert_eq!(with("embedded:a.db?lease=1"), "embedded:a.db?lease=1&synchronous=full");
        assert_eq!(with("embedded:a.db"), "embedded:a.db?lease=2&synchronous=full");
    }
}
