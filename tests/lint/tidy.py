#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""clang-tidy over src, as .clang-tidy says. Usage: tidy.py BUILD_FOLDER; from the top of the tree.

A file that passed is not looked at again until it, a header, the rules or the tool change.
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

SKIPPED = 77


def digest(parts):
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def run(tidy, build, source):
    # A gcc build names warnings that clang does not know; they are not what is asked here.
    done = subprocess.run([tidy, "-p", build, "--quiet", "--extra-arg=-Wno-unknown-warning-option",
                           source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    # Its stderr only counts the warnings that it does not show, unless it could not run at all.
    return done.returncode == 0, done.stdout or done.stderr


def main():
    build = pathlib.Path(sys.argv[1])
    tidy = shutil.which("clang-tidy")
    if not tidy:
        print("skipped: clang-tidy is missing; tools/setup lint installs it")
        return SKIPPED
    top = pathlib.Path.cwd()
    cache = build / "clang-tidy-passed"
    cache.mkdir(exist_ok=True)
    headers = sorted([*top.glob("include/vmrun/*.h"), *top.glob("src/*/*.h")])
    version = subprocess.run([tidy, "--version"], stdout=subprocess.PIPE, check=True).stdout
    common = digest([version, (top / ".clang-tidy").read_bytes()] + [h.read_bytes() for h in headers])

    todo = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = pathlib.Path(entry["directory"], entry["file"])
        if top / "src" in source.parents:
            key = digest([common.encode(), entry["command"].encode(), source.read_bytes()])
            if not (cache / key).exists():
                todo[str(source)] = key

    failed = False
    with concurrent.futures.ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        jobs = {source: pool.submit(run, tidy, str(build), source) for source in sorted(todo)}
        for source, job in jobs.items():
            passed, words = job.result()
            if passed:
                (cache / todo[source]).touch()
            else:
                print(words.strip())
                failed = True
    print(f"{len(todo)} files looked at")
    return int(failed)


sys.exit(main())
