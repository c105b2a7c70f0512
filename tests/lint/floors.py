#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Refuse an #include that climbs: each folder may use only the floors below it.

A header in include/vmrun/ belongs to the folder that implements it, and obeys that folder's arrows;
a header inside src/FOLDER/ is seen only there. What CMake links must be no more than what may be
included. Run from the top of the tree.
"""
import pathlib
import re
import sys

# The headers that each folder of src/ implements, ...
HEADERS = {
    "util": {"bucket", "bytes", "error", "forward", "histogram", "iothread", "log", "loop", "text", "thread"},
    "core": {"bus", "cpu_entry", "device", "irq", "memory", "state"},
    "backends": {"block", "block_handover", "cgroup", "console", "netdev", "vhost", "vsock"},
    "devices": {
        "acpi_pm", "debug_exit", "i8042", "pci", "rtc", "serial", "virtio", "virtio_devices",
        "virtqueue", "vmgenid",
    },
    "kvm": {"kvm"},
    "boot": {"boot", "acpi"},
    "config": {"config"},
    "machine": {"machine"},
    "migration": {"migration", "snapfile", "working_set"},
    "control": {"control"},
    "cli": {"cli"},
}
# ... and the folders whose headers it may use beside its own. main is src/main.c.
ARROWS = {
    "main": {"cli", "machine", "config", "control", "util"},
    "cli": {"control", "migration", "machine", "config", "kvm", "backends", "util"},
    "control": {"migration", "machine", "config", "backends", "util"},
    "machine": {"kvm", "boot", "devices", "backends", "config", "core", "util"},
    "migration": {"machine", "core", "util"},
    "config": {"util"},
    "devices": {"core", "backends", "util"},
    "kvm": {"core", "util"},
    "boot": {"core", "util"},
    "backends": {"util"},
    "core": {"util"},
    "util": set(),
}
OWNER = {header: folder for folder, headers in HEADERS.items() for header in headers}
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')
KVM_HEADERS = {"linux/kvm.h", "linux/kvm_para.h", "asm/kvm.h", "asm/kvm_para.h"}

bad = 0


def complain(path, number, words):
    global bad
    print(f"{path}:{number}: {words}")
    bad += 1


def check_include(path, number, folder, bracket, name):
    if name in KVM_HEADERS and folder != "kvm":
        complain(path, number, f"only src/kvm includes <{name}>")
    if bracket == "<":
        return
    public = re.fullmatch(r"vmrun/(\w+)\.h", name)
    if public and public[1] not in OWNER:
        complain(path, number, f"vmrun/{public[1]}.h has no floor: give it one in {sys.argv[0]}")
    elif public:
        owner = OWNER[public[1]]
        if owner != folder and owner not in ARROWS[folder]:
            complain(path, number, f"{folder} may not include {name}, which belongs to {owner}")
    elif "/" in name or path.parts[0] != "src" or not (path.parent / name).is_file():
        complain(path, number, f'"{name}" is no header of this folder')


def check_file(path, folder):
    names = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = INCLUDE.match(line)
        if found:
            check_include(path, number, folder, found[1], found[2])
            names.append((number, found[2]))
    own = f"{path.stem}.h"
    for number, name in names[1:]:
        if path.suffix == ".c" and name in (own, f"vmrun/{own}"):
            complain(path, number, f"a file includes its own header, {name}, first")


def check_links(folder):
    path = pathlib.Path("src", folder, "CMakeLists.txt")
    floors = re.search(r"\bFLOORS\s+([\w\s]*?)\s*(?:LIBRARIES|SOURCES|\))", path.read_text())
    for floor in floors[1].split() if floors else []:
        if floor not in ARROWS[folder]:
            complain(path, 1, f"{folder} may not link {floor}")


for source in sorted(pathlib.Path("src").rglob("*.[ch]")):
    where = source.parts[1] if len(source.parts) > 2 else "main"
    if where in ARROWS:
        check_file(source, where)
    else:
        complain(source, 1, f"folder {where} has no arrows: give it some in {sys.argv[0]}")
for header in sorted(pathlib.Path("include/vmrun").glob("*.h")):
    if header.stem in OWNER:
        check_file(header, OWNER[header.stem])
    else:
        complain(header, 1, f"no folder owns it: give it one in {sys.argv[0]}")
for name in HEADERS:
    check_links(name)
sys.exit(bad != 0)
