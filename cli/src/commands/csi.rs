//! `granary csi`: the driver, over the node's socket.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use granary_core::{Error, Kind, NamespaceName, SystemClock};
use granary_csi::pod::Pod;
use granary_csi::{
    Gate, Held, Kube, MountWanted, Mounted, NewVolume, Role, ServeOptions, Space, Volumes, Warmth, serve,
};
use granary_meta::{Durability, NamespaceChange, NamespaceInfo};

mod tokens;

use crate::args::{CsiArgs, CsiRole};
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::log;
use crate::node::signals::{self, Stop};
use crate::token_file::{self, Secret};
use crate::wire::{
    ChangeRequest, CreateRequest, ListRequest, MountReply, MountRequest, RemoveRequest, SpaceStatus, Status,
    TokenReply, TokenRequest, UnmountReply, UnmountRequest, WarmRequest, WarmStatus, WarmWork,
};
use tokens::Tokens;

/// What the node process is asked to tell.
const TELL_WAIT: Duration = Duration::from_secs(15);
/// What it is asked to do; kubelet and the provisioner wait for two minutes.
const WORK_WAIT: Duration = Duration::from_secs(100);
/// What a clean unmount may take, and then each way of doing it without the node process.
const UNMOUNT_WAIT: Duration = Duration::from_secs(30);
/// Mounts at one directory, one over the other.
const LAYERS_MAX: usize = 64;

pub fn run(args: &CsiArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    log::start(&settings)?;
    let role = match args.serve {
        CsiRole::Controller => Role::Controller,
        CsiRole::Node => Role::Node,
        CsiRole::Both => Role::Both,
    };
    let (gate, kube) = who_may(args, role)?;
    let options = ServeOptions {
        socket: socket_of(&args.endpoint)?,
        role,
        node_id: args.node_id.clone(),
        gate,
        events: kube.clone().filter(|_| args.events),
        labels: kube.filter(|_| args.labels),
        clock: Arc::new(SystemClock),
    };
    let tokens = args
        .delegate
        .clone()
        .filter(|_| role != Role::Controller)
        .map(|file| Tokens::new(&settings, file, &args.delegate_ttl))
        .transpose()?;
    let volumes_token = args.volumes_token.clone();
    let volumes = Arc::new(NodeVolumes { node: Client::new(&settings.socket), tokens, volumes_token });
    block_on(async {
        let stop = Stop::default();
        signals::watch(&stop)?;
        tracing::info!(socket = %options.socket.display(), "serving CSI");
        Ok(serve(options, volumes, stop.begin.cancelled_owned()).await?)
    })
}

/// Who decides, and the API server where something needs it.
fn who_may(args: &CsiArgs, role: Role) -> Outcome<(Gate, Option<Arc<Kube>>)> {
    let mounts = role != Role::Controller;
    let file = match args.access.as_deref() {
        Some("none") => None,
        Some(file) => Some(PathBuf::from(file)),
        None if !mounts => None,
        None => {
            return Err(Failure::usage(
                "say which pods may mount what: --access FILE, a file of grants; or --access none, where whoever reaches the socket \
                 may mount everything",
            ));
        }
    };
    if !mounts || file.is_none() && !args.events && !args.labels {
        return Ok((Gate::Open, None));
    }
    let kube = Arc::new(Kube::new(&kube_api(args)?, &args.kube_credentials)?);
    let gate = match file {
        None => Gate::Open,
        Some(grants) => {
            // One that cannot be used is told now; later it is read anew each time.
            granary_csi::grants::Grants::read(&grants)?;
            Gate::Guarded { grants, kube: kube.clone() }
        }
    };
    Ok((gate, Some(kube)))
}

/// As given, else as Kubernetes tells every pod.
fn kube_api(args: &CsiArgs) -> Outcome<String> {
    if let Some(api) = &args.kube_api {
        return Ok(api.clone());
    }
    let told = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (told("KUBERNETES_SERVICE_HOST"), told("KUBERNETES_SERVICE_PORT")) {
        (Some(host), Some(port)) if host.contains(':') => Ok(format!("https://[{host}]:{port}")),
        (Some(host), Some(port)) => Ok(format!("https://{host}:{port}")),
        _ => Err(Failure::usage(
            "the API server is needed to know pods, and this is no pod of a cluster: give --kube-api URL, or --access none without \
             --events and --labels",
        )),
    }
}

