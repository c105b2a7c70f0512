#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cppcheck over src. Usage: cppcheck.sh CACHE_FOLDER; from the top of the tree.
set -eu
if ! command -v cppcheck >/dev/null; then
    echo "skipped: cppcheck is missing; tools/setup lint installs it"
    exit 77
fi
mkdir -p "$1"
exec cppcheck --quiet --error-exitcode=1 --inline-suppr -j2 --cppcheck-build-dir="$1" \
    --enable=warning,performance,portability --std=c11 --platform=unix64 \
    --suppress=missingIncludeSystem -D_GNU_SOURCE -D__x86_64__ \
    --include=tests/lint/cppcheck.h -Iinclude src
