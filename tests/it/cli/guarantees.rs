//! `rwork doctor --guarantees`: the column of a configuration, and what would make it promise more.

use rwork_tests::rabbitmq::RabbitServer;
use rwork_tests::redis::{Options, RedisServer};
use serde_json::Value;

use super::Place;

/// The column, and what would make it stronger, by what it is about.
fn guarantees(place: &Place, arguments: &[&str]) -> (String, Vec<String>) {
    let arguments = [&["doctor", "--guarantees", "--json"], arguments].concat();
    let document: Value = serde_json::from_str(&place.run(&arguments).ok()).unwrap();
    let stronger = document["stronger"].as_array().unwrap().iter();
    let stronger = stronger.map(|check| check["what"].as_str().unwrap().to_owned()).collect();
    assert!(document["promises"].as_array().unwrap().iter().all(|promise| promise["kept"].is_string()));
    (document["column"].as_str().unwrap().to_owned(), stronger)
}

#[test]
fn a_file_is_told_in_words() {
    let place = Place::new();
    insta::assert_snapshot!("guarantees", place.run(&["doctor", "--guarantees"]).shown());
    place.write("rwork.toml", "[embedded]\nsynchronous = \"full\"");
    assert_eq!(guarantees(&place, &[]), ("embedded".to_owned(), Vec::new()));
    place.write("rwork.toml", "task_acks_late = false\n[embedded]\nsynchronous = \"full\"");
    assert_eq!(guarantees(&place, &[]).1, ["acks"]);
}

#[test]
fn results_on_the_brokers_redis_are_another_column_than_elsewhere() {
    let durable = RedisServer::start(Options { append_only: true, ..Options::default() }).unwrap();
    let forgetful = RedisServer::shared();
    let place = Place::new();
    let (broker, database) = (durable.url(0), durable.url(1));
    assert_eq!(
        guarantees(&place, &["-b", &broker, "--backend", &database]),
        ("Redis".to_owned(), Vec::new())
    );
    let url = forgetful.url(RedisServer::fresh_database());
    let (column, stronger) = guarantees(&place, &["-b", &url, "--backend", &broker]);
    assert_eq!(column, "Redis, results elsewhere");
    assert_eq!(stronger, ["results", "disk"]);
    let (column, _) = guarantees(&place, &["-b", &broker, "--backend", "embedded:results.db"]);
    assert_eq!(column, "Redis, results elsewhere");
}

#[test]
fn rabbitmq_has_a_column_for_rpc() {
    let server = RabbitServer::shared();
    let url = server.url(&server.fresh_vhost_blocking().unwrap());
    let place = Place::new();
    let (column, stronger) = guarantees(&place, &["-b", &url]);
    assert_eq!(column, "RabbitMQ, results by rpc");
    assert_eq!(stronger, ["connections", "results", "queues"]);
    let (column, _) = guarantees(&place, &["-b", &url, "--backend", "embedded:results.db"]);
    assert_eq!(column, "RabbitMQ, results in Redis or a file");
}
