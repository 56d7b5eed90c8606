//! Guests that end by themselves, but not by returning: panics, exits, recursion without end.

use rwork_tests::rig::Setup;
use rwork_tests::rig::component::TextGuest;

use super::{let_loose, unlimited};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_with_its_message_and_place() {
    let source = include_str!("../../fixtures/hostile/src/lib.rs");
    let ended =
        let_loose(Setup::new(&["math", "hostile"]), "hostile.panic", r#"["bo\"om"]"#, unlimited(), |sum| {
            sum.trapped += 1
        })
        .await;
    let line = 1 + source.lines().position(|line| line.contains("panic!(\"{message}\")")).unwrap();
    println!("{:?} {line}", ended.record);
    println!("{:#?}", ended.said);
    panic!()
}
