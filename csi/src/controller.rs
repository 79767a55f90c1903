//! Volumes come, grow and go: a volume that is made is a namespace.

use std::sync::Arc;

use granary_core::{Error, Kind, NamespaceName};
use tonic::{Request, Response, Status};

use crate::access::Access;
use crate::handle::{Handle, MADE, is_made};
use crate::parameters::{Class, Context};
use crate::proto::controller_server::Controller;
use crate::proto::controller_service_capability::{Rpc, Type, rpc};
use crate::proto::validate_volume_capabilities_response::Confirmed;
use crate::proto::*;
use crate::status::{self, invalid};
use crate::turns::Turns;
use crate::volumes::{NewVolume, Space, Volumes};

/// What a volume without a quota may hold, as far as a scheduler needs a number: 1 EiB.
const CAPACITY_BYTES: i64 = 1 << 60;

pub struct ControllerService {
    pub volumes: Arc<dyn Volumes>,
    pub turns: Arc<Turns>,
}

/// The namespace of a volume by the name that the provisioner gave it. A name that is none for a namespace, or too long, is
/// replaced by its checksum behind what can be kept of it: the same name gives the same namespace.
fn namespace_of(kind: &str, name: &str) -> granary_core::Result<NamespaceName> {
    if name.is_empty() {
        return invalid("the volume's name is missing");
    }
    if let Ok(namespace) = format!("{kind}/{MADE}{name}").parse() {
        return Ok(namespace);
    }
    let kept: String = name.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    format!("{kind}/{MADE}{kept}_{:032x}", digest(name.as_bytes())).parse()
}

/// FNV-1a with 128 bits (Fowler, Noll, Vo; draft-eastlake-fnv).
fn digest(bytes: &[u8]) -> u128 {
    let (offset, prime) =
        (0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, 0x0000_0000_0100_0000_0000_0000_0000_013b_u128);
    bytes.iter().fold(offset, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(prime))
}

/// The quota that is wanted; 0: none.
fn wanted_bytes(range: Option<&CapacityRange>) -> granary_core::Result<u64> {
    let Some(range) = range else { return Ok(0) };
    let (required, limit) = (range.required_bytes, range.limit_bytes);
    if required < 0 || limit < 0 {
        return invalid("the volume's size is negative");
    }
    if limit > 0 && limit < required {
        return Err(Error::new(Kind::Range, "the volume's limit is less than what is required"));
    }
    Ok(if required > 0 { required as u64 } else { limit as u64 })
}

/// Whether a volume of this quota is what is asked for. Without a quota it holds whatever is required.
fn satisfies(bytes_max: u64, range: Option<&CapacityRange>) -> bool {
    range.is_none_or(|range| {
        let (required, limit) = (range.required_bytes.max(0) as u64, range.limit_bytes.max(0) as u64);
        let enough = bytes_max == 0 || bytes_max >= required;
        enough && (limit == 0 || (bytes_max > 0 && bytes_max <= limit))
    })
}

fn shown(bytes_max: u64) -> i64 {
    i64::try_from(bytes_max).unwrap_or(i64::MAX)
}

impl ControllerService {
    async fn create(&self, request: CreateVolumeRequest) -> granary_core::Result<Volume> {
        let class = Class::parse(&request.parameters)?;
        let namespace = namespace_of(&class.kind, &request.name)?;
        if request.volume_capabilities.is_empty() {
            return invalid("the volume's capabilities are missing");
        }
        for capability in &request.volume_capabilities {
            Access::parse(Some(capability))?;
        }
        if request.volume_content_source.is_some() {
            return Err(Error::new(
                Kind::Unsupported,
                "a volume cannot be made from a snapshot or another volume yet",
            ));
        }
        let range = request.capacity_range.as_ref();
        let new = NewVolume {
            namespace: namespace.clone(),
            uid: class.uid,
            gid: class.gid,
            mode: class.mode,
            bytes_max: wanted_bytes(range)?,
            durable_in_store: class.durable_in_store,
            trash_ms: class.trash_ms,
        };
        let handle = Handle::whole(namespace.clone());
        let _turn = self.turns.take(&handle.to_string()).await;
        let space = match self.volumes.create(new).await {
            Ok(space) => space,
            // Asked again: it is there.
            Err(e) if e.kind() == Kind::Exists => self.volumes.find(&namespace).await?,
            Err(e) => return Err(e),
        };
        if !satisfies(space.bytes_max, range) {
            return Err(Error::new(
                Kind::Exists,
                format!("the volume {} is there with another size ({} bytes)", request.name, space.bytes_max),
            ));
        }
        Ok(Volume {
            capacity_bytes: shown(space.bytes_max),
            volume_id: handle.to_string(),
            volume_context: class.context(),
            ..Volume::default()
        })
    }