fn socket_of(endpoint: &str) -> Outcome<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    Err(Failure::usage(format!(
        "--endpoint {endpoint:?} cannot be used: write unix:///PATH, the whole path of a socket"
    )))
}

/// What the node process is asked.
struct NodeVolumes {
    node: Client,
    /// Makes a token for each volume; `None`: the node process mounts by its own.
    tokens: Option<Tokens>,
    /// The file of the token by which volumes are made and deleted; `None`: by the node process' own.
    volumes_token: Option<PathBuf>,
}

/// Kinds by which the interface's callers decide what to do.
const TOLD: [Kind; 13] = [
    Kind::NotFound,
    Kind::Exists,
    Kind::Invalid,
    Kind::NameTooLong,
    Kind::Permission,
    Kind::Denied,
    Kind::Unsupported,
    Kind::Unavailable,
    Kind::Busy,
    Kind::NotEmpty,
    Kind::ReadOnly,
    Kind::NoSpace,
    Kind::QuotaExceeded,
];

/// A failure in the words of the other crates.
fn error(failure: Failure) -> Error {
    let kind = TOLD.into_iter().find(|kind| failure.is(*kind)).unwrap_or(match failure.exit {
        2 => Kind::Invalid,
        3 => Kind::Unavailable,
        _ => Kind::Io,
    });
    Error::new(kind, failure.message)
}

fn space(info: NamespaceInfo) -> Space {
    Space { namespace: info.name, bytes_max: info.usage.bytes_max }
}

fn text(path: &Path) -> granary_core::Result<String> {
    super::text_of(path).map_err(error)
}

/// What is wrong with a namespace on this node.
fn trouble(space: SpaceStatus) -> Option<String> {
    let ended = space.service.as_ref().and_then(tokens::trouble);
    space.disk_error.or(space.damage).or(ended).or(space.error)
}

/// Without the links that lead to it, as the kernel lists it. What is mounted there is not asked.
fn resolved(dir: &Path) -> PathBuf {
    let above = dir.parent().and_then(|above| above.canonicalize().ok());
    above.zip(dir.file_name()).map_or_else(|| dir.to_owned(), |(above, name)| above.join(name))
}

/// Mount options without `ro`, which is told apart.
fn without_ro(options: &str) -> String {
    options.split(',').filter(|word| *word != "ro").collect::<Vec<_>>().join(",")
}

/// An answer of the node process, within a bound.
async fn within<T>(wait: Duration, asked: impl Future<Output = Outcome<T>>) -> granary_core::Result<T> {
    match tokio::time::timeout(wait, asked).await {
        Ok(answer) => answer.map_err(error),
        Err(_) => Err(Error::new(
            Kind::Unavailable,
            format!(
                "the node process of this machine did not answer within {} s; see its log",
                wait.as_secs()
            ),
        )),
    }
}

