# A C library built by make -j on the mount, then changed and built again. $3: lz4's sources
cd "$1"
cp -r --no-preserve=all "$3" lib
cd lib
cat >Makefile.test <<'M'
OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))
all: program
program: main.o liblz4.a ; $(CC) -o $@ main.o liblz4.a
liblz4.a: $(filter-out main.o,$(OBJECTS)) ; $(AR) rcs $@ $^
%.o: %.c ; $(CC) -O1 -MMD -c -o $@ $<
-include $(wildcard *.d)
M
cat >main.c <<'C'
#include <stdio.h>
#include <string.h>
#include "lz4.h"
#include "lz4hc.h"
int main(int argc, char **argv) {
    static char in[1 << 20], out[1 << 21], back[1 << 20];
    for (size_t i = 0; i < sizeof in; i++) in[i] = (char)(i / 7 % 50);
    int n = LZ4_compress_HC(in, out, sizeof in, sizeof out, 9);
    int m = LZ4_decompress_safe(out, back, n, sizeof back);
    printf("%s %s\n", m == (int)sizeof in && !memcmp(in, back, m) ? "same" : "differs", argc > 1 ? argv[1] : "");
    return 0;
}
C
make -s -j4 -f Makefile.test
[ "$(./program one)" = 'same one' ]
# nothing to do: times are what make expects
make -q -f Makefile.test
touch lz4.h
! make -q -f Makefile.test
make -s -j4 -f Makefile.test
make -q -f Makefile.test
# a running program's file is not written, but replaced
mkfifo hold
sh -c 'exec 3<hold; exec ./program "$(cat <&3)"' >running &
pid=$!
cp program program.new && mv program.new program
echo two >hold
wait "$pid"
[ "$(cat running)" = 'same two' ]
cc -shared -fPIC -o libtest.so lz4.c && python3 -c 'import ctypes, sys; assert ctypes.CDLL(sys.argv[1]).LZ4_versionNumber() > 10000' "$PWD/libtest.so"
