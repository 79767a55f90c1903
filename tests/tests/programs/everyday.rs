//! Real programs at work on a mount, as a new user would, then all of it again from the store alone.

use granary_tests::{Node, StoreKind, read_tree, run_ok};

const WORK: &str = r#"
cd "$1"
export HOME="$1/home" GIT_CONFIG_NOSYSTEM=1 CARGO_TARGET_DIR="$1/crate/target"
mkdir home
# cp -a and tar keep times, modes and links
mkdir src && (cd src && seq 1 2000 | split -l 10 - part. && ln part.aa hard && ln -s part.ab soft && chmod 600 part.ac)
touch -d '2001-02-03 04:05:06.789' src/part.ad
cp -a src copy
tar cf src.tar src && mkdir untarred && tar xf src.tar -C untarred
diff -r src copy && diff -r src untarred/src
[ "$(stat -c '%y %a' copy/part.ad)" = "$(stat -c '%y %a' src/part.ad)" ]
[ "$(stat -c %h copy/hard)" = 2 ] && [ "$(readlink copy/soft)" = part.ab ]
# git: a repository, a clone, history, garbage collection
git init -q repo && cd repo && git config user.email a@b.c && git config user.name a
for i in $(seq 1 15); do seq 1 $((i * 100)) >f$i && git add . && git commit -qm "commit $i"; done
cd .. && git clone -q repo clone && cd clone && git gc -q --aggressive --prune=now && git fsck --strict 2>&1 && git checkout -q HEAD~5 && [ ! -e f12 ]
cd ..
# rsync, twice: the second has nothing to do
rsync -a src/ synced/ && [ -z "$(rsync -ai --delete src/ synced/)" ]
# an editor's save: write beside, fsync, rename over
python3 - <<'P'
import os
for i in range(50):
    with open('note.txt.swp', 'w') as f:
        f.write('text %d\n' % i * 100); f.flush(); os.fsync(f.fileno())
    os.rename('note.txt.swp', 'note.txt')
assert open('note.txt').read() == 'text 49\n' * 100
import mmap
with open('mapped', 'w+b') as f:
    f.truncate(200000)
    m = mmap.mmap(f.fileno(), 0)
    m[100000:100005] = b'hello'; m.flush(); m.close()
assert open('mapped', 'rb').read()[100000:100005] == b'hello'
import sqlite3
for mode in ('delete', 'wal'):
    db = sqlite3.connect('test-%s.db' % mode)
    db.execute('pragma journal_mode=' + mode)
    db.execute('create table t(a integer primary key, b text)')
    for i in range(30):
        with db: db.executemany('insert into t(b) values(?)', [('x' * 500,)] * 30)
    assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'
    assert db.execute('select count(*) from t').fetchone()[0] == 900
    db.close()
P
# a Python virtual environment
python3 -m venv --without-pip venv && venv/bin/python -c 'import json, sys; print(sys.prefix)' | grep -q "$1/venv"
# a compiler's work
mkdir -p crate/src && cd crate
printf '[package]\nname = "hello"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n' >Cargo.toml
printf 'fn main() { println!("hello from a crate") }\n' >src/main.rs
HOME=/root cargo build -q --offline && [ "$(target/debug/hello)" = "hello from a crate" ]
printf 'fn main() { println!("changed") }\n' >src/main.rs
HOME=/root cargo build -q --offline && [ "$(target/debug/hello)" = changed ]
cd .. && rm -rf untarred clone crate/target && [ ! -e clone ]
"#;

#[test]
fn real_programs_work_and_their_files_come_back() {
    let mut node = Node::new(StoreKind::Folder);
    let dir = node.mount("user/alice", "");
    run_ok(WORK, &[&dir]);
    let before = read_tree(&dir);
    let dir = node.come_back_from_the_store(&dir, "user/alice", "");
    assert!(before == read_tree(&dir), "the tree differs");
    run_ok(
        "cd $1 && git -C repo fsck --strict && diff -r src copy && venv/bin/python -c 'import sqlite3'",
        &[&dir],
    );
}
