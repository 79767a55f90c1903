use std::sync::Mutex;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use super::*;
use crate::grants::Rights;

/// What the API server answers, and what it was asked.
struct Api {
    answer: (StatusCode, Value),
    asked: Mutex<Vec<Value>>,
}

async fn review(State(api): State<Arc<Api>>, Json(body): Json<Value>) -> Response {
    api.asked.lock().unwrap().push(body);
    (api.answer.0, Json(api.answer.1.clone())).into_response()
}

/// An API server on this machine, which ends with the runtime.
async fn api(status: StatusCode, answer: Value) -> (String, Arc<Api>) {
    let api = Arc::new(Api { answer: (status, answer), asked: Mutex::default() });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let app = axum::Router::new().route(path, post(review)).with_state(api.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, api)
}

fn authenticated(account: &str, pod: &str, uid: &str) -> Value {
    json!({ "status": {
        "authenticated": true,
        "audiences": ["granary.dev"],
        "user": { "username": account, "extra": {
            "authentication.kubernetes.io/pod-name": [pod],
            "authentication.kubernetes.io/pod-uid": [uid],
        }},
    }})
}

/// As kubelet tells of the pod team-a/train-0.
fn context() -> HashMap<String, String> {
    [
        ("csi.storage.k8s.io/pod.name", "train-0"),
        ("csi.storage.k8s.io/pod.namespace", "team-a"),
        ("csi.storage.k8s.io/pod.uid", "u-1"),
        ("csi.storage.k8s.io/serviceAccount.name", "trainer"),
        ("csi.storage.k8s.io/serviceAccount.tokens", r#"{"granary.dev":{"token":"t-1"}}"#),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

const GRANTS: &str = "[[grant]]\nto = ['team-a/trainer']\nnamespaces = ['group/asr']\nrights = 'rw'\n";

struct Guard {
    dir: tempfile::TempDir,
    gate: Gate,
}

impl Guard {
    fn new(url: &str) -> Guard {
        let dir = tempfile::tempdir().unwrap();
        let grants = dir.path().join("access.toml");
        std::fs::write(&grants, GRANTS).unwrap();
        let kube = Arc::new(Kube::new(url, dir.path()).unwrap());
        Guard { dir, gate: Gate::Guarded { grants, kube } }
    }

    async fn ask(&self, volume: &str, claimed_by: Option<&str>) -> Result<Granted> {
        self.ask_with(volume, claimed_by, &context()).await
    }

    async fn ask_with(
        &self,
        volume: &str,
        claimed_by: Option<&str>,
        context: &HashMap<String, String>,
    ) -> Result<Granted> {
        let volume = volume.parse().unwrap();
        self.gate.check(Asked { volume: &volume, claimed_by, context, secrets: &HashMap::new() }).await
    }
}

const TRAINER: &str = "system:serviceaccount:team-a:trainer";

#[tokio::test]
async fn who_is_proved_gets_what_is_granted() {
    let (url, api) = api(StatusCode::CREATED, authenticated(TRAINER, "train-0", "u-1")).await;
    let guard = Guard::new(&url);
    let granted = guard.ask("group/asr:a", None).await.unwrap();
    assert_eq!(granted, Granted { rights: Rights::Write, squash: false });
    let e = guard.ask("group/nlp", None).await.unwrap_err();
    assert!(
        e.kind() == Kind::Permission
            && e.to_string().contains("group/nlp")
            && e.to_string().contains(TRAINER),
        "{e}"
    );
    let asked = api.asked.lock().unwrap()[0].clone();
    assert_eq!(asked["spec"], json!({ "token": "t-1", "audiences": ["granary.dev"] }));
    assert_eq!(
        (asked["kind"].as_str(), asked["apiVersion"].as_str()),
        (Some("TokenReview"), Some("authentication.k8s.io/v1"))
    );
}

#[tokio::test]
async fn what_a_claim_made_is_its_own_kubernetes_namespaces() {
    let (url, _) = api(StatusCode::CREATED, authenticated(TRAINER, "train-0", "u-1")).await;
    let guard = Guard::new(&url);
    assert_eq!(guard.ask("bucket/csi-pvc-1", Some("team-a")).await.unwrap(), EVERYTHING);
    for (volume, claimed_by) in [
        ("bucket/csi-pvc-1", Some("team-b")),
        ("bucket/csi-pvc-1", None),
        // No claim made these, whatever a PV says.
        ("user/alice", Some("team-a")),
        ("bucket/csi-pvc-1:tree", Some("team-a")),
    ] {
        let e = guard.ask(volume, claimed_by).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Permission, "{volume} {claimed_by:?}");
    }
}

#[tokio::test]
async fn the_file_is_read_each_time() {
    let (url, _) = api(StatusCode::CREATED, authenticated(TRAINER, "train-0", "u-1")).await;
    let guard = Guard::new(&url);
    assert!(guard.ask("group/asr", None).await.is_ok());
    let file = guard.dir.path().join("access.toml");
    std::fs::write(&file, "").unwrap();
    assert_eq!(guard.ask("group/asr", None).await.unwrap_err().kind(), Kind::Permission);
    std::fs::write(&file, "[[grant]").unwrap();
    let e = guard.ask("group/asr", None).await.unwrap_err();
    assert!(e.kind() == Kind::Invalid && e.to_string().contains("access.toml"), "{e}");
    std::fs::remove_file(&file).unwrap();
    assert!(guard.ask("group/asr", None).await.is_err());
}

#[tokio::test]
async fn what_cannot_be_proved_is_refused() {
    let good = authenticated(TRAINER, "train-0", "u-1");
    let unbound = json!({ "status": { "authenticated": true, "audiences": ["granary.dev"], "user": { "username": TRAINER } } });
    let other_audience = {
        let mut answer = good.clone();
        answer["status"]["audiences"] = json!(["vault"]);
        answer
    };
    let expired = json!({ "status": { "authenticated": false, "error": "token has expired" } });
    for (status, answer, kind, says) in [
        (StatusCode::CREATED, expired, Kind::Permission, "expired"),
        (StatusCode::CREATED, other_audience, Kind::Permission, "another audience"),
        (StatusCode::CREATED, authenticated(TRAINER, "train-1", "u-1"), Kind::Permission, "another pod"),
        (StatusCode::CREATED, authenticated(TRAINER, "train-0", "u-2"), Kind::Permission, "another pod"),
        (StatusCode::CREATED, unbound, Kind::Permission, "to none"),
        (
            StatusCode::CREATED,
            authenticated("system:serviceaccount:team-b:trainer", "train-0", "u-1"),
            Kind::Permission,
            "another service account",
        ),
        (
            StatusCode::CREATED,
            authenticated("alice", "train-0", "u-1"),
            Kind::Permission,
            "no service account",
        ),
        (StatusCode::CREATED, json!([1]), Kind::Unavailable, "cannot be read"),
        (StatusCode::FORBIDDEN, json!({ "message": "no" }), Kind::Denied, "create tokenreviews"),
        (StatusCode::INTERNAL_SERVER_ERROR, json!({}), Kind::Unavailable, "tried again"),
        (StatusCode::TOO_MANY_REQUESTS, json!({}), Kind::Unavailable, "tried again"),
        (StatusCode::FOUND, good, Kind::Invalid, "302"),
    ] {
        let (url, _) = api(status, answer.clone()).await;
        let e = Guard::new(&url).ask("group/asr", None).await.unwrap_err();
        assert!(e.kind() == kind && e.to_string().contains(says), "{answer}: {:?} {e}", e.kind());
        assert!(!format!("{e:?}").contains("t-1"), "{e:?}");
    }
}

#[tokio::test]
async fn what_kubelet_says_alone_proves_nothing() {
    let (url, api) = api(StatusCode::CREATED, authenticated(TRAINER, "train-0", "u-1")).await;
    let guard = Guard::new(&url);
    for key in context().into_keys() {
        let mut less = context();
        less.remove(&key);
        let e = guard.ask_with("group/asr", None, &less).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Permission, "{key}: {e}");
    }
    assert!(api.asked.lock().unwrap().is_empty(), "no token is shown before it can count");
}

#[tokio::test]
async fn without_an_api_server_nobody_gets_anything() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let e = Guard::new(&url).ask("bucket/csi-pvc-1", Some("team-a")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
}

#[tokio::test]
async fn without_kubernetes_another_orchestrator_has_decided() {
    let volume = "user/alice".parse().unwrap();
    let nothing = HashMap::new();
    let asked = Asked { volume: &volume, claimed_by: None, context: &nothing, secrets: &nothing };
    assert_eq!(Gate::Open.check(asked).await.unwrap(), EVERYTHING);
}
