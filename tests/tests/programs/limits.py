"""Sizes that may not be exceeded, appending, direct and synchronous I/O. argv: directory."""
import errno, mmap, os, resource, signal, sys, threading

os.chdir(sys.argv[1])

def fails(code, call):
    try:
        call()
    except OSError as e:
        assert e.errno == code, e
        return
    raise AssertionError('%s was expected' % errno.errorcode[code])

# RLIMIT_FSIZE: what fits is written, beyond it EFBIG (and SIGXFSZ, ignored here); truncation counts too
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
for flags in (0, os.O_APPEND, os.O_SYNC):
    for name in ('small', 'large.bin'):
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | flags)
        assert os.write(fd, b'x' * 99_000) == 99_000
        assert os.write(fd, b'y' * 5_000) == 1_000
        fails(errno.EFBIG, lambda: os.write(fd, b'z'))
        fails(errno.EFBIG, lambda: os.ftruncate(fd, 100_001))
        fails(errno.EFBIG, lambda: os.posix_fallocate(fd, 0, 100_001))
        assert os.fstat(fd).st_size == 100_000
        assert os.pread(fd, 10, 99_995) == b'y' * 5
        os.close(fd)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
# a signal when it is not ignored
pid = os.fork()
if pid == 0:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    os.write(os.open('signal', os.O_WRONLY | os.O_CREAT), b'0123456789')
    os.write(os.open('signal', os.O_WRONLY | os.O_APPEND), b'0')
    os._exit(0)
assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGXFSZ

# the largest file: 16 TiB less the last page, as on ext4; one byte beyond 16 TiB is refused
fd = os.open('huge', os.O_RDWR | os.O_CREAT)
top = (16 << 40) - 4096
os.pwrite(fd, b'end', top - 3)
assert os.fstat(fd).st_size == top
assert os.pread(fd, 10, top - 3) == b'end' and os.pread(fd, 10, 1 << 40) == b'\0' * 10
assert top - (2 << 20) <= os.lseek(fd, 0, os.SEEK_DATA) < top
fails(errno.EFBIG, lambda: os.pwrite(fd, b'x', 16 << 40))
fails(errno.EFBIG, lambda: os.ftruncate(fd, (16 << 40) + 1))
fails(errno.EINVAL, lambda: os.ftruncate(fd, -1))
os.close(fd)
os.unlink('huge')

# O_APPEND: four threads' records are whole and none is lost, whatever pwrite's offset says
fd = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def append(who):
    mine = os.open('log', os.O_WRONLY | os.O_APPEND)
    for n in range(300):
        assert os.write(mine, b'%d:%05d;' % (who, n) + b'.' * (n % 200) + b'\n') > 0
    os.close(mine)
threads = [threading.Thread(target=append, args=(who,)) for who in range(4)]
for t in threads: t.start()
for t in threads: t.join()
lines = open('log', 'rb').read().split(b'\n')[:-1]
assert sorted(l[:7] for l in lines) == sorted(b'%d:%05d' % (w, n) for w in range(4) for n in range(300))
assert all(len(l) == 8 + int(l[2:7]) % 200 for l in lines)

# O_DIRECT beside the page cache: each sees the other's bytes at once
page = mmap.mmap(-1, 8192)
for size in (8192, 4 << 20):
    with open('direct', 'wb') as f: f.write(b'a' * size)
    direct = os.open('direct', os.O_RDWR | os.O_DIRECT)
    cached = os.open('direct', os.O_RDWR)
    page[:] = b'b' * 8192
    assert os.pwritev(direct, [page], 0) == 8192
    assert os.pread(cached, 8192, 0) == b'b' * 8192
    os.pwrite(cached, b'c' * 4096, 4096)
    assert os.preadv(direct, [page], 0) == 8192
    assert page[:] == b'b' * 4096 + b'c' * 4096
    os.close(direct); os.close(cached)

# O_SYNC and O_DSYNC write what they say
for flag in (os.O_SYNC, os.O_DSYNC):
    fd = os.open('synchronous', os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flag)
    for n in range(20): os.write(fd, b'%d\n' % n)
    os.close(fd)
    assert open('synchronous').read().split() == [str(n) for n in range(20)]
print('ok')
