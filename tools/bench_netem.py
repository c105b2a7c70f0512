# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces with a link between them that delays, loses and limits; gone when it is left."""
import os
import shutil
import subprocess

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

    target_address = "10.213.7.2"

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
