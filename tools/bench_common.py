# SPDX-License-Identifier: Apache-2.0
"""What tools/bench-snapshot and tools/bench-migration share: the guest of tools/snapshot-guest.S, what it tells, and QEMU.

The guest is built for a KVM that lets the CPU itself run ring 3, and for QEMU's microvm, which takes the same ELF in 32 bits.
"""
import json
import mmap
import os
import re
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
GAP_S = 0.0002  # what the guest takes for a stop
LONG_GAP_S = 0.1  # what it takes for a restore


def give_up(words):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {words}")


def run(*words, **options):
    return subprocess.run(words, check=True, capture_output=True, text=True, **options).stdout


def tsc_hz():
    for line in open("/proc/cpuinfo"):
        if line.startswith("cpu MHz"):
            return float(line.split(":")[1]) * 1e6
    give_up("/proc/cpuinfo does not tell the clock rate")


def warm(mib):
    """A hypervisor under this host may have taken back what has been free for a second, and gives it again page by page, in a time
    that has nothing to do with who asks. So that much is touched, and free again, just before something is timed."""
    with mmap.mmap(-1, mib << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, mib << 20, mmap.PAGESIZE):
            memory[at] = 1


def check_needs(vmrun):
    if not os.access("/dev/kvm", os.W_OK):
        give_up("there is no /dev/kvm to use")
    if not os.access(vmrun, os.X_OK):
        give_up(f"{vmrun} is no program: build it first")


class Bench:
    def __init__(self, vmrun, folder):
        self.vmrun, self.folder, self.hz = vmrun, folder, tsc_hz()
        self.guests = {}

    def path(self, name):
        return os.path.join(self.folder, name)

    def guest(self, fill_mib, bytes_a_second=0, touched=0):
        """Builds it for both monitors: (vmrun's, QEMU's), which takes ELF of 32 bits only."""
        key = (fill_mib, int(bytes_a_second), touched)
        if key in self.guests:
            return self.guests[key]
        elf, elf32 = (self.path("guest-%d-%d-%d" % key + end) for end in (".elf", "32.elf"))
        every = int(self.hz * 4096 / bytes_a_second) if bytes_a_second else 0
        run("gcc", "-nostdlib", "-static", f"-DFILL={fill_mib}", f"-DGAP={int(self.hz * GAP_S)}", f"-DEVERY={every}",
            "-DWRITTEN=64", f"-DTOUCHED={touched}", f"-DLONG_GAP={int(self.hz * LONG_GAP_S)}",
            f"-Wl,-T,{ROOT}/tests/guest/payloads/payload.ld", "-Wl,--build-id=none", "-Wl,-z,noexecstack",
            "-Wl,-z,max-page-size=4096", "-o", elf, f"{ROOT}/tests/guest/payloads/start.S", f"{ROOT}/tools/snapshot-guest.S")
        subprocess.run(["objcopy", "-O", "elf32-i386", elf, elf32], check=True, stderr=subprocess.DEVNULL)
        self.guests[key] = (elf, elf32)
        return self.guests[key]

    def stops(self, serial, since):
        """Milliseconds of the stops that the guest told of after so many bytes."""
        text = read(serial)[since:]
        return [int(ticks, 16) / self.hz * 1e3 for ticks in re.findall(r"g([0-9a-f]{16})\n", text)]

    def wait_for(self, serial, text):
        for _ in range(1200):
            if text in read(serial):
                return
            time.sleep(0.05)
        give_up(f"the guest did not say {text!r}")


def read(path):
    try:
        return open(path, errors="replace").read()
    except FileNotFoundError:
        return ""


class Qemu:
    """A process with the guest, and its monitor."""

    stopped = None
    running = []

    def __init__(self, bench, elf32, memory_mib, *more, name="qemu", inside=()):
        self.b, self.serial = bench, bench.path(name + ".serial")
        self.words = ["qemu-system-x86_64", "-M", "microvm", "-accel", "kvm", "-cpu", "qemu64,-cx16", "-smp", "1", "-m",
                      str(memory_mib), "-nodefaults", "-no-user-config", "-display", "none", "-kernel", elf32, "-append", "3"]
        monitor = bench.path(name + ".qmp")
        self.process = subprocess.Popen([*inside, *self.words, "-serial", f"file:{self.serial}", "-qmp",
                                         f"unix:{monitor},server=on,wait=off", *more], stderr=subprocess.DEVNULL)
        self.running.append(self.process)
        for _ in range(400):
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(monitor)
                break
            except OSError:
                time.sleep(0.05)
        self.answers = self.socket.makefile("r")
        self.answers.readline()
        self.call("qmp_capabilities")

    def call(self, name, arguments=None):
        self.socket.sendall((json.dumps({"execute": name, "arguments": arguments or {}}) + "\n").encode())
        while line := self.answers.readline():
            answer = json.loads(line)
            if "error" in answer:
                give_up(f"QEMU: {answer['error']}")
            if "return" in answer:
                return answer["return"]
        give_up("QEMU has ended")

    def migrate(self, uri, timeout_s=600):
        """Until it is over: what QEMU says of it, or None when that takes longer."""
        end = time.monotonic() + timeout_s
        self.call("migrate", {"uri": uri})
        while (told := self.call("query-migrate")).get("status") in ("setup", "active", "device"):
            if time.monotonic() > end:
                return None
            time.sleep(0.001)
        if told.get("status") != "completed":
            give_up(f"QEMU's migration: {told}")
        return told

    def end(self):
        self.running.remove(self.process)
        self.process.kill()
        self.process.wait()
        self.socket.close()

    @classmethod
    def end_all(cls):
        for process in cls.running:
            process.kill()
            process.wait()
