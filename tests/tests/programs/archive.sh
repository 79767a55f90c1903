# tar, rsync and cp keep what they are asked to keep: links, holes, times, owners, extended attributes. $2 is a plain directory elsewhere
cd "$1"
make_tree() { # directory
  mkdir -p "$1/sub/deep"
  seq 1 2000 | split -l 10 - "$1/sub/part."
  ln "$1/sub/part.aa" "$1/hard"
  ln "$1/sub/part.aa" "$1/sub/deep/hard"
  ln -s sub/part.ab "$1/soft"
  ln -s /nowhere/at/all "$1/dangling"
  mkfifo "$1/fifo"
  mknod "$1/null" c 1 3
  truncate -s 20M "$1/sparse"
  printf hello | dd of="$1/sparse" bs=1 seek=11000000 conv=notrunc status=none
  head -c 3000000 /dev/urandom >"$1/large.bin"
  setfattr -n user.colour -v blue "$1/sub/part.ac"
  setfattr -n user.empty "$1/sub/deep"
  setfattr -n trusted.seal -v 0sAAECAw== "$1/large.bin"
  chmod 4751 "$1/sub/part.ad"
  chmod 1777 "$1/sub"
  chown 61001:61002 "$1/sub/part.ae"
  chown -h 61001:61002 "$1/soft"
  touch -d '2001-02-03 04:05:06.789012345' "$1/sub/part.af"
  touch -h -d '1969-12-31 23:59:58 UTC' "$1/dangling"
  touch -d '2038-01-20 00:00:00 UTC' "$1/hard"
}
# Everything about a tree that a copy must keep, one line an entry.
describe() {
  (
    cd "$1"
    find . -mindepth 1 -printf '%P|%y|%m|%U:%G|%n|%l|' \( -type d -o -printf '%s|%T@|' \) -printf '\n' | sort
    find . -type f -exec sha256sum {} + | sort -k2
    getfattr -Rdh -m - --absolute-names . | grep -v '^$'
    find . -links +1 -type f -printf '%i %P\n' | sort | awk '$1 != last { n++; last = $1 } { print n, $2 }' | sort -k2 | cut -d' ' -f2-
  )
}
blocks() { stat -c %b "$1"; }
make_tree source
describe source >"$2/want"
same() { describe "$1" >"$2/got"; diff "$2/want" "$2/got"; }

tar --xattrs --xattrs-include='*' --sparse -cf source.tar source
mkdir untarred
tar --xattrs --xattrs-include='*' --numeric-owner -xpf source.tar -C untarred
same untarred/source "$2"
(( $(blocks untarred/source/sparse) < 8192 ))
tar --compare --xattrs -f source.tar

# rsync leaves the time of a fifo, a device or a link alone when it is right to the second, on every file system: -1 makes it exact
rsync --modify-window=-1 -aHAXS --numeric-ids source/ synced/
same synced "$2"
(( $(blocks synced/sparse) < 8192 ))
[ -z "$(rsync --modify-window=-1 -aHAX --numeric-ids --itemize-changes --checksum --delete source/ synced/)" ]
printf more >>synced/sub/part.ag
rm synced/sub/part.ah
rsync --modify-window=-1 -aHAX --numeric-ids --inplace --no-whole-file --checksum --delete source/ synced/
same synced "$2"
# out to another file system and back
rsync --modify-window=-1 -aHAXS --numeric-ids source/ "$2/elsewhere/"
rsync --modify-window=-1 -aHAXS --numeric-ids "$2/elsewhere/" back/
same back "$2"

cp -a source copy
same copy "$2"
cp -a --reflink=auto --sparse=always source sparse-copy
same sparse-copy "$2"
(( $(blocks sparse-copy/sparse) < 8192 ))
cp --sparse=never source/sparse dense
cmp source/sparse dense
find source | cpio -o --quiet -H newc 2>/dev/null >source.cpio
mkdir uncpio && (cd uncpio && cpio -i --quiet -d -m --no-absolute-filenames <../source.cpio)
names() { (cd "$1" && find . -printf '%P|%y|%m|%l\n' | sort); }
diff <(names source) <(names uncpio/source)
(cd source && find . -type f -exec cmp {} ../uncpio/source/{} \;)
