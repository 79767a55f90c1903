# A program in a pod that writes, renames, reads back and compares until /tmp/end is there. What went wrong is in
# /tmp/failures; /tmp/beats has the time of each round that went well.
dir=$1
mkdir -p "$dir"
: >/tmp/failures
: >/tmp/beats
n=0
while [ ! -e /tmp/end ]; do
  n=$((n + 1))
  file=$dir/f$((n % 8))
  head -c 65536 /dev/urandom >/tmp/block
  if { cat /tmp/block >"$file.new" && mv "$file.new" "$file" && cmp /tmp/block "$file"; } 2>/tmp/words; then
    cut -d' ' -f1 /proc/uptime >>/tmp/beats
  else
    echo "round $n: $(cat /tmp/words)" >>/tmp/failures
  fi
done
: >/tmp/ended
exec sleep 1000000
