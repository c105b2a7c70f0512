#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a source of each released version of the protocol sent (tests/unit/data/stream-*.xz) is received, and runs.

And what is not quite that is refused: with a byte changed in each frame, cut before and in each frame, with a frame
left out. Where this host cannot have the machine, it must say why, and that is skipped.
Usage: migration_golden.py VMRUN PAYLOADS [--make FILE]: that makes one of the present version.
"""
import lzma
import pathlib
import socket
import struct
import subprocess
import sys
import types

from migration_faults import Move, Wrong, scratch, wait_for
from migration_proxy import HEADER, close, name_of, read_exactly

DATA = pathlib.Path(__file__).resolve().parent.parent / "unit" / "data"
GOLDEN = [("stream-1", 0x7039B75E8A6F3E45, 0x7)]
# What the target says to these.
ANSWERS = {"HELLO": "WELCOME", "MEMORY": "PREPARED", "REHEARSAL": "REHEARSED", "STATE": "READY", "COMMIT": "DONE"}
OTHER_HOST = ("lacks what the guest's CPU has: ", "TSC runs at ")
SKIPPED = 77


def frames_of(stream):
    at = 0
    while at < len(stream):
        kind, length = struct.unpack_from("<H4xI", stream, at + 2)
        yield name_of(kind), stream[at : at + HEADER + length]
        at += HEADER + length


def read_frame(sock):
    header = read_exactly(sock, HEADER)
    body = read_exactly(sock, struct.unpack_from("<I", header, 8)[0]) if header else None
    return (name_of(struct.unpack_from("<H", header, 2)[0]), body) if body is not None else ("an end", b"")


class Play(Move):
    """A receiver that is played frames; it ends, or runs."""

    def play(self, frames):
        """The first answer that was not the expected one, or None."""
        self.listen()
        sock = socket.create_connection(("127.0.0.1", self.target_port()))
        sock.settimeout(60)
        try:
            for name, frame in frames:
                sock.sendall(frame)
                if name in ANSWERS:
                    answer, body = read_frame(sock)
                    if answer != ANSWERS[name]:
                        return answer, body
        except OSError:
            return "an end", b""
        finally:
            close(sock)
        return None

    def refused(self, what, frames, words):
        try:
            self.play(frames)
            if self.receive.wait(60) != 1:
                raise Wrong(f"{what}: status {self.receive.returncode}")
            if not any(word in self.target_said() for word in words):
                raise Wrong(f"{what}: it says: {self.target_said()}")
            if self.target.lines():
                raise Wrong(f"{what}: it ran")
        finally:
            self.end()


def receives(options, name, nonce, line):
    """Skipped: the words."""
    frames, move = list(frames_of(lzma.open(DATA / f"{name}.xz").read())), Play(options, None)
    try:
        answer = move.play(frames)
        if answer and answer[0] == "REFUSED" and any(word in move.target_said() for word in OTHER_HOST):
            return move.target_said()
        if answer:
            raise Wrong(f"{name}: {answer[0]} {answer[1]!r}: {move.target_said()}")
        wait_for("the guest goes on", move.target.lines, 30)
        for said in move.target.lines():
            if said[0] != nonce or said[1] <= line or said[2]:
                raise Wrong(f"{name}: the guest says {said}")
    finally:
        move.end()
    print(f"ok: {name} is received, and goes on")
    return None


def refuses(options, name):
    frames = list(frames_of(lzma.open(DATA / f"{name}.xz").read()))
    # HELLO, MACHINE and what comes with it are of a stranger, who is sent away while the target waits on.
    first = next(i for i, frame in enumerate(frames) if frame[0] == "PAGES")
    for i in range(first, len(frames)):
        kind, frame = frames[i]
        damaged = bytearray(frame)
        damaged[HEADER + (len(frame) - HEADER) // 2] ^= 0x10
        words = [f"frame {i} ({kind})", f"frame {i}: "]
        Play(options, None).refused(f"{kind} damaged", [*frames[:i], (kind, bytes(damaged))], words)
        Play(options, None).refused(f"{kind} cut", [*frames[:i], (kind, frame[:-1])], words)
        Play(options, None).refused(f"cut before {kind}", frames[:i], words)
        if i + 1 < len(frames):
            Play(options, None).refused(f"{kind} left out", frames[:i] + frames[i + 1 :],
                                        [f"frame {i} ({frames[i + 1][0]})", f"frame {i}: "])
    print(f"ok: {name} with any of {len(frames) - first} frames damaged, cut or left out is refused, and named")


def make(options, path):
    move = Move(options, None)
    try:
        move.run()
        stream = b"".join(move.record)
        with lzma.open(path, "wb", preset=9) as file:
            file.write(stream)
        nonce, line, _, _ = move.source.lines()[-1]
        print(f"{path}: {len(stream)} bytes, nonce {nonce:#x}, line {line:#x}")
    finally:
        move.end()


def main():
    with scratch() as folder:
        return run(folder)


def run(folder):
    options = types.SimpleNamespace(folder=folder, vmrun=str(pathlib.Path(sys.argv[1]).resolve()), ring=3, channels=1,
                                    without_disk=True, payloads=str(pathlib.Path(sys.argv[2]).resolve()), words="1 16 4000")
    try:
        with open("/dev/kvm", "rb+", buffering=0):
            pass
    except OSError:
        print("skipped: no usable /dev/kvm")
        return SKIPPED
    if sys.argv[3:4] == ["--make"]:
        make(options, sys.argv[4])
        return 0
    try:
        for name, nonce, line in GOLDEN:
            skipped = receives(options, name, nonce, line)
            if skipped:
                print(f"skipped: {name} needs another host: {skipped}")
                return SKIPPED
        refuses(options, GOLDEN[-1][0])
    except (Wrong, subprocess.TimeoutExpired) as error:
        print(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
