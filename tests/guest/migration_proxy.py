# SPDX-License-Identifier: Apache-2.0
"""A proxy between both sides of a migration that knows where frames begin, and does harm at one.

It reads frame headers and nothing else (docs/migration-protocol.md): whole frames are taken from one
side and given to the other, until the one that a fault names.
"""
import ctypes
import socket
import struct
import threading

TYPES = ["?", "HELLO", "WELCOME", "MACHINE", "CPUID", "MEMORY", "PREPARED", "PAGES", "MARK", "STATE", "EXTRA",
         "READY", "COMMIT", "DONE", "REFUSED", "PING", "PONG", "REHEARSAL", "REHEARSED"]
HEADER = 24
TO_TARGET, TO_SOURCE = ">", "<"


def name_of(kind):
    return TYPES[kind] if kind < len(TYPES) else f"type {kind}"


def read_exactly(sock, count):
    """None at the end of the stream, however it ended."""
    data = bytearray()
    while len(data) < count:
        try:
            piece = sock.recv(min(count - len(data), 1 << 20))
        except OSError:
            return None
        if not piece:
            return None
        data += piece
    return bytes(data)


def close(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()


def reset(sock):
    """Cut it at once, though a thread may be receiving from it: a close would wait for that one."""
    nowhere = struct.pack("H14x", socket.AF_UNSPEC)
    ctypes.CDLL(None).connect(sock.fileno(), nowhere, len(nowhere))


class Proxy:
    """do: called once, with this proxy, when the boundary is reached. frames: what has passed by, in order.

    A boundary is (direction, name, number of that name in that direction, "before" or "after"), or None.
    """

    def __init__(self, target, boundary=None, do=None, record=None):
        self.target, self.boundary, self.do, self.record = target, boundary, do, record
        self.frames, self.counts, self.reached = [], {}, threading.Event()
        self.lock = threading.Lock()
        self.silent = {TO_TARGET: False, TO_SOURCE: False}
        self.flip = None  # (offset, bits) in the frame that is about to pass
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                source, _ = self.listener.accept()
                target = socket.create_connection(self.target)
            except OSError:
                return
            for sock in (source, target):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets += [source, target]
            threading.Thread(target=self.pump, args=(source, target, TO_TARGET), daemon=True).start()
            threading.Thread(target=self.pump, args=(target, source, TO_SOURCE), daemon=True).start()

    def pump(self, have, want, direction):
        while True:
            header = read_exactly(have, HEADER)
            body = read_exactly(have, struct.unpack_from("<I", header, 8)[0]) if header else None
            if body is None:
                break
            if not self.forward(want, direction, name_of(struct.unpack_from("<H", header, 2)[0]), header + body):
                break
        # What one side closed is closed for the other: what was on its way arrives before.
        if not self.silent[direction]:
            try:
                want.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def forward(self, want, direction, name, frame):
        with self.lock:
            number = self.counts[direction, name] = self.counts.get((direction, name), 0) + 1
        self.harm((direction, name, number, "before"))
        if self.flip and self.boundary[:3] == (direction, name, number):
            offset, bits = self.flip
            frame = bytearray(frame)
            frame[offset % len(frame)] ^= bits
        if self.silent[direction]:
            return True  # taken, and lost
        try:
            want.sendall(frame)
        except OSError:
            return False
        with self.lock:
            self.frames.append((direction, name, number, len(frame)))
            if self.record is not None and direction == TO_TARGET:
                self.record.append(bytes(frame))
        self.harm((direction, name, number, "after"))
        return True

    def harm(self, boundary):
        if boundary == self.boundary and not self.reached.is_set():
            self.reached.set()
            self.do(self)

    def passed(self, name):
        return any(frame[1] == name for frame in self.frames)

    def reset(self):
        for sock in list(self.sockets):
            reset(sock)

    def end(self):
        self.listener.close()
        for sock in list(self.sockets):
            close(sock)
