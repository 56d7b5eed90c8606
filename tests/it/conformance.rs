//! Every driver passes the suites of its traits.

use std::path::Path;
use std::sync::Arc;

use rwork_backend::ResultBackend;
use rwork_broker::Broker;
use rwork_embedded::{Embedded, Options};
use rwork_tests::conformance::{Place, backend, broker};

fn embedded(folder: &Path, place: &Place) -> anyhow::Result<Embedded> {
    let path = folder.join(format!("{}.db", place.name));
    Ok(Embedded::open(Options { path, lease: place.lease, ..Options::default() })?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_broker() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    broker::suite(async |place| Ok(Arc::new(embedded(folder.path(), &place)?) as Arc<dyn Broker>)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_backend() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    backend::suite(async |place| Ok(Arc::new(embedded(folder.path(), &place)?) as Arc<dyn ResultBackend>))
        .await
}
