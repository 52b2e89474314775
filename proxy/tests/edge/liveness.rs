//! Whether the workers answer, for a watchdog.

use std::sync::Arc;
use std::time::Duration;

use accept::Sockets;
use proxy::Edge;

use crate::harness::Running;
use crate::reload_listeners::saying;

#[tokio::test]
async fn workers_answer_while_they_serve_and_are_not_asked_once_they_end() {
    let edge = Running::start(conf::Edge { threads: 3, ..saying("x") }).await;
    let handle = edge.handle.clone();
    assert_eq!(handle.answers(Duration::from_secs(30)).await, Ok(()));
    edge.end().await;
    assert_eq!(handle.answers(Duration::from_secs(30)).await, Ok(()), "nobody is left who could hang");
}

#[tokio::test]
async fn workers_that_do_not_come_to_it_are_named() {
    let sockets = Sockets::default();
    let mut change = sockets.change();
    // Bound, and not serving: nobody takes an order.
    let edge = Edge::bind(Arc::new(conf::Edge { threads: 2, ..saying("x") }), &mut change).await.unwrap();
    let handle = edge.handle();
    for _ in 0..2 {
        assert_eq!(handle.answers(Duration::from_millis(200)).await, Err(vec![0, 1]));
    }
}
