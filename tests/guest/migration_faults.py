#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Harm at every boundary between two frames of a migration: exactly one side runs, whatever dies when.

Both sides are processes on this host's KVM, with a guest that checks its memory (payloads/torture.c) and a disk whose
lock decides; between them migration_proxy.py. After each fault: never two that run; none only where the one that had
the machine was killed; who runs finds its memory as it was and has the disk's lock, nobody else has; both sides said
what happened. Usage: migration_faults.py VMRUN PAYLOADS [--all] [--without-disk] [--only WORDS] [--jobs N] [--list]
"""
import argparse
import concurrent.futures
import fcntl
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

from migration_proxy import TO_SOURCE, TO_TARGET, Proxy

LINE = re.compile(rb"^torture ([0-9a-f]{16}) ([0-9a-f]{16}) [0-9a-f]{16} ([0-9a-f]{16}) ([0-9a-f]{16}) [0-9a-f]{16} "
                  rb"[0-9a-f]{16}\r?$", re.M)
STOP_SECONDS = 65  # longer than any timeout
PATIENCE = 200
F_OFD_GETLK = 36
SKIPPED = 77
FAULTS = ["kill source", "kill target", "stop source", "stop target", "reset", "silence to target", "silence to source",
          "silence", "wrong byte in a header", "wrong byte in a body"]
# What takes no minute, at the moments that matter most.
SAMPLE = [("kill source", TO_TARGET, "PAGES", "before"), ("kill target", TO_TARGET, "PAGES", "before"),
          ("wrong byte in a body", TO_TARGET, "PAGES", "before"), ("wrong byte in a header", TO_TARGET, "STATE", "before"),
          ("kill target", TO_SOURCE, "READY", "before"), ("reset", TO_SOURCE, "READY", "before"),
          ("kill source", TO_TARGET, "COMMIT", "before"), ("kill target", TO_TARGET, "COMMIT", "before"),
          ("reset", TO_TARGET, "COMMIT", "before"), ("silence to source", TO_TARGET, "COMMIT", "before"),
          ("silence", TO_TARGET, "COMMIT", "before"), ("kill source", TO_TARGET, "COMMIT", "after"),
          ("reset", TO_TARGET, "COMMIT", "after"), ("reset", TO_SOURCE, "DONE", "before"),
          ("kill target", TO_SOURCE, "DONE", "before"), ("wrong byte in a body", TO_SOURCE, "DONE", "before"),
          ("kill source", TO_SOURCE, "DONE", "after"),
          # A person, while the machine stands still: he is refused, or it is as he was told.
          ("ask pause", TO_SOURCE, "READY", "before"), ("ask pause", TO_SOURCE, "DONE", "before"),
          ("ask kill", TO_SOURCE, "READY", "before"), ("ask kill", TO_SOURCE, "DONE", "before"),
          ("ask reset", TO_SOURCE, "READY", "before")]
# Over several connections: what harms one of them, or what the others have to do with it.
SAMPLE_OF_SEVERAL = [("kill target", TO_TARGET, "HELLO", "before", 2), ("reset", TO_SOURCE, "WELCOME", "before", 2),
                     ("wrong byte in a body", TO_TARGET, "PAGES", "before", 2), ("kill source", TO_TARGET, "MARK", "before", 1),
                     ("reset", TO_TARGET, "MARK", "after", 1), ("kill target", TO_TARGET, "MARK", "after", 2),
                     ("kill target", TO_TARGET, "COMMIT", "before", 1), ("reset", TO_SOURCE, "DONE", "before", 1)]


under_way = set()
given_up = threading.Event()


def give_up(folder, number):
    given_up.set()
    for move in list(under_way):
        move.end()
    # Who was just being started may still write there.
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(128 + number)


def scratch():
    """A folder for the folders of moves, for as long as it is used."""
    return tempfile.TemporaryDirectory(prefix="vmrun-test-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


class Wrong(Exception):
    """A promise that was broken, in words."""


class Side:
    """One host: its sockets, its console, and the process that is or was the machine there."""

    def __init__(self, vmrun, folder, name):
        self.vmrun, self.folder, self.pid, self.killed = vmrun, folder / name, None, False
        self.console = self.folder / "console"
        (self.folder / "run").mkdir(parents=True, mode=0o700)
        self.env = dict(os.environ, XDG_RUNTIME_DIR=str(self.folder / "run"), XDG_CACHE_HOME=str(folder / "cache"))

    def start(self, *args, **more):
        if given_up.is_set():
            raise Wrong("given up")
        # Many of them at once are to leave the machine to others.
        return subprocess.Popen(["nice", "-n", "15", self.vmrun, *args], env=self.env, cwd=self.folder,
                                stdin=subprocess.DEVNULL, **more)

    def call(self, *args):
        with self.start(*args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise Wrong(f"vmrun {args[0]} does not end") from None
        return process.returncode, out, err

    def status(self):
        code, out, _ = self.call("status", "t", "--json")
        return json.loads(out) if code == 0 else None

    def lines(self):
        data = self.console.read_bytes() if self.console.exists() else b""
        return [[int(word, 16) for word in match.groups()] for match in LINE.finditer(data)]

    def signal(self, number):
        if self.pid:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        self.killed = True
        self.signal(signal.SIGKILL)

    def stop(self, seconds):
        self.signal(signal.SIGSTOP)
        threading.Timer(seconds, self.signal, [signal.SIGCONT]).start()

    def is_there(self):
        try:
            stat = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] not in "ZX"

    def goes_on(self, seconds):
        """Whether the guest says something more."""
        before, end = len(self.lines()), time.monotonic() + seconds
        while time.monotonic() < end:
            if len(self.lines()) > before:
                return True
            time.sleep(0.1)
        return False


def is_locked(path):
    """Whether somebody has one of the bytes that a writer of the image locks."""
    with open(path, "rb+") as image:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 100, 200, 0)
        return struct.unpack("hhqqi4x", fcntl.fcntl(image, F_OFD_GETLK, lock))[0] != fcntl.F_UNLCK


def wait_for(what, true, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise Wrong(f"{what}: not after {seconds} s")
        time.sleep(0.05)


class Move:
    """One move with one fault. fault: None, or (what, direction, name, number, "before" or "after")."""

    def __init__(self, options, fault):
        self.options, self.fault, self.words = options, fault, ""
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=options.folder))
        self.source, self.target = (Side(options.vmrun, self.folder, name) for name in ("source", "target"))
        self.disk, self.proxy, self.receive, self.record = self.folder / "disk", None, None, []
        self.answer = None  # to a person

    def begin(self):
        options = self.options
        disk = [] if options.without_disk else ["--disk", str(self.disk)]
        self.disk.write_bytes(bytes(1 << 20))
        shutil.copy(f"{options.payloads}/torture.elf", self.source.folder / "kernel")
        code, _, err = self.source.call("run", "--detach", "--name", "t", "--kernel", "kernel", "--cmdline",
                                        f"{options.ring} {options.words}", "--memory", "16M", *disk,
                                        "--console", f"file:{self.source.console}")
        if code:
            raise Wrong(f"it does not start: {err}")
        self.source.pid = self.source.status()["pid"]
        wait_for("the guest's first line", self.source.lines)
        self.listen()
        self.proxy = Proxy(("127.0.0.1", self.target_port()), self.fault[1:] if self.fault else None, self.harm,
                           self.record)

    def listen(self):
        with open(self.target.folder / "stderr", "wb") as errors:
            self.receive = self.target.start("receive", "tcp://127.0.0.1:0", "--console", f"file:{self.target.console}",
                                             stdout=subprocess.DEVNULL, stderr=errors)
        self.target.pid = self.receive.pid
        wait_for("the target's address", self.target_port)

    def target_said(self):
        path = self.target.folder / "stderr"
        return path.read_text() if path.exists() else ""

    def target_port(self):
        found = re.search(r"at tcp://127\.0\.0\.1:(\d+)\n", self.target_said())
        return int(found[1]) if found else None

    def harm(self, proxy):
        what = self.fault[0]
        if what == "kill source":
            self.source.kill()
        elif what == "kill target":
            self.target.kill()
            self.receive.wait()
        elif what == "stop source":
            self.source.stop(self.options.stop)
        elif what == "stop target":
            self.target.stop(self.options.stop)
        elif what == "reset":
            proxy.reset()
        elif what.startswith("silence"):
            for direction, word in ((TO_TARGET, "to target"), (TO_SOURCE, "to source")):
                proxy.silent[direction] = proxy.silent[direction] or what in ("silence", f"silence {word}")
        elif what.startswith("ask "):
            self.answer = self.source.call(what[4:], "t")
            self.source.killed = self.source.killed or (what == "ask kill" and self.answer[0] == 0)
        elif what == "wrong byte in a header":
            proxy.flip = (random.randrange(24), 1 << random.randrange(8))
        else:
            proxy.flip = (24 + random.randrange(1 << 30), 1 << random.randrange(8))

    def run(self):
        self.begin()
        # On a busy machine the stop may look too long for ever, and into a silence it is never tried.
        self.code, out, err = self.source.call("migrate", "t", f"tcp://127.0.0.1:{self.proxy.port}", "--channels",
                                               str(self.options.channels), "--timeout", "10", "--on-timeout", "force")
        self.words = (out + err).strip()
        # The target has it, or has ended, or waits for another machine.
        wait_for("the target knows", lambda: self.receive.poll() is not None or self.target.lines() or
                 "somebody was sent away" in self.target_said())
        self.judge()

    def judge(self):
        source, target = self.source.is_there() and self.source.status(), self.target.is_there() and self.target.status()
        runs = [bool(side) and side["state"] == "running" for side in (source, target)]
        if sum(runs) == 2:
            raise Wrong("it runs on both sides")
        if self.answer and self.answer[0] == 0 and any(runs):
            raise Wrong(f"somebody was told that it obeys: {self.fault[0]}, and it runs")
        for side, running in ((self.source, runs[0]), (self.target, runs[1])):
            if running and not side.goes_on(30):
                raise Wrong("who runs it does nothing")
            if not running and side.goes_on(0.3):
                raise Wrong("who does not run it does something")
        both = {line[1] for line in self.source.lines()} & {line[1] for line in self.target.lines()}
        if both:
            raise Wrong(f"the lines {sorted(both)} were said on both sides")
        for nonce, _, errors, back in self.source.lines() + self.target.lines():
            if errors or back or nonce != self.source.lines()[0][0]:
                raise Wrong("the guest found its memory or its time changed")
        if not self.options.without_disk and is_locked(self.disk) != any(runs):
            raise Wrong("it runs without the lock of its disk" if any(runs) else "the disk is locked for nobody")
        if not any(runs):
            self.judge_none(source)
        self.judge_words(runs)

    def judge_none(self, source):
        if self.source.killed:
            if self.proxy.passed("COMMIT"):
                raise Wrong("the source was killed after COMMIT arrived, and the target does not run it")
            return
        if self.target.killed and self.proxy.passed("COMMIT"):
            return  # the one that had it; the source is uncertain or gone
        if self.options.without_disk and source and source["state"] == "uncertain":
            return  # nobody can tell it who has it
        raise Wrong("it runs nowhere, and who had it was not killed")

    def judge_words(self, runs):
        said = [line for line in self.target_said().splitlines() if "waiting for a machine" not in line]
        if runs[1] is False and not self.target.killed and (self.receive.poll() == 0 or not said):
            raise Wrong(f"the target does not say why it ended (status {self.receive.poll()})")
        if not self.source.killed and (self.code == 0) != (runs == [False, True]) and not self.options.without_disk:
            if not (self.target.killed and self.proxy.passed("COMMIT")):
                raise Wrong(f"vmrun migrate ended with status {self.code}: {self.words}")
        if self.code and not self.words:
            raise Wrong("vmrun migrate failed without a word")

    def story(self):
        return (f"  migrate ({getattr(self, 'code', '-')}): {self.words}\n  receive ({self.receive and self.receive.poll()}): "
                f"{self.target_said().strip()}\n  frames: {' '.join(d + n for d, n, _, _ in self.proxy.frames[-8:]) if self.proxy else ''}")

    def end(self):
        for side in (self.source, self.target):
            side.signal(signal.SIGCONT)
            side.signal(signal.SIGKILL)
        if self.receive:
            self.receive.wait()
        if self.proxy:
            self.proxy.end()
        shutil.rmtree(self.folder, ignore_errors=True)


def try_one(options, fault):
    """(fault, what is wrong or None, the words of both sides, the frames that passed, whether the fault was reached)"""
    move = Move(options, fault)
    under_way.add(move)
    wrong = None
    try:
        move.run()
    except (Wrong, subprocess.TimeoutExpired, OSError, KeyError) as error:
        wrong = f"{type(error).__name__}: {error}" if not isinstance(error, Wrong) else str(error)
    try:
        frames = list(move.proxy.frames) if move.proxy else []
        return fault, wrong, move.story(), frames, bool(move.proxy and move.proxy.reached.is_set())
    finally:
        move.end()
        under_way.discard(move)


def every_fault(frames):
    for direction, name, number, _ in frames:
        for what in FAULTS:
            for when in ("before",) if what.startswith("wrong") else ("before", "after"):
                yield what, direction, name, number, when


def tell(fault):
    return f"{fault[0]} {fault[4]} {fault[2]}{fault[3] if fault[2] == 'PAGES' else ''}"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("vmrun", type=os.path.abspath)
    parser.add_argument("payloads", type=os.path.abspath)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--without-disk", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--stop", type=float, default=STOP_SECONDS)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    options.words = "1 256"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("skipped: no usable /dev/kvm")
        return SKIPPED
    doctor = subprocess.run([options.vmrun, "doctor", "--json"], stdout=subprocess.PIPE, text=True, check=False).stdout
    options.ring = 0 if '"native": true' in doctor else 3

    with scratch() as folder:
        options.folder = pathlib.Path(folder)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _frame: give_up(options.folder, number))
        return try_all(options)


def try_all(options):
    _, wrong, story, frames, _ = try_one(options, None)
    if wrong:
        print(f"FAILED without harm: {wrong}\n{story}")
        return 1
    sample = [(*fault, 1) for fault in SAMPLE] if options.channels == 1 else SAMPLE_OF_SEVERAL
    faults = list(every_fault(frames)) if options.all else [(what, way, name, n, when) for what, way, name, when, n in sample]
    faults = [fault for fault in faults if options.only in tell(fault)]
    if options.list:
        print("\n".join(tell(fault) for fault in faults))
        return 0
    # Those that wait are spread among those that do not.
    random.shuffle(faults)
    failed, missed, start = 0, 0, time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = concurrent.futures.as_completed([pool.submit(try_one, options, fault) for fault in faults])
        for number, done in enumerate(results, 1):
            fault, wrong, story, _, reached = done.result()
            if number % 50 == 0:
                print(f"{number} of {len(faults)} after {time.monotonic() - start:.0f} s", flush=True)
            failed += bool(wrong)
            missed += not reached
            if wrong:
                print(f"FAILED: {tell(fault)}: {wrong}\n{story}", flush=True)
    print(f"{len(faults)} faults ({len(frames)} frames without), {missed} of them at frames that did not come, {failed} failed")
    return int(failed > 0 or missed > len(faults) // 4)


if __name__ == "__main__":
    sys.exit(main())
