//! Threads at full speed on one directory and one file. Ends when all is done; a call that waits for ever is found by the
//! bound on the time of the whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use futures::executor::block_on;

use super::rig::*;
use crate::call::*;
use crate::lease::LeaseKind;
use crate::service::{Outgoing, Rights};

const CLIENTS: u64 = 4;
const ROUNDS: u64 = 300;

/// What all of them came to.
#[derive(Default)]
struct Sums {
    done: AtomicU64,
    recalls: AtomicU64,
    ended: AtomicU64,
}

/// Makes, changes and removes; answers recalls at once, until all have done their rounds: so none leaves with the shared file's lease
/// that another wants.
fn run(mut client: Client, me: u64, shared: granary_core::Ino, sums: &Sums) {
    let mut recalls = 0;
    for round in 0..ROUNDS {
        let file = format!("{me}-{round}");
        for call in [
            create(&file, round % 2 == 0),
            chmod(shared, 0o600 + me as u32),
            lookup(&file),
            Call::Lease { ino: shared },
            unlink(&file),
        ] {
            client.acked_below = client.next_id;
            let id = client.submit(call);
            loop {
                match block_on(client.connection.next()) {
                    Outgoing::Recall(recall) => {
                        recalls += 1;
                        assert!(matches!(recall.wanted, LeaseKind::Read | LeaseKind::Write));
                        client.connection.released(Released { id: recall.id, open: false });
                    }
                    Outgoing::Response(response) if response.id == id => {
                        response.result.unwrap();
                        sums.done.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    sums.ended.fetch_add(1, Ordering::SeqCst);
    while sums.ended.load(Ordering::SeqCst) < CLIENTS {
        recalls += client.give_all_up();
        std::thread::yield_now();
    }
    client.connection.leave();
    sums.recalls.fetch_add(recalls, Ordering::SeqCst);
}

#[test]
fn threads_at_full_speed_all_come_to_their_end() {
    let rig = Rig::new();
    let mut first = rig.client(99);
    let shared = first.attr(create("shared", false)).ino;
    first.connection.leave();
    let sums = Arc::new(Sums::default());
    let (tell, told) = mpsc::channel();
    for me in 1..=CLIENTS {
        let who = identity("a", &["g"], Rights::ReadWrite);
        let mut client = Client::greet(&rig.service, who, hello(me, None)).unwrap();
        client.enter("group/g");
        let (sums, tell) = (sums.clone(), tell.clone());
        std::thread::spawn(move || {
            run(client, me, shared, &sums);
            tell.send(()).unwrap();
        });
    }
    for _ in 1..=CLIENTS {
        told.recv_timeout(Duration::from_secs(300)).expect("somebody waits for ever");
    }
    assert_eq!(sums.done.load(Ordering::SeqCst), CLIENTS * 5 * ROUNDS);
    // Each had the lease once at least, and none gave it up unasked.
    let recalls = sums.recalls.load(Ordering::SeqCst);
    assert!(recalls >= CLIENTS - 1, "{recalls} recalls");
    let space = rig.service.volume().namespace(&"group/g".parse().unwrap()).unwrap();
    assert_eq!(space.check().unwrap(), []);
    assert_eq!(rig.service.stats().parked, 0);
}
