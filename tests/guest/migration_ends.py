#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A guest that powers itself off, resets itself or crashes in the midst of a move (payloads/ends.S).

Off or crashed it is nowhere: both sides say so and end, and nobody has its disk. Reset it moves on and is there.
Usage: migration_ends.py VMRUN PAYLOADS
"""
import concurrent.futures
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from migration_faults import SKIPPED, Side, Wrong, is_locked, wait_for
from migration_proxy import TO_SOURCE, TO_TARGET, Proxy

# Where the guest is told, and whether it has done it before the move goes on.
MOMENTS = [((TO_SOURCE, "PREPARED", 1, "before"), True), ((TO_TARGET, "PAGES", 3, "before"), True),
           ((TO_SOURCE, "REHEARSED", 1, "before"), True), ((TO_SOURCE, "REHEARSED", 2, "before"), True),
           ((TO_SOURCE, "REHEARSED", 2, "before"), False), ((TO_SOURCE, "REHEARSED", 2, "after"), False)]


class Ending:
    def __init__(self, vmrun, payloads, ring):
        parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vmrun-test-", dir=parent))
        self.source, self.target = (Side(vmrun, self.folder, name) for name in ("source", "target"))
        self.disk, self.payloads, self.ring, self.proxy = self.folder / "disk", payloads, ring, None
        self.machine = self.receive = None

    def begin(self, boundary, do):
        self.disk.write_bytes(bytes(1 << 20))
        self.machine = self.start(self.source, "run", "--name", "t", "--kernel", f"{self.payloads}/ends.elf", "--cmdline",
                                  str(self.ring), "--memory", "16M", "--disk", str(self.disk), "--console",
                                  f"file:{self.source.console}")
        wait_for("the guest's word", lambda: self.source.console.exists() and b"begun" in self.source.console.read_bytes())
        self.receive = self.start(self.target, "receive", "tcp://127.0.0.1:0", "--console", f"file:{self.target.console}")
        wait_for("the target's address", lambda: self.port())
        self.proxy = Proxy(("127.0.0.1", self.port()), boundary, do)

    def start(self, side, *args):
        with open(side.folder / "said", "wb") as said:
            return side.start(*args, stdout=subprocess.DEVNULL, stderr=said)

    def said(self, side):
        return (side.folder / "said").read_text()

    def port(self):
        found = re.search(r"at tcp://127\.0\.0\.1:(\d+)\n", self.said(self.target))
        return int(found[1]) if found else None

    @staticmethod
    def type(side, word):
        """Into the guest's serial port."""
        process = subprocess.Popen([side.vmrun, "console", "t"], env=side.env, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process.stdin.write(word.encode())
        process.stdin.flush()
        process.stdout.read(1)  # it is attached, and so the word is there
        return process

    def run(self, word, boundary, waits):
        def do(_proxy):
            if not waits:
                time.sleep(random.random() / 500)
            console = self.type(self.source, word)
            if waits and word == "r":
                wait_for("a reset", lambda: (self.source.status() or {}).get("resets") == 1)
            elif waits:
                self.machine.wait(30)
            console.terminate()
            console.wait()

        self.begin(boundary, do)
        code, out, err = self.source.call("migrate", "t", f"tcp://127.0.0.1:{self.proxy.port}", "--channels", "1",
                                          "--timeout", "10", "--on-timeout", "force")
        words = out + err
        if code == 0:
            self.arrived(word, waits, words)
        else:
            self.ended(word, words)
        if is_locked(self.disk):
            raise Wrong("its disk is locked for nobody")

    def arrived(self, word, waits, words):
        if word != "r" and waits:
            raise Wrong(f"it had ended, and moved: {words}")
        self.machine.wait(30)
        # It may have taken the word along.
        wait_for("it is there", lambda: "has come from" in self.said(self.target))
        if word == "r" or self.receive.poll() is None:
            self.type(self.target, "o").wait(30)
        if self.receive.wait(30) != 0 and word != "c":
            raise Wrong(f"its end there: {self.said(self.target)}")

    def ended(self, word, words):
        if word == "r":
            raise Wrong(f"it did not move: {words}")
        if "t did not move: the machine has ended" not in words:
            raise Wrong(f"migrate says: {words}")
        if self.machine.wait(30) != (3 if word == "c" else 0):
            raise Wrong(f"the source ended with {self.machine.returncode}: {self.said(self.source)}")
        if self.receive.wait(30) != 1 or "the machine has ended" not in self.said(self.target):
            raise Wrong(f"the target ended with {self.receive.returncode}: {self.said(self.target)}")

    def end(self):
        for process in (self.machine, self.receive):
            if process:
                process.kill()
                process.wait()
        if self.proxy:
            self.proxy.end()
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    vmrun, payloads = map(os.path.abspath, sys.argv[1:3])
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("skipped: no usable /dev/kvm")
        return SKIPPED
    doctor = subprocess.run([vmrun, "doctor", "--json"], stdout=subprocess.PIPE, text=True, check=False).stdout
    ring = 0 if json.loads(doctor).get("native") else 3

    def try_one(case):
        word, (boundary, waits) = case
        ending = Ending(vmrun, payloads, ring)
        try:
            ending.run(word, boundary, waits)
            return 0
        except (Wrong, subprocess.TimeoutExpired) as error:
            print(f"FAILED: {word} {' '.join(map(str, boundary))}: {error}\n{ending.said(ending.target)}")
            return 1
        finally:
            ending.end()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        failed = sum(pool.map(try_one, itertools.product("orc", MOMENTS)))
    print(f"{3 * len(MOMENTS)} ends in the midst of a move, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
