use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use granary_core::{Kind, NamespaceName, Result, TestClock};
use serde_json::Value;

use super::*;
use crate::pod::Pod;
use crate::volumes::{Held, MountWanted, Mounted, NewVolume, Space, Warmth};

/// A node process of which only mounts are asked.
#[derive(Default)]
struct Fake {
    there: AtomicBool,
    broken: AtomicBool,
    trouble: Mutex<Option<String>>,
    mounts: Mutex<Vec<MountWanted>>,
}

fn never<T>() -> Result<T> {
    Err(Error::new(Kind::Bug, "not asked in this test"))
}

#[async_trait]
impl Volumes for Fake {
    async fn ready(&self) -> Result<()> {
        never()
    }
    async fn create(&self, _: NewVolume) -> Result<Space> {
        never()
    }
    async fn list(&self) -> Result<Vec<Space>> {
        never()
    }
    async fn find(&self, _: &NamespaceName) -> Result<Space> {
        never()
    }
    async fn set_quota(&self, _: &NamespaceName, _: u64) -> Result<Space> {
        never()
    }
    async fn remove(&self, _: &NamespaceName) -> Result<()> {
        never()
    }
    async fn renew(&self, _: &MountWanted, _: Option<&Pod>) -> Result<()> {
        never()
    }
    async fn mount(&self, wanted: MountWanted, _: Option<&Pod>) -> Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Unavailable, "the store is gone"));
        }
        self.mounts.lock().unwrap().push(wanted);
        self.there.store(true, Ordering::SeqCst);
        Ok(())
    }
    async fn unmount(&self, _: &Path) -> Result<()> {
        never()
    }
    async fn mounted(&self, _: &Path) -> Result<Option<Mounted>> {
        Ok(Some(Mounted {
            namespace: "user/alice".parse().unwrap(),
            tree: None,
            read_only: false,
            options: None,
            trouble: self.trouble.lock().unwrap().clone(),
        }))
    }
    async fn shows(&self, _: &Path) -> Result<bool> {
        Ok(self.there.load(Ordering::SeqCst))
    }
    async fn shown(&self) -> Result<Vec<PathBuf>> {
        never()
    }
    async fn warm(&self, _: &Path, _: &[String]) -> Result<u64> {
        never()
    }
    async fn warmth(&self, _: u64) -> Result<Warmth> {
        never()
    }
    async fn held(&self) -> Result<Vec<Held>> {
        never()
    }
}

type Events = Arc<Mutex<Vec<Value>>>;

async fn keep(State(events): State<Events>, Json(event): Json<Value>) -> StatusCode {
    events.lock().unwrap().push(event);
    StatusCode::CREATED
}

struct Scene {
    fake: Arc<Fake>,
    watch: Watch,
    events: Events,
    _credentials: tempfile::TempDir,
}

