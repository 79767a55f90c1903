# A program in a pod that writes, renames, reads back and compares until /tmp/end is there. What went wrong is in
# /tmp/failures; /tmp/beats has the time of each round that went well.
dir=$1
mkdir -p "$dir"
: >/tmp/failures
: >/tmp/beats
# Open all the time: a log that grows, and a file without a name.
: >"$dir/log"
exec 3>>"$dir/log" 4>"$dir/gone" 5<"$dir/gone"
rm "$dir/gone"
n=0
while [ ! -e /tmp/end ]; do
  n=$((n + 1))
  file=$dir/f$((n % 8))
  head -c 65536 /dev/urandom >/tmp/block
  if {
    cat /tmp/block >"$file.new" && mv "$file.new" "$file" && cmp /tmp/block "$file" &&
      echo "$n" >&3 && echo "$n" >&4 && read -r said <&5 && [ "$said" = "$n" ]
  } 2>/tmp/words; then
    cut -d' ' -f1 /proc/uptime >>/tmp/beats
  else
    echo "round $n: $(cat /tmp/words)" >>/tmp/failures
  fi
done
[ "$(wc -l <"$dir/log")" -eq "$n" ] || echo "the log has $(wc -l <"$dir/log") lines of $n" >>/tmp/failures
: >/tmp/ended
exec sleep 1000000
