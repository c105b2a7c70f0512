#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The manual pages format without a warning. From the top of the tree.
set -u
if ! command -v man >/dev/null || ! command -v groff >/dev/null; then
    echo "skipped: man is missing; tools/setup lint installs it"
    exit 77
fi
failed=0
for page in docs/*.[1-8]; do
    words=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l "$page" 2>&1 >/dev/null)
    if [ -n "$words" ]; then
        echo "$page: $words"
        failed=1
    fi
done
exit $failed