impl NodeVolumes {
    /// By which volumes are made, listed, grown and deleted.
    async fn volumes_token(&self) -> granary_core::Result<Option<Secret>> {
        let Some(path) = self.volumes_token.clone() else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || token_file::read(&path)).await;
        let read = read.map_err(|e| Error::new(Kind::Bug, format!("reading a token failed: {e}")))?;
        read.map(Some).map_err(error)
    }

    async fn status(&self) -> granary_core::Result<Status> {
        within(TELL_WAIT, self.node.get("/v1/status")).await
    }

    async fn warmups(&self) -> granary_core::Result<Vec<WarmStatus>> {
        within(TELL_WAIT, self.node.get("/v1/warmups")).await
    }

    /// By the node process, so that what programs did is handed over; lazily when it is in use.
    async fn unmount_clean(&self, dir: &Path) -> Outcome<()> {
        let dir = super::text_of(dir)?;
        let request = |lazy| UnmountRequest { dir: dir.clone(), lazy };
        match self.node.post::<UnmountReply>("/v1/unmount", &request(false)).await {
            // Who still has it open is outside of every pod; the pod's end does not wait for them.
            Err(failure) if failure.is(Kind::Busy) => {
                self.node.post::<UnmountReply>("/v1/unmount", &request(true)).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}

#[async_trait]
impl Volumes for NodeVolumes {
    async fn ready(&self) -> granary_core::Result<()> {
        match within(TELL_WAIT, self.node.is_there()).await? {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Unavailable,
                "no node process answers on this machine; start `granary node`",
            )),
        }
    }

    async fn create(&self, new: NewVolume) -> granary_core::Result<Space> {
        let request = CreateRequest {
            namespace: new.namespace.to_string(),
            uid: Some(new.uid),
            gid: Some(new.gid),
            mode: Some(new.mode),
            bytes_max: new.bytes_max,
            inodes_max: 0,
            durability: if new.durable_in_store { Durability::Object } else { Durability::Local },
            trash_ms: new.trash_ms,
            packed: None,
            token: self.volumes_token().await?,
        };
        within(WORK_WAIT, self.node.post("/v1/namespaces/create", &request)).await.map(space)
    }

    async fn list(&self) -> granary_core::Result<Vec<Space>> {
        let request = ListRequest { token: self.volumes_token().await? };
        let asked = self.node.post("/v1/namespaces/list", &request);
        let all: Vec<NamespaceInfo> = within(TELL_WAIT, asked).await?;
        Ok(all.into_iter().map(space).collect())
    }

    async fn find(&self, namespace: &NamespaceName) -> granary_core::Result<Space> {
        let all = self.list().await?;
        if let Some(found) = all.into_iter().find(|space| space.namespace == *namespace) {
            return Ok(found);
        }
        // The node process' own token may reach none of those that it serves.
        let mounts = self.status().await?.mounts;
        let mounted = mounts.into_iter().find(|mount| mount.space.namespace == namespace.as_str());
        let space = mounted
            .map(|mount| Space { namespace: namespace.clone(), bytes_max: mount.space.usage.bytes_max });
        space.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("there is no namespace {namespace}: make it with `granary ns create {namespace}`"),
            )
        })
    }

    async fn set_quota(&self, namespace: &NamespaceName, bytes_max: u64) -> granary_core::Result<Space> {
        let change = NamespaceChange { bytes_max: Some(bytes_max), ..NamespaceChange::default() };
        let token = self.volumes_token().await?;
        let request = ChangeRequest { namespace: namespace.to_string(), change, token };
        within(WORK_WAIT, self.node.post("/v1/namespaces/set", &request)).await.map(space)
    }

    async fn remove(&self, namespace: &NamespaceName) -> granary_core::Result<()> {
        let token = self.volumes_token().await?;
        let request = RemoveRequest { namespace: namespace.to_string(), force: true, token };
        let _: serde_json::Value =
            within(WORK_WAIT, self.node.post("/v1/namespaces/remove", &request)).await?;
        Ok(())
    }

    async fn mount(&self, wanted: MountWanted, pod: Option<&Pod>) -> granary_core::Result<()> {
        let token = match &self.tokens {
            Some(tokens) => Some(tokens.make(&wanted, pod).await?),
            None => {
                self.find(&wanted.namespace).await?;
                None
            }
        };
        let read_only = if wanted.read_only { ",ro" } else { "" };
        let request = MountRequest {
            namespace: wanted.namespace.to_string(),
            tree: wanted.tree,
            dir: text(&resolved(&wanted.dir))?,
            options: format!("{}{read_only}", wanted.options),
            meta: None,
            cache: None,
            token,
            limits: serde_json::Map::new(),
        };
        let _: MountReply = within(WORK_WAIT, self.node.post("/v1/mount", &request)).await?;
        Ok(())
    }

    async fn renew(&self, wanted: &MountWanted, pod: Option<&Pod>) -> granary_core::Result<()> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let dir = text(&resolved(&wanted.dir))?;
        let mount = self.status().await?.mounts.into_iter().find(|mount| mount.dir == dir);
        // What the node process works by without our tokens does not end with them.
        let Some(link) = mount.and_then(|mount| mount.space.service).filter(|link| link.token.is_some())
        else {
            return Ok(());
        };
        if !tokens.are_due(&link, wanted.read_only) {
            return Ok(());
        }
        let renewed = async {
            let token = tokens.make(wanted, pod).await?;
            let request = TokenRequest { token, namespace: Some(wanted.namespace.to_string()) };
            let _: TokenReply = within(WORK_WAIT, self.node.post("/v1/token", &request)).await?;
            Ok(())
        };
        match renewed.await {
            Ok(()) => Ok(()),
            Err(e) => tokens::put_off(wanted, tokens::left_ms(&link, wanted.read_only), e),
        }
    }

    async fn unmount(&self, dir: &Path) -> granary_core::Result<()> {
        let dir = resolved(dir);
        let clean = within(UNMOUNT_WAIT, self.unmount_clean(&dir)).await;
        // What is left: a dead mount below, or all of it when the node process is gone or hangs. What programs wrote is on its disk.
        let left = dir.clone();
        let detached = tokio::task::spawn_blocking(move || detach_all(&left));
        let detached = match tokio::time::timeout(UNMOUNT_WAIT, detached).await {
            Ok(done) => {
                done.map_err(|e| Error::new(Kind::Bug, format!("detaching a mount failed: {e}")))??
            }
            Err(_) => {
                return Err(Error::new(
                    Kind::Unavailable,
                    format!(
                        "{} cannot be detached: the kernel does not answer; it is tried again",
                        dir.display()
                    ),
                ));
            }
        };
        match clean {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == Kind::NotFound && detached == 0 => Err(e),
            Err(e) => {
                tracing::warn!(dir = %dir.display(), "detached without the node process: {e}");
                Ok(())
            }
        }
    }

    async fn mounted(&self, dir: &Path) -> granary_core::Result<Option<Mounted>> {
        let dir = text(&resolved(dir))?;
        let found = self.status().await?.mounts.into_iter().find(|mount| mount.dir == dir);
        found
            .map(|mount| {
                let namespace = mount.space.namespace.parse()?;
                Ok(Mounted {
                    namespace,
                    tree: mount.tree,
                    read_only: mount.read_only,
                    options: mount.options.map(|options| without_ro(&options)),
                    trouble: trouble(mount.space),
                })
            })
            .transpose()
    }

    async fn shows(&self, dir: &Path) -> granary_core::Result<bool> {
        let dir = dir.to_owned();
        let looked = tokio::task::spawn_blocking(move || {
            Ok(granary_fuse::mount::table::at(&resolved(&dir))?.is_some_and(|mount| mount.is_ours()))
        });
        looked.await.map_err(|e| Error::new(Kind::Bug, format!("looking for a mount failed: {e}")))?
    }

    async fn shown(&self) -> granary_core::Result<Vec<PathBuf>> {
        let looked = tokio::task::spawn_blocking(granary_fuse::mount::table::read);
        let all =
            looked.await.map_err(|e| Error::new(Kind::Bug, format!("looking for mounts failed: {e}")))??;
        let ours: BTreeSet<_> =
            all.into_iter().filter(|mount| mount.is_ours()).map(|mount| mount.path).collect();
        Ok(ours.into_iter().collect())
    }

    async fn warm(&self, dir: &Path, paths: &[String]) -> granary_core::Result<u64> {
        let path = text(&resolved(dir))?;
        let same = |job: &&WarmStatus| !job.ended && job.path == path && job.work == WarmWork::Fetch;
        if let Some(job) = self.warmups().await?.iter().find(same) {
            return Ok(job.id);
        }
        let files = (!paths.is_empty()).then(|| paths.to_vec());
        let request = WarmRequest { path, files, work: WarmWork::Fetch, background: true };
        Ok(within(TELL_WAIT, self.node.warm(&request, |_| ())).await?.id)
    }

    async fn warmth(&self, id: u64) -> granary_core::Result<Warmth> {
        let job = self.warmups().await?.into_iter().find(|job| job.id == id);
        let job = job.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "the node process was started anew while it brought a volume; it is begun again",
            )
        })?;
        let failed = job.first_failure.filter(|_| job.failed > 0);
        Ok(Warmth {
            bytes_here: job.bytes_here,
            bytes_total: job.bytes_total,
            counted: job.counted,
            ended: job.ended,
            failure: job.failure.map(|failure| failure.message).or(failed),
        })
    }

    async fn held(&self) -> granary_core::Result<Vec<Held>> {
        let status = self.status().await?;
        let held = status.mounts.into_iter().map(|mount| mount.space).map(|space| {
            let cached_bytes = space.cached_bytes.max(brought(&status.warmups, &space.namespace));
            let namespace: NamespaceName = space.namespace.parse()?;
            Ok((namespace.clone(), Held { namespace, cached_bytes, bytes: space.usage.bytes }))
        });
        Ok(held.collect::<granary_core::Result<BTreeMap<_, _>>>()?.into_values().collect())
    }
}

