"""Tells Granary which files will be read, and in which order: announce(any directory of the mount, names below it)."""
import fcntl, os, struct


def announce(directory, names, order=None, anew=True):
    order, taken, todo = os.getpid() if order is None else order, 0, [os.fsencode(name) + b"\0" for name in names]
    fd = os.open(directory, os.O_RDONLY)
    while todo or anew:
        count, size = 0, 16  # at most 16,383 bytes a call
        while count < len(todo) and size + len(todo[count]) < 1 << 14:
            count, size = count + 1, size + len(todo[count])
        message = struct.pack("<BBHIQ", 1, anew, count, 0, order) + b"".join(todo[:count])
        taken += fcntl.ioctl(fd, 0x40006701 + (len(message) << 16), bytearray(message))
        todo, anew = todo[count:], False
    os.close(fd)
    return taken  # the others are not there, or not for us to read
