"""A directory of 100,000 entries: made, listed by ls and find, counted by du, changed while it is listed, removed. argv: directory."""
import os, subprocess, sys

COUNT = 100_000
os.chdir(sys.argv[1])
os.mkdir('crowd')
os.chdir('crowd')
for i in range(COUNT):
    os.close(os.open('entry-%06d' % i, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))

def out(*command):
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout

want = ['entry-%06d' % i for i in range(COUNT)]
assert out('ls').splitlines() == want
assert sorted(out('ls', '-U').splitlines()) == want
assert len(out('ls', '-l').splitlines()) == COUNT + 1
assert out('find', '.', '-type', 'f', '-size', '0', '-printf', 'x') == 'x' * COUNT
assert len(out('bash', '-c', 'printf "%s\n" entry-0[0-4]*').splitlines()) == COUNT // 2
assert out('du', '--inodes', '-s', '.').split()[0] == str(COUNT + 1)
assert os.stat('.').st_nlink == 2
# Removed, renamed and added while a listing goes on: what stays is listed once, and nothing twice.
seen = []
with os.scandir('.') as entries:
    for n, entry in enumerate(entries):
        seen.append(entry.name)
        if n % 50 == 0:
            i = int(entry.name[6:]) if entry.name.startswith('entry-') else None
            if i is not None and i % 2 == 0:
                os.unlink(entry.name)
            elif i is not None:
                os.rename(entry.name, 'moved-%06d' % i)
            open('new-%06d' % n, 'x').close()
assert len(seen) == len(set(seen)), 'an entry was listed twice'
now = set(os.listdir('.'))
stayed = set(want) & now
assert stayed <= set(seen), sorted(stayed - set(seen))[:5]
os.chdir('..')
subprocess.run(['rm', '-r', 'crowd'], check=True)
assert not os.path.exists('crowd')
print('ok')
