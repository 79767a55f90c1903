"""Names of every byte and every length, deep paths, and many entries. argv: directory."""
import errno, os, subprocess, sys

os.chdir(sys.argv[1])
root = os.open('.', os.O_RDONLY)

# every byte that a name may hold, alone and within; and what is no UTF-8
os.mkdir('bytes')
names = {bytes([b]) for b in range(1, 256) if b not in b'/.'} | {b'a' + bytes([b]) + b'z' for b in range(1, 256) if b != ord('/')}
names |= {b'..a', b'...', b'-rf', b'a\nb', b'\xff\xfe\xc3', b'\xc3(', b'\xed\xa0\x80', 'e\u0301'.encode(), '\u00e9'.encode()}
for name in names:
    with open(b'bytes/' + name, 'xb') as f:
        f.write(name)
assert set(os.listdir(b'bytes')) == names
for name in names:
    assert open(b'bytes/' + name, 'rb').read() == name, name
    os.rename(b'bytes/' + name, b'bytes/' + name + b'.new')
    os.symlink(name, b'bytes/' + name)
    assert os.readlink(b'bytes/' + name) == name
assert set(os.listdir(b'bytes')) == names | {n + b'.new' for n in names}
found = subprocess.run(['find', 'bytes', '-type', 'f', '-print0'], capture_output=True, check=True).stdout
assert set(found.split(b'\0')[:-1]) == {b'bytes/' + n + b'.new' for n in names}
subprocess.run(['rm', '-r', 'bytes'], check=True)

# every length
os.mkdir('lengths')
for length in range(1, 256):
    os.mkdir(b'lengths/' + b'x' * length)
assert sorted(map(len, os.listdir('lengths'))) == list(range(1, 256))
for call in (lambda p: os.mkdir(p), lambda p: open(p, 'x'), lambda p: os.stat(p), lambda p: os.symlink('a', p),
             lambda p: os.rename('lengths/x', p), lambda p: os.unlink(p)):
    try:
        call('lengths/' + 'x' * 256)
        raise AssertionError('256 bytes are a name')
    except OSError as e:
        assert e.errno == errno.ENAMETOOLONG, e

# a tree far deeper than a path can say: 100 levels of 200 bytes
fd = root
for level in range(100):
    os.mkdir('%0200d' % level, dir_fd=fd)
    fd = os.open('%0200d' % level, os.O_RDONLY, dir_fd=fd)
with open(os.open('bottom', os.O_CREAT | os.O_RDWR, dir_fd=fd), 'w') as f:
    f.write('here')
os.fchdir(fd)
assert open('bottom').read() == 'here'
for _ in range(100):
    os.chdir('..')
assert os.stat('.').st_ino == os.fstat(root).st_ino
found = subprocess.run(['find', '.', '-name', 'bottom', '-printf', '%d'], capture_output=True, check=True).stdout
assert found == b'101', found
subprocess.run(['rm', '-r', '%0200d' % 0], check=True)
assert not os.path.exists('%0200d' % 0)
try:
    os.stat('a/' * 2047 + 'abc')
except OSError as e:
    assert e.errno in (errno.ENAMETOOLONG, errno.ENOENT), e
# 40 symlinks are followed, a ring is not
os.symlink('ring', 'ring')
try:
    os.stat('ring')
    raise AssertionError('a ring was followed')
except OSError as e:
    assert e.errno == errno.ELOOP, e
print('ok')
