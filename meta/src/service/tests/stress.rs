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

const ROUNDS: u64 = 300;

/// Makes, changes and removes; answers recalls at once.
fn run(mut client: Client, me: u64, shared: granary_core::Ino) -> u64 {
    let (mut done, mut recalls) = (0, 0);
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
                        done += 1;
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    // Others may wait for what it holds.
    client.connection.leave();
    assert!(recalls > 0, "they did not meet");
    done
}

#[test]
fn threads_at_full_speed_all_come_to_their_end() {
    let rig = Rig::new();
    let mut first = rig.client(99);
    let shared = first.attr(create("shared", false)).ino;
    first.connection.leave();
    let done = Arc::new(AtomicU64::new(0));
    let (tell, told) = mpsc::channel();
    for me in 1..=4 {
        let who = identity("a", &["g"], Rights::ReadWrite);
        let mut client = Client::greet(&rig.service, who, hello(me, None)).unwrap();
        client.enter("group/g");
        let (done, tell) = (done.clone(), tell.clone());
        std::thread::spawn(move || {
            done.fetch_add(run(client, me, shared), Ordering::SeqCst);
            tell.send(()).unwrap();
        });
    }
    for _ in 1..=4 {
        told.recv_timeout(Duration::from_secs(120)).expect("somebody waits for ever");
    }
    assert_eq!(done.load(Ordering::SeqCst), 4 * 5 * ROUNDS);
    let space = rig.service.volume().namespace(&"group/g".parse().unwrap()).unwrap();
    assert_eq!(space.check().unwrap(), []);
    assert_eq!(rig.service.stats().parked, 0);
}
