//! Who the driver is.

use std::collections::HashMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::DRIVER_NAME;
use crate::proto::identity_server::Identity;
use crate::proto::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
use crate::proto::*;
use crate::volumes::Volumes;

pub struct IdentityService {
    pub volumes: Arc<dyn Volumes>,
}

#[async_trait::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: DRIVER_NAME.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let capabilities = [
            Type::Service(Service { r#type: service::Type::ControllerService.into() }),
            Type::VolumeExpansion(VolumeExpansion { r#type: volume_expansion::Type::Online.into() }),
        ];
        let capabilities = capabilities.map(|r#type| PluginCapability { r#type: Some(r#type) }).into();
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    /// Ready when the node process answers. Until then the driver is well and only waits, which is no error: side-cars end on one.
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let ready = self.volumes.ready().await;
        if let Err(e) = &ready {
            tracing::info!("not ready: {e}");
        }
        Ok(Response::new(ProbeResponse { ready: Some(ready.is_ok()) }))
    }
}
