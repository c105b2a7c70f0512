#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs shellcheck over every file that names a shell in its first line. From the top of the tree.
set -eu
if ! command -v shellcheck >/dev/null; then
    echo "skipped: shellcheck is missing; tools/setup lint installs it"
    exit 77
fi
grep -rlIE --null -m1 '^#! ?/(usr/)?bin/(env )?(ba|da)?sh' .ci images tests tools |
    while IFS= read -r -d '' file; do
        head -n1 "$file" | grep -q '^#!' && printf '%s\0' "$file"
    done | xargs -0 shellcheck --external-sources
