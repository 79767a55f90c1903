//! Kubernetes' API server, as far as the driver asks it: it knows the tokens of a test's pods.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A pod, its account and its token.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    pub namespace: &'static str,
    pub account: &'static str,
    pub name: &'static str,
}

pub const ALICE: Pod = Pod { namespace: "users", account: "alice", name: "alice-0" };
pub const BOB: Pod = Pod { namespace: "users", account: "bob", name: "bob-0" };

/// Each account of `users` may write in what bears its name; and `more`, grants as well.
pub fn grants(more: &str) -> String {
    let own = r#"
        [[grant]]
        to = ["users/*"]
        namespaces = ["user/{account}"]
        rights = "rw"
    "#;
    format!("{own}{more}")
}

impl Pod {
    pub fn token(self) -> String {
        format!("token-of-{}-{}", self.namespace, self.name)
    }

    pub fn uid(self) -> String {
        format!("uid-of-{}-{}", self.namespace, self.name)
    }
}

/// It listens on loopback until the test ends.
pub struct Api {
    pub url: String,
    pods: Arc<Mutex<HashMap<String, Pod>>>,
}

impl Api {
    pub fn start() -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let pods = Arc::<Mutex<HashMap<String, Pod>>>::default();
        let known = pods.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A driver that was killed breaks off.
                let _broken = answer(&stream, &known.lock().expect("unpoisoned"));
            }
        });
        Api { url, pods }
    }

    pub fn knows(&self, pod: Pod) {
        self.pods.lock().expect("unpoisoned").insert(pod.token(), pod);
    }
}

fn answer(mut stream: &TcpStream, pods: &HashMap<String, Pod>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().expect("a length");
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let review: Value = serde_json::from_slice(&body).expect("a review");
    let status = match pods.get(review["spec"]["token"].as_str().expect("a token")) {
        None => json!({ "authenticated": false, "error": "unknown token" }),
        Some(pod) => json!({
            "authenticated": true,
            "audiences": review["spec"]["audiences"],
            "user": {
                "username": format!("system:serviceaccount:{}:{}", pod.namespace, pod.account),
                "extra": {
                    "authentication.kubernetes.io/pod-name": [pod.name],
                    "authentication.kubernetes.io/pod-uid": [pod.uid()],
                },
            },
        }),
    };
    let text = json!({ "status": status }).to_string();
    write!(
        stream,
        "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )
}
