"""What goes wrong, named by what the caller should do.

Each class is one of Granary's kinds of error and has its ``errno``; where Python has a class for the same thing, ours is
that too, so that ``except FileNotFoundError`` works. The message names the thing, the reason and the mend.
"""

import errno as _errno

__all__ = [
    "AccessError",
    "BugError",
    "BusyError",
    "CorruptError",
    "ExistsError",
    "GranaryError",
    "InterruptedCallError",
    "InvalidError",
    "IoError",
    "NoSpaceError",
    "NotFoundError",
    "StaleError",
    "UnavailableError",
    "UnsupportedError",
]


class GranaryError(Exception):
    """Any error of Granary. ``kind`` is its kind's name, ``errno`` the number a system call would give."""

    kind: str = "Bug"
    errno: int = _errno.EIO

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class NotFoundError(GranaryError, FileNotFoundError):
    """The data set, version, sample or file does not exist."""

    kind, errno = "NotFound", _errno.ENOENT


class ExistsError(GranaryError, FileExistsError):
    """It is there already and is not written over."""

    kind, errno = "Exists", _errno.EEXIST


class AccessError(GranaryError, PermissionError):
    """The file system or the store refuses us."""

    kind, errno = "Access", _errno.EACCES


class InvalidError(GranaryError, ValueError):
    """An argument cannot be meant so."""

    kind, errno = "Invalid", _errno.EINVAL


class UnsupportedError(GranaryError, NotImplementedError):
    """What is asked for is not done here."""

    kind, errno = "Unsupported", _errno.EOPNOTSUPP


class StaleError(GranaryError):
    """What is held is of an earlier state; open it again."""

    kind, errno = "Stale", _errno.ESTALE


class BusyError(GranaryError):
    """Somebody else uses it now; try later."""

    kind, errno = "Busy", _errno.EBUSY


class UnavailableError(GranaryError, ConnectionError):
    """The store does not answer; try later."""

    kind, errno = "Unavailable", _errno.EIO


class NoSpaceError(GranaryError, OSError):
    """A disk or a quota is full."""

    kind, errno = "NoSpace", _errno.ENOSPC


class CorruptError(GranaryError, OSError):
    """Bytes do not match their checksum or format. They are never returned as data."""

    kind, errno = "Corrupt", _errno.EIO


class IoError(GranaryError, OSError):
    """The local disk failed."""

    kind, errno = "Io", _errno.EIO


class InterruptedCallError(GranaryError, InterruptedError):
    """A signal or the end of the loader stopped it."""

    kind, errno = "Interrupted", _errno.EINTR


class BugError(GranaryError, RuntimeError):
    """A broken invariant of Granary's own."""

    kind, errno = "Bug", _errno.EIO


# Kinds of the core that a data set has no use for fall to the class whose reaction is the same.
_CLASSES = {
    "NotFound": NotFoundError,
    "Exists": ExistsError,
    "Access": AccessError,
    "Permission": AccessError,
    "Denied": AccessError,
    "Invalid": InvalidError,
    "NameTooLong": InvalidError,
    "FileTooLarge": InvalidError,
    "Range": InvalidError,
    "NotDirectory": InvalidError,
    "IsDirectory": InvalidError,
    "Unsupported": UnsupportedError,
    "Stale": StaleError,
    "Busy": BusyError,
    "WouldBlock": BusyError,
    "Unavailable": UnavailableError,
    "NoSpace": NoSpaceError,
    "QuotaExceeded": NoSpaceError,
    "ReadOnly": IoError,
    "Corrupt": CorruptError,
    "Io": IoError,
    "Interrupted": InterruptedCallError,
}


def _of(kind: str, errno: int, message: str) -> GranaryError:
    """What the extension raises."""
    error = _CLASSES.get(kind, BugError)(message)
    if error.kind != kind:
        error.kind, error.errno = kind, errno
    return error
