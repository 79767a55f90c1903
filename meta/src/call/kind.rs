//! The kinds of calls, for metrics.

use super::Call;

macro_rules! kinds {
    ($($kind:ident $name:literal)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CallKind {
            $($kind,)*
        }

        impl CallKind {
            /// In the order of their numbers.
            pub const ALL: &[CallKind] = &[$(CallKind::$kind,)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(CallKind::$kind => $name,)*
                }
            }
        }

        impl Call {
            pub fn kind(&self) -> CallKind {
                match self {
                    $(Call::$kind { .. } => CallKind::$kind,)*
                }
            }
        }
    };
}

kinds! {
    Lookup "lookup"
    GetAttr "getattr"
    ReadDir "readdir"
    Parent "parent"
    ReadLink "readlink"
    GetXattr "getxattr"
    ListXattr "listxattr"
    SetXattr "setxattr"
    RemoveXattr "removexattr"
    Create "create"
    Tmpfile "tmpfile"
    Link "link"
    Unlink "unlink"
    Rmdir "rmdir"
    Rename "rename"
    SetAttr "setattr"
    Open "open"
    Close "close"
    Extents "extents"
    Commit "commit"
    Relocate "relocate"
    KeepInline "keep_inline"
    Live "live"
    Object "object"
    DeadObjects "dead_objects"
    LiveObjects "live_objects"
    ForgetObjects "forget_objects"
    CopyRange "copy_range"
    Sync "sync"
    Lease "lease"
    TestLock "test_lock"
    Lock "lock"
    Forget "forget"
    Peer "peer"
    Namespace "namespace"
    Namespaces "namespaces"
    CreateNamespace "create_namespace"
    SetNamespace "set_namespace"
    RemoveNamespace "remove_namespace"
    Sessions "sessions"
    RevokeToken "revoke_token"
    Delegate "delegate"
}