/// What the last warmups of a namespace found on this node at their end, files that have a copy of their own included, which the read
/// cache does not count for a namespace. `warmups`: the oldest first.
fn brought(warmups: &[WarmStatus], namespace: &str) -> u64 {
    let of_it = warmups.iter().filter(|job| job.ended && job.namespace == namespace);
    of_it.fold(0, |bytes, job| match job.work {
        WarmWork::Evict => 0,
        _ => bytes.max(job.bytes_here),
    })
}

/// Whatever of ours is mounted there, one over the other; how many.
fn detach_all(dir: &Path) -> granary_core::Result<usize> {
    for layers in 0..LAYERS_MAX {
        match granary_fuse::mount::table::at(dir)? {
            Some(mount) if mount.is_ours() => granary_fuse::unmount(dir, true)?,
            _ => return Ok(layers),
        }
    }
    Ok(LAYERS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for good in ["unix:///csi/csi.sock", "/csi/csi.sock"] {
            assert_eq!(socket_of(good).unwrap(), Path::new("/csi/csi.sock"));
        }
        for bad in ["unix://csi.sock", "tcp://0.0.0.0:1", ""] {
            assert_eq!(socket_of(bad).unwrap_err().exit, 2, "{bad}");
        }
    }

    #[test]
    fn what_is_asked_for_is_compared_without_ro() {
        assert_eq!(without_ro("noexec,idmap,ro"), "noexec,idmap");
        assert_eq!(without_ro("ro"), "");
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&top, top.join("link")).unwrap();
        assert_eq!(resolved(&top.join("link/target")), top.join("target"));
        assert_eq!(resolved(&top.join("link")), top.join("link"), "the last part may be a mount that hangs");
        assert_eq!(resolved(Path::new("/none/x")), Path::new("/none/x"));
    }

    #[test]
    fn what_warmups_brought_counts_until_it_is_dropped() {
        let job = |namespace: &str, work, ended, bytes_here| WarmStatus {
            namespace: namespace.to_owned(),
            work,
            ended,
            bytes_here,
            ..WarmStatus::default()
        };
        let mut all = vec![
            job("dataset/a", WarmWork::Fetch, true, 10),
            job("dataset/a", WarmWork::Check, true, 7),
            job("dataset/a", WarmWork::Fetch, false, 100),
            job("dataset/b", WarmWork::Pin, true, 50),
        ];
        assert_eq!(
            (brought(&all, "dataset/a"), brought(&all, "dataset/b"), brought(&all, "dataset/c")),
            (10, 50, 0)
        );
        all.push(job("dataset/a", WarmWork::Evict, true, 0));
        assert_eq!(brought(&all, "dataset/a"), 0);
    }

    #[tokio::test]
    async fn a_node_process_that_says_nothing_is_not_waited_for() {
        let silent = std::future::pending::<Outcome<()>>();
        let e = within(Duration::ZERO, silent).await.unwrap_err();
        assert!(e.kind() == Kind::Unavailable && e.to_string().contains("did not answer"), "{e}");
    }

    #[test]
    fn failures_keep_their_kind() {
        assert_eq!(error(Failure::of_kind(Kind::Busy, "x")).kind(), Kind::Busy);
        assert_eq!(error(Failure { kind: "Newer".into(), ..Failure::usage("x") }).kind(), Kind::Invalid);
    }
}
