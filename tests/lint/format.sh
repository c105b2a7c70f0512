#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every C file looks as .clang-format says. Cure: clang-format -i FILE. From the top of the tree.
set -eu
if ! command -v clang-format >/dev/null; then
    echo "skipped: clang-format is missing; tools/setup lint installs it"
    exit 77
fi
find src include tests tools images -name '*.[ch]' -print0 | xargs -0 clang-format --dry-run -Werror