    async fn delete(&self, id: &str) -> granary_core::Result<()> {
        let handle = match id.parse::<Handle>() {
            Ok(handle) => handle,
            Err(_) if id.is_empty() => return invalid("the volume's id is missing"),
            // Never one of ours: it is gone.
            Err(_) => return Ok(()),
        };
        if !handle.is_made() {
            return Err(Error::new(
                Kind::Permission,
                format!(
                    "{handle} was not made by a claim, and is not deleted with one: set persistentVolumeReclaimPolicy: Retain, \
                     or remove it with `granary ns remove`"
                ),
            ));
        }
        let _turn = self.turns.take(&handle.to_string()).await;
        match self.volumes.remove(&handle.namespace).await {
            Err(e) if e.kind() == Kind::NotFound => Ok(()),
            other => other,
        }
    }

    async fn there(&self, id: &str) -> granary_core::Result<(Handle, Space)> {
        if id.is_empty() {
            return invalid("the volume's id is missing");
        }
        let missing = || Error::new(Kind::NotFound, format!("there is no volume {id}"));
        let handle: Handle = id.parse().map_err(|_| missing())?;
        let space = self.volumes.find(&handle.namespace).await?;
        Ok((handle, space))
    }

    async fn validate(
        &self,
        request: ValidateVolumeCapabilitiesRequest,
    ) -> granary_core::Result<ValidateVolumeCapabilitiesResponse> {
        if request.volume_id.is_empty() {
            return invalid("the volume's id is missing");
        }
        if request.volume_capabilities.is_empty() {
            return invalid("the volume's capabilities are missing");
        }
        self.there(&request.volume_id).await?;
        let checked = request
            .volume_capabilities
            .iter()
            .try_for_each(|capability| Access::parse(Some(capability)).map(drop))
            .and_then(|()| Context::parse(&request.volume_context).map(drop))
            .and_then(|()| Class::parse(&request.parameters).map(drop));
        Ok(match checked {
            Ok(()) => ValidateVolumeCapabilitiesResponse {
                confirmed: Some(Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    mutable_parameters: request.mutable_parameters,
                }),
                message: String::new(),
            },
            Err(e) => ValidateVolumeCapabilitiesResponse { confirmed: None, message: e.to_string() },
        })
    }

    /// Those that claims made. A page's token is the last name on it.
    async fn list(&self, request: ListVolumesRequest) -> granary_core::Result<ListVolumesResponse> {
        if request.max_entries < 0 {
            return invalid("max_entries is negative");
        }
        let after = match request.starting_token.as_str() {
            "" => None,
            token => match token.parse::<NamespaceName>() {
                Ok(name) => Some(name),
                Err(_) => {
                    return Err(Error::new(
                        Kind::Busy,
                        "the starting token is none of this driver's: list from the start",
                    ));
                }
            },
        };
        let mut spaces = self.volumes.list().await?;
        spaces.sort_by(|a, b| a.namespace.cmp(&b.namespace));
        spaces.retain(|space| {
            is_made(&space.namespace) && after.as_ref().is_none_or(|after| space.namespace > *after)
        });
        let page = match request.max_entries {
            0 => spaces.len(),
            max => (max as usize).min(spaces.len()),
        };
        let next_token = match page < spaces.len() {
            true => spaces[page - 1].namespace.to_string(),
            false => String::new(),
        };
        let entry = |space: &Space| list_volumes_response::Entry {
            volume: Some(Volume {
                capacity_bytes: shown(space.bytes_max),
                volume_id: Handle::whole(space.namespace.clone()).to_string(),
                ..Volume::default()
            }),
            status: None,
        };
        Ok(ListVolumesResponse { entries: spaces[..page].iter().map(entry).collect(), next_token })
    }

    async fn expand(&self, request: ControllerExpandVolumeRequest) -> granary_core::Result<i64> {
        if request.volume_id.is_empty() {
            return invalid("the volume's id is missing");
        }
        let range = request.capacity_range.as_ref();
        if range.is_none() {
            return invalid("the size that is wanted is missing");
        }
        if let Some(capability) = &request.volume_capability {
            Access::parse(Some(capability))?;
        }
        let wanted = wanted_bytes(range)?;
        let (handle, _) = self.there(&request.volume_id).await?;
        if handle.tree.is_some() {
            return Err(Error::new(
                Kind::Invalid,
                format!(
                    "{handle} is a tree of a namespace, whose quota is the whole namespace's: `granary ns set {} --bytes-max`",
                    handle.namespace
                ),
            ));
        }
        let _turn = self.turns.take(&handle.to_string()).await;
        // Again under the turn: another call may have made it larger meanwhile.
        let space = self.volumes.find(&handle.namespace).await?;
        if space.bytes_max == 0 || space.bytes_max >= wanted {
            return Ok(shown(space.bytes_max));
        }
        Ok(shown(self.volumes.set_quota(&handle.namespace, wanted).await?.bytes_max))
    }
}

