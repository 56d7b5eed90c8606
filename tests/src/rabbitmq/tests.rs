//! The harness itself: what the tests of rwork rest on.

use serde_json::json;

use super::{RabbitServer, Room};

#[tokio::test]
async fn a_server_serves_is_asked_and_comes_back() {
    let server = RabbitServer::start().unwrap();
    assert_eq!(server.eval("1 + 1").await.unwrap(), json!(2));
    let error = server.eval("error(no)").await.unwrap_err();
    assert!(error.to_string().contains("error: no"), "{error}");
    let vhost = server.fresh_vhost().await.unwrap();
    assert_eq!(server.queues(&vhost).await.unwrap(), []);
    assert_eq!(server.exchanges(&vhost).await.unwrap(), []);
    server.add_user("me", "secret").await.unwrap();
    server.permit("me", &vhost).await.unwrap();
    server.set_password("me", "other").await.unwrap();
    server.set_policy(&vhost, "^q$", &json!({"max-length": 3})).await.unwrap();
    for room in Room::ALL {
        server.starve(room).await.unwrap();
        assert_eq!(server.eval("rabbit_alarm:get_alarms() =/= []").await.unwrap(), json!(true), "{room:?}");
        server.feed(room).await.unwrap();
        assert_eq!(server.eval("rabbit_alarm:get_alarms()").await.unwrap(), json!([]), "{room:?}");
    }
    server.stop_app().await.unwrap();
    server.start_app().await.unwrap();
    assert_eq!(server.close_connections(&vhost, "test").await.unwrap(), 0);
    server.kill_9().unwrap();
    assert!(server.eval("1").await.is_err());
    server.start_again().unwrap();
    let vhosts = server.eval("rabbit_vhost:list_names()").await.unwrap();
    assert!(vhosts.as_array().unwrap().contains(&json!(vhost)), "{vhosts}");
    server.forbid("me", &vhost).await.unwrap();
    server.delete_vhost(&vhost).await.unwrap();
}
