# SPDX-License-Identifier: Apache-2.0
"""A bad link: two network namespaces with netem between them; or a relay, where the kernel has no netem. Gone when it is left."""
import os
import queue
import shutil
import socket
import subprocess
import threading
import time

RATE_MBIT, RTT_MS, LOSS_PERCENT = 1000, 20, 0.1
WORDS = f"{RATE_MBIT} Mbit/s, {RTT_MS} ms there and back, {LOSS_PERCENT} % lost"


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def why_not():
    """Why it cannot be had here; None: it can."""
    if os.geteuid() != 0:
        return "that needs root"
    for program in ("ip", "tc"):
        if not shutil.which(program):
            return f"there is no program {program} (package iproute2)"
    try:
        with Link():
            return None
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"


class Link:
    """source, target: what to put before a command. Half of the delay and of the loss is on each way."""

    target_address, words = "10.213.7.2", ("--insecure",)

    def url(self, url):
        return url

    def __init__(self):
        self.names = [f"vmrun-{end}-{os.getpid()}" for end in ("s", "t")]
        self.source, self.target = (("ip", "netns", "exec", name) for name in self.names)

    def __enter__(self):
        try:
            for name in self.names:
                ip("netns", "add", name)
            ip("-n", self.names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.names[1])
            for number, name in enumerate(self.names, 1):
                ip("-n", name, "address", "add", f"10.213.7.{number}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", "eth0", "up")
                # The queue holds what is under way, and as much again.
                subprocess.run(["tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", "netem", "delay", f"{RTT_MS / 2}ms", "loss",
                                f"{LOSS_PERCENT / 2}%", "rate", f"{RATE_MBIT}mbit", "limit", "10000"],
                               check=True, capture_output=True, text=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


class Relay:
    """Delays and limits what goes through it, and loses nothing: the connections are its own."""

    source = target = words = ()
    target_address = "127.0.0.1"
    under_way_bytes = RATE_MBIT * 125000 * RTT_MS // 1000

    def __enter__(self):
        self.listener, self.sockets = socket.create_server((self.target_address, 0)), []
        return self

    def __exit__(self, *_):
        self.listener.close()
        for each in self.sockets:
            each.close()

    def url(self, url):
        """Where to connect to instead: it is for one move, of one channel."""
        host, port = url.removeprefix("tcp://").rsplit(":", 1)
        threading.Thread(target=self.carry, args=((host, int(port)),), daemon=True).start()
        return f"tcp://{self.target_address}:{self.listener.getsockname()[1]}"

    def carry(self, target):
        source, _ = self.listener.accept()
        ends = (source, socket.create_connection(target))
        for a, b in (ends, ends[::-1]):
            a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets.append(a)
            pieces = queue.Queue(max(self.under_way_bytes // 65536, 1))
            threading.Thread(target=self.take, args=(a, pieces), daemon=True).start()
            threading.Thread(target=self.give, args=(b, pieces), daemon=True).start()

    def take(self, sock, pieces):
        free = 0.0
        while True:
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            free = max(free, time.monotonic()) + len(data) / (RATE_MBIT * 125000)
            pieces.put((free + RTT_MS / 2000, data))
            if not data:
                return

    def give(self, sock, pieces):
        while True:
            due, data = pieces.get()
            time.sleep(max(due - time.monotonic(), 0))
            try:
                if data:
                    sock.sendall(data)
                else:
                    sock.shutdown(socket.SHUT_WR)
                    return
            except OSError:
                return