/// One volume at one pod, and an API server that keeps its events.
async fn scene() -> Scene {
    let (fake, events, credentials) =
        (Arc::new(Fake::default()), Events::default(), tempfile::tempdir().unwrap());
    let path = "/apis/events.k8s.io/v1/namespaces/team-a/events";
    let app = axum::Router::new().route(path, post(keep)).with_state(events.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let clock = Arc::new(TestClock::default());
    let watch = Watch {
        volumes: fake.clone(),
        turns: Arc::default(),
        published: Arc::default(),
        probes: Probes::new(clock.clone()),
        events: Some(Arc::new(Kube::new(&url, credentials.path()).unwrap())),
        labels: None,
        node_id: "node-1".to_owned(),
        clock,
    };
    let wanted = MountWanted {
        namespace: "user/alice".parse().unwrap(),
        tree: None,
        dir: "/".into(),
        read_only: false,
        options: "idmap".to_owned(),
    };
    let pod = ["team-a", "train-0", "u-1", "trainer"].map(str::to_owned);
    let [namespace, name, uid, account] = pod;
    watch.published.note(wanted, Some(Pod { namespace, name, uid, account }));
    Scene { fake, watch, events, _credentials: credentials }
}

impl Scene {
    /// Reasons of the events since the last time.
    fn told(&self) -> Vec<String> {
        self.events
            .lock()
            .unwrap()
            .drain(..)
            .map(|event| event["reason"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[tokio::test]
async fn a_dead_mount_is_made_again_and_told_at_the_pod() {
    let scene = scene().await;
    scene.fake.broken.store(true, Ordering::SeqCst);
    scene.watch.look_at_all().await;
    scene.watch.look_at_all().await;
    assert_eq!(scene.told(), ["VolumeUnhealthy"], "once, while it lasts");
    assert!(scene.watch.published.get(Path::new("/")).unwrap().trouble.unwrap().contains("store is gone"));
    scene.fake.broken.store(false, Ordering::SeqCst);
    scene.watch.look_at_all().await;
    let event = scene.events.lock().unwrap()[0].clone();
    assert_eq!(event["regarding"]["uid"], "u-1");
    assert_eq!(
        (event["type"].as_str(), event["reportingInstance"].as_str()),
        (Some("Warning"), Some("node-1"))
    );
    assert_eq!(scene.told(), ["VolumeMounted"]);
    let mounts = scene.fake.mounts.lock().unwrap().clone();
    assert_eq!((mounts.len(), mounts[0].options.as_str()), (1, "idmap"));
    scene.watch.look_at_all().await;
    assert!(scene.told().is_empty());
}

#[tokio::test]
async fn what_a_pod_may_not_have_any_more_is_not_mounted_for_it_again() {
    let scene = scene().await;
    scene.watch.published.change(Path::new("/"), |it| it.withdrawn = Some("nothing grants it".into()));
    scene.watch.look_at_all().await;
    assert_eq!(scene.told(), ["VolumeUnhealthy"]);
    let trouble = scene.watch.published.get(Path::new("/")).unwrap().trouble.unwrap();
    assert!(trouble.contains("not made again: nothing grants it"), "{trouble}");
    assert!(scene.fake.mounts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn trouble_behind_a_mount_is_told_when_it_begins_and_ends() {
    let scene = scene().await;
    scene.fake.there.store(true, Ordering::SeqCst);
    scene.watch.look_at_all().await;
    assert!(scene.told().is_empty());
    *scene.fake.trouble.lock().unwrap() = Some("the store does not answer".into());
    scene.watch.look_at_all().await;
    *scene.fake.trouble.lock().unwrap() = None;
    scene.watch.look_at_all().await;
    assert_eq!(scene.told(), ["VolumeUnhealthy", "VolumeHealthy"]);
}

#[test]
fn only_what_kubelet_stages_for_this_driver_is_staging() {
    let kubelet = "/var/lib/kubelet/plugins/kubernetes.io/csi";
    assert!(is_staging(Path::new(&format!("{kubelet}/csi.granary.dev/0123/globalmount"))));
    for other in [
        format!("{kubelet}/csi.other.dev/0123/globalmount"),
        format!("{kubelet}/csi.granary.dev/globalmount"),
        format!("{kubelet}/csi.granary.dev/0123/globalmount/below"),
        "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/pvc-1/mount".to_owned(),
        "/csi.granary.dev/0123/globalmount".to_owned(),
    ] {
        assert!(!is_staging(Path::new(&other)), "{other}");
    }
}

#[tokio::test]
async fn what_was_unpublished_meanwhile_is_left_alone() {
    let scene = scene().await;
    let turn = scene.watch.turns.take("/").await;
    let look = scene.watch.look_at_all();
    tokio::pin!(look);
    let waits = tokio::time::timeout(Duration::ZERO, &mut look).await;
    assert!(waits.is_err());
    scene.watch.published.remove(Path::new("/"));
    drop(turn);
    look.await;
    assert!(scene.fake.mounts.lock().unwrap().is_empty() && scene.told().is_empty());
}
