# How editors save: a new file renamed over the old one, a backup by rename or by copy, in place; each leaves the text and the mode
cd "$1"
VIM=$(command -v vim || command -v vim.tiny)
export HOME="$1"
text() { seq "$1" "$2" | sed 's/^/line /'; }
text 1 3000 >note
chmod 640 note
chown 61001:61002 note
ln note other-name
# vim, in each of its ways
for backup in yes no auto; do
  "$VIM" -u NONE -i NONE -n -es -c "set backupcopy=$backup backup writebackup" -c '%s/line/row/' -c 'wq' note
  grep -qx 'row 3000' note && [ "$(wc -l <note)" = 3000 ] && grep -qx 'line 1' note~
  "$VIM" -u NONE -i NONE -n -es -c "set backupcopy=$backup nobackup writebackup" -c '%s/row/line/' -c 'wq' note
  grep -qx 'line 3000' note
  [ "$(stat -c '%a %u:%g' note)" = '640 61001:61002' ]
done
# with a swap file, and fsync at writing
"$VIM" -u NONE -i NONE -es -c 'set fsync swapfile updatecount=1 directory=.' -c 'normal Gonew last line' -c 'wq' note
[ "$(tail -n 1 note)" = 'new last line' ]
[ -z "$(find . -name '*.sw?')" ]
# ed truncates and writes in place
printf ',s/new/old/\nw\nq\n' | ed -s note
[ "$(tail -n 1 note)" = 'old last line' ]
# sed -i and perl -i write beside and rename; sed keeps mode and owner
sed -i.orig 's/old last/very last/' note
[ "$(tail -n 1 note)" = 'very last line' ] && [ "$(tail -n 1 note.orig)" = 'old last line' ]
[ "$(stat -c '%a %u:%g' note)" = '640 61001:61002' ]
perl -i.bak -pe 's/very/really/' note
[ "$(tail -n 1 note)" = 'really last line' ]
# emacs: the first save moves the original away, or copies it and writes in place; later saves write in place
python3 - note <<'P'
import os, shutil, sys, tempfile
name = sys.argv[1]
def body(n): return ''.join('version %d line %d\n' % (n, i) for i in range(2000))
for n in range(30):
    before = os.stat(name)
    if n % 3 == 0:                                   # backup-by-renaming
        os.rename(name, name + '~')
        with open(name, 'w') as f: f.write(body(n)); f.flush(); os.fsync(f.fileno())
        os.chmod(name, before.st_mode & 0o7777); os.chown(name, before.st_uid, before.st_gid)
    elif n % 3 == 1:                                 # backup-by-copying
        shutil.copy2(name, name + '~')
        with open(name, 'r+') as f: f.write(body(n)); f.truncate(); f.flush(); os.fsync(f.fileno())
        assert os.stat(name).st_ino == before.st_ino
    else:                                            # atomic: a temporary file renamed over it, the directory made durable
        fd, tmp = tempfile.mkstemp(dir='.')
        with os.fdopen(fd, 'w') as f: f.write(body(n)); f.flush(); os.fsync(f.fileno())
        shutil.copystat(name, tmp); os.chown(tmp, before.st_uid, before.st_gid)
        os.rename(tmp, name)
        d = os.open('.', os.O_RDONLY); os.fsync(d); os.close(d)
        assert os.stat(name).st_ino != before.st_ino
    assert open(name).read() == body(n), n
    after = os.stat(name)
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_mtime_ns >= before.st_mtime_ns, n
P