#[async_trait::async_trait]
impl Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let volume = self.create(request.into_inner()).await.map_err(status::of)?;
        Ok(Response::new(CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        self.delete(&request.into_inner().volume_id).await.map_err(status::of)?;
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        Ok(Response::new(self.validate(request.into_inner()).await.map_err(status::of)?))
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        match self.list(request.into_inner()).await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(e) if e.kind() == Kind::Busy => Err(Status::aborted(e.to_string())),
            Err(e) => Err(status::of(e)),
        }
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let request = request.into_inner();
        for capability in &request.volume_capabilities {
            Access::parse(Some(capability)).map_err(status::of)?;
        }
        Class::parse(&request.parameters).map_err(status::of)?;
        Ok(Response::new(GetCapacityResponse {
            available_capacity: CAPACITY_BYTES,
            maximum_volume_size: Some(CAPACITY_BYTES),
            minimum_volume_size: None,
        }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capabilities = [
            rpc::Type::CreateDeleteVolume,
            rpc::Type::ListVolumes,
            rpc::Type::GetCapacity,
            rpc::Type::ExpandVolume,
            rpc::Type::SingleNodeMultiWriter,
        ];
        let capability = |r#type: rpc::Type| ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: r#type.into() })),
        };
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: capabilities.map(capability).into(),
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let capacity_bytes = self.expand(request.into_inner()).await.map_err(status::of)?;
        // A quota counts at once, wherever it is mounted.
        Ok(Response::new(ControllerExpandVolumeResponse { capacity_bytes, node_expansion_required: false }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_namespace() {
        let of = |name: &str| namespace_of("bucket", name).unwrap().to_string();
        assert_eq!(of("pvc-8c1f2b"), "bucket/csi-pvc-8c1f2b");
        let (long, other) = ("x".repeat(128), format!("{}y", "x".repeat(127)));
        assert_eq!(of(&long), of(&long));
        assert_ne!(of(&long), of(&other));
        assert!(of("Größe / ../x").starts_with("bucket/csi-Gre"), "{}", of("Größe / ../x"));
        assert!(namespace_of("bucket", "").is_err());
        // The algorithm's published test values.
        assert_eq!(digest(b""), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(digest(b"a"), 0xd228cb696f1a8caf78912b704e4a8964);
    }

    #[test]
    fn sizes() {
        let range = |required_bytes, limit_bytes| CapacityRange { required_bytes, limit_bytes };
        assert_eq!(wanted_bytes(None).unwrap(), 0);
        assert_eq!(wanted_bytes(Some(&range(5, 0))).unwrap(), 5);
        assert_eq!(wanted_bytes(Some(&range(0, 7))).unwrap(), 7);
        assert_eq!(wanted_bytes(Some(&range(8, 7))).unwrap_err().kind(), Kind::Range);
        assert_eq!(wanted_bytes(Some(&range(-1, 0))).unwrap_err().kind(), Kind::Invalid);
        assert!(satisfies(0, None) && satisfies(0, Some(&range(5, 0))) && satisfies(6, Some(&range(5, 6))));
        assert!(
            !satisfies(4, Some(&range(5, 0)))
                && !satisfies(7, Some(&range(5, 6)))
                && !satisfies(0, Some(&range(0, 6)))
        );
    }
}
