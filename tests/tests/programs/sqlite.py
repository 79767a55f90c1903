"""Two processes write one database at once, in each journal mode; then one of two is killed in the middle. argv: directory."""
import os, signal, sqlite3, subprocess, sys

WRITER = r"""
import sqlite3, sys
path, mode, me, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
db = sqlite3.connect(path, timeout=120, isolation_level=None)
db.execute('pragma journal_mode=' + mode)
db.execute('pragma synchronous=full')
n = 0
while count < 0 or n < count:
    db.execute('begin immediate')
    total, = db.execute('select total from sum').fetchone()
    db.execute('insert into t(writer, n, b) values(?, ?, ?)', (me, n, bytes([me]) * 700))
    db.execute('update sum set total = ?', (total + 1,))
    db.execute('commit')
    print(n, flush=True)
    n += 1
"""

def start(path, mode, me, count):
    return subprocess.Popen([sys.executable, '-c', WRITER, path, mode, str(me), str(count)],
                            stdout=subprocess.PIPE, text=True)

def check(path, least):
    db = sqlite3.connect(path, timeout=120)
    assert db.execute('pragma integrity_check').fetchall() == [('ok',)]
    rows, = db.execute('select count(*) from t').fetchone()
    total, = db.execute('select total from sum').fetchone()
    assert rows == total, (rows, total)
    for me, acknowledged in least.items():
        found = [n for n, in db.execute('select n from t where writer = ? order by n', (me,))]
        assert found == list(range(len(found))), found
        assert len(found) >= acknowledged, (me, len(found), acknowledged)
    assert db.execute('select count(*) from t where b != zeroblob(0) and length(b) != 700').fetchone() == (0,)
    db.close()

def prepare(path, mode):
    db = sqlite3.connect(path)
    assert db.execute('pragma journal_mode=' + mode).fetchone() == (mode,)
    db.execute('create table t(id integer primary key, writer int, n int, b blob)')
    db.execute('create index i on t(writer, n)')
    db.execute('create table sum(total int)')
    db.execute('insert into sum values(0)')
    db.commit()
    db.close()

os.chdir(sys.argv[1])
for mode in ('delete', 'truncate', 'persist', 'wal'):
    path = mode + '.db'
    prepare(path, mode)
    writers = [start(path, mode, me, 60) for me in (1, 2)]
    for w in writers:
        lines = w.stdout.read().split()
        assert w.wait() == 0 and len(lines) == 60, (mode, w.returncode, lines)
    check(path, {1: 60, 2: 60})
    # One is killed while it writes; the other goes on over what it left, and takes its locks.
    path = mode + '-killed.db'
    prepare(path, mode)
    for victim in range(3, 9):
        doomed, other = start(path, mode, victim, -1), start(path, mode, victim + 10, 15)
        for _ in range(victim):
            assert doomed.stdout.readline()
        doomed.send_signal(signal.SIGKILL)
        acknowledged = victim + len(doomed.stdout.read().split())
        doomed.wait()
        assert len(other.stdout.read().split()) == 15 and other.wait() == 0
        check(path, {victim: acknowledged, victim + 10: 15})
    db = sqlite3.connect(path)
    db.execute('vacuum')
    db.close()
    check(path, {})
print('ok')
