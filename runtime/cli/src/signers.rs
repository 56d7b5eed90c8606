//! Who may sign messages: the certificates that `security_cert_store` names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rwork_protocol::{AcceptContent, Certificates, ContentType, Digest, Timestamp};

use crate::config::Config;
use crate::failure::Failure;

const STORE: &str = "security_cert_store";
/// A certificate takes some kilobytes; more is another file.
const CERTIFICATE_BYTES_MAX: u64 = 1 << 20;

/// Reads the certificates where signed messages are accepted. They are read once, when a worker starts, as Celery does.
///
/// # Errors
/// When there is no store, or a file in it is no certificate that can be trusted.
pub(crate) fn signers(config: &Config) -> anyhow::Result<Option<Arc<Certificates>>> {
    let settings = &config.settings;
    if !AcceptContent::parse(&settings.accept_content)?.takes(ContentType::Signed) {
        return Ok(None);
    }
    let Some(store) = &settings.security_cert_store else {
        let origin = config.origin("accept_content");
        let missing =
            format!("{origin}: expected `{STORE}` to be set where `auth` is accepted, found that it is not");
        let hint = format!("set `{STORE}` to the folder of the certificates of those who may sign messages");
        return Err(Failure::usage(missing).hint(hint).into());
    };
    let digest = Digest::of(settings.security_digest).unwrap_or_default();
    let mut texts = Vec::new();
    for path in certificates(config, store)? {
        let text = read(&path)?;
        trusted([&text], digest).map_err(|error| unusable(&path).because(error))?;
        texts.push(text);
    }
    let all = trusted(&texts, digest);
    Ok(Some(Arc::new(
        all.map_err(|error| Failure::usage(format!("failed to read `{store}`")).because(error))?,
    )))
}

fn trusted<T: AsRef<[u8]>>(
    texts: impl IntoIterator<Item = T>,
    digest: Digest,
) -> Result<Certificates, rwork_protocol::CertificateError> {
    Certificates::new(texts, digest, || Timestamp::from_system(SystemTime::now()))
}

/// The files of a folder, or those that fit a pattern.
fn certificates(config: &Config, store: &str) -> anyhow::Result<Vec<PathBuf>> {
    let place = config.resolve(STORE, store);
    let pattern = if place.is_dir() {
        // A folder's name is no pattern, whatever is in it.
        format!("{}/*", glob::Pattern::escape(&place.to_string_lossy()))
    } else {
        place.to_string_lossy().into_owned()
    };
    let origin = config.origin(STORE);
    let found = glob::glob(&pattern).map_err(|error| {
        Failure::usage(format!("{origin}: expected a folder or a pattern of files")).because(error)
    })?;
    let paths = found.collect::<Result<Vec<_>, _>>()?;
    if paths.is_empty() {
        let nothing = format!("{origin}: expected certificates at `{}`, found none", place.display());
        return Err(Failure::usage(nothing).hint("put the PEM file of each signer there").into());
    }
    Ok(paths)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::metadata(path).map_err(|error| unusable(path).because(error))?.len();
    if bytes > CERTIFICATE_BYTES_MAX {
        let found = format!("expected a file of at most {CERTIFICATE_BYTES_MAX} bytes, found {bytes}");
        return Err(unusable(path).because(found).into());
    }
    Ok(fs::read(path).map_err(|error| unusable(path).because(error))?)
}

fn unusable(path: &Path) -> Failure {
    Failure::usage(format!("failed to read the certificate `{}`", path.display()))
}
