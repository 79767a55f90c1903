//! Errors, as gRPC says them. The message is for the person who reads the pod's events.

use granary_core::{Error, Kind, Result};
use tonic::{Code, Status};

/// A wish that cannot be.
pub(crate) fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(Kind::Invalid, message.into()))
}

/// The code by which Kubernetes' callers decide whether to try again.
pub(crate) fn of(error: Error) -> Status {
    let code = match error.kind() {
        Kind::NotFound => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::Invalid | Kind::NameTooLong => Code::InvalidArgument,
        Kind::Access | Kind::Permission | Kind::Denied => Code::PermissionDenied,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Unavailable => Code::Unavailable,
        // Begun and not done: to be asked again.
        Kind::Interrupted => Code::Aborted,
        Kind::Busy | Kind::NotEmpty | Kind::ReadOnly => Code::FailedPrecondition,
        Kind::NoSpace | Kind::QuotaExceeded => Code::ResourceExhausted,
        Kind::Range => Code::OutOfRange,
        _ => Code::Internal,
    };
    if let Some(level) = error.kind().log_level() {
        match level {
            tracing::Level::ERROR => tracing::error!("{error}"),
            _ => tracing::warn!("{error}"),
        }
    }
    Status::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        for (kind, code) in [
            (Kind::NotFound, Code::NotFound),
            (Kind::Invalid, Code::InvalidArgument),
            (Kind::Unavailable, Code::Unavailable),
            (Kind::Interrupted, Code::Aborted),
            (Kind::Permission, Code::PermissionDenied),
            (Kind::Busy, Code::FailedPrecondition),
            (Kind::Corrupt, Code::Internal),
        ] {
            let status = of(Error::new(kind, "the mend"));
            assert_eq!((status.code(), status.message()), (code, "the mend"));
        }
    }
}
