//! The wire encrypted: a service that shows a certificate, clients that know whom to trust.

use std::sync::Arc;

use granary_core::{Kind, SystemClock};
use tokio::sync::oneshot;

use super::super::Client;
use super::rig::*;
use crate::server::{ServeLimits, ServeOptions, TlsPem, serve};

/// Made for a hundred years; the authority's key was thrown away.
const CA: &[u8] = include_bytes!("pem/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("pem/server.pem");
const KEY: &[u8] = include_bytes!("pem/server.key");

#[test]
fn only_a_service_with_a_trusted_certificate_is_talked_to() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let rig = Rig::start().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let tls = Some(TlsPem { certificate: CERTIFICATE.to_vec(), key: KEY.to_vec() });
        let options = ServeOptions {
            listeners: vec![listener],
            tls,
            limits: ServeLimits::default(),
            clock: Arc::new(SystemClock),
            version: "test".into(),
        };
        let serving = tokio::spawn(serve(rig.service(), options, Arc::new(Names), async move {
            let _ = stopped.await;
        }));
        let with = |url: String, ca: Option<&[u8]>| {
            let mut options = rig.options("bob");
            options.urls = vec![url];
            options.tls_ca = ca.map(<[u8]>::to_vec);
            options.limits.connect_wait_ms_max = 20;
            options
        };
        let client = soon(Client::connect(with(format!("https://{address}"), Some(CA)))).await.unwrap();
        assert_eq!(client.namespaces().await.unwrap().len(), 1);
        client.close().await;
        // Somebody else's authority: here, the server's own certificate, which signs nothing.
        let e =
            soon(Client::connect(with(format!("https://{address}"), Some(CERTIFICATE)))).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Denied, "{e}");
        let e = soon(Client::connect(with(format!("https://{address}"), None))).await.unwrap_err();
        assert!(e.to_string().contains("meta_ca"), "{e}");
        let e = soon(Client::connect(with(format!("http://{address}"), None))).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Unavailable);
        stop.send(()).unwrap();
        soon(serving).await.unwrap().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = Some(TlsPem { certificate: b"nonsense".to_vec(), key: KEY.to_vec() });
        let (clock, limits) = (Arc::new(SystemClock), ServeLimits::default());
        let options = ServeOptions { listeners: vec![listener], tls, limits, clock, version: "test".into() };
        let e = serve(rig.service(), options, Arc::new(Names), std::future::pending()).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Invalid);
        rig.end().await;
    });
}
