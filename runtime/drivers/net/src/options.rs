//! TLS parameters of a URL, by redis-py's names.

use std::path::PathBuf;

/// Whether the server must prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertReqs {
    /// It must. `optional` means the same on the client's side, as in Python's `ssl`.
    Required,
    /// Anybody will do.
    None,
}

/// How to speak TLS to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether the server must prove who it is.
    pub cert_reqs: CertReqs,
    /// PEM file; without it the system's roots.
    pub ca_certs: Option<PathBuf>,
    /// PEM file with our certificate chain.
    pub certfile: Option<PathBuf>,
    /// PEM file with our private key; without it `certfile` holds it too.
    pub keyfile: Option<PathBuf>,
    /// Whether the certificate must name the host.
    pub check_hostname: bool,
    /// Nobody asked for this lack of verification: connecting warns.
    pub is_default: bool,
}

const NAMES: &[&str] =
    &["ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"];

impl TlsOptions {
    /// With the system's roots and no certificate of ours.
    pub fn new(cert_reqs: CertReqs) -> Self {
        Self {
            cert_reqs,
            ca_certs: None,
            certfile: None,
            keyfile: None,
            check_hostname: true,
            is_default: false,
        }
    }

    /// What Celery does for a broker when no parameter says otherwise.
    pub fn unverified_by_default() -> Self {
        Self { is_default: true, ..Self::new(CertReqs::None) }
    }

    /// Sets one parameter; false when there is none of this name.
    ///
    /// # Errors
    /// What was expected instead of the value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let path = || Some(PathBuf::from(value));
        match name {
            "ssl_cert_reqs" => self.cert_reqs = CertReqs::parse(value)?,
            "ssl_ca_certs" => self.ca_certs = path(),
            "ssl_certfile" => self.certfile = path(),
            "ssl_keyfile" => self.keyfile = path(),
            "ssl_check_hostname" => {
                self.check_hostname = Self::truth(value)
                    .ok_or_else(|| format!("`{name}` to be `true` or `false` (not `{value}`)"))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads Python's and everybody else's words for yes and no.
    pub fn truth(word: &str) -> Option<bool> {
        match word.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    }
}

impl CertReqs {
    fn parse(word: &str) -> Result<Self, String> {
        match word.to_ascii_lowercase().trim_start_matches("cert_") {
            "required" | "optional" => Ok(Self::Required),
            "none" => Ok(Self::None),
            _ => Err(format!("`ssl_cert_reqs` to be `required`, `optional` or `none` (not `{word}`)")),
        }
    }
}

/// The names that [`TlsOptions::set`] knows.
pub fn parameters() -> &'static [&'static str] {
    NAMES
}

/// What was expected instead of this parameter, where these are known.
pub fn unknown_parameter(name: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .filter(|(likeness, _)| *likeness > 0.8);
    match near {
        Some((_, known)) => format!("a known parameter, not `{name}` (did you mean `{known}`?)"),
        None => format!("one of the parameters `{}`, not `{name}`", known.join("`, `")),
    }
}
