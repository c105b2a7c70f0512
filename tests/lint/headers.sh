#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each header compiles alone, and twice in one file. Usage: headers.sh CC; from the top of the tree.
set -u
cc=$1
flags="-std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Wundef -Wstrict-prototypes -Werror -fsyntax-only"
failed=0

for header in include/vmrun/*.h src/*/*.h; do
    # shellcheck disable=SC2086 # the flags are many words
    if ! printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
        "$cc" $flags -I. -Iinclude -I"$(dirname "$header")" -x c -; then
        echo "$header: does not compile alone"
        failed=1
    fi
done
exit $failed
