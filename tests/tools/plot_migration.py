#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/plot-migration: recorded reports become XML that is well-formed, nonsense is refused in words.

usage: plot_migration.py PLOT-MIGRATION DATA    (data/writer.json: 128 MiB, a writer of 64 MiB/s, --bandwidth 128M)
"""
import copy
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as tree

PLOT, DATA = sys.argv[1:]
SVG = "{http://www.w3.org/2000/svg}"
failed = []


def plot(*words):
    done = subprocess.run([sys.executable, "-B", PLOT, *words], capture_output=True, text=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout, done.stderr


def expect(sentence, true):
    print(f"{'ok' if true else 'FAILED'}: {sentence}")
    if not true:
        failed.append(sentence)


def numbers_are_finite(root):
    for element in root.iter():
        for key, value in element.attrib.items():
            if key in ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "width", "height", "d"):
                for word in re.findall(r"[^\sML]+", value):
                    if not math.isfinite(float(word)):
                        return False
    return True


def texts(root):
    return [element.text for element in root.iter(SVG + "text")]


def draws(report, folder, sentence, *wanted):
    path = os.path.join(folder, "report.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(report, file)
    code, out, error = plot(path)
    try:
        root = tree.fromstring(out.encode())
    except tree.ParseError as wrong:
        expect(f"{sentence}: {wrong}", False)
        return
    inside = texts(root)
    expect(sentence, code == 0 and not error and root.tag == SVG + "svg" and numbers_are_finite(root)
           and all(any(word in text for text in inside) for word in wanted))


def refuses(content, folder, words):
    path = os.path.join(folder, "nonsense.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
    code, out, error = plot(path)
    expect(f"refused: {words}", code == 1 and not out and error == f"plot-migration: {path}: {words}\n")


def changed(report, **changes):
    report = copy.deepcopy(report)
    for path, value in changes.items():
        *way, last = [int(word) if word.isdigit() else word for word in path.split("__")]
        at = report
        for word in way:
            at = at[word]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return json.dumps(report)


def pictures(report, folder):
    draws(report, folder, "a recorded move is drawn", "Moved: ", "measured", "predicted", "commit ")
    draws(json.loads(changed(report, round__0__ns=0, round__1__ns=0, round__2__ns=0, round__3__ns=0)), folder,
          "rounds that took no time", "Moved: ")
    draws(json.loads(changed(report, pause_ns=0)), folder, "a paused machine has no pause", "Rates")
    draws(json.loads(changed(report, type="migrate_failed", detail="<&>")), folder, "one that failed is drawn as such", "Not moved: ")
    draws(json.loads(changed(report, round__1__throttle_percent=40)), folder, "a throttle has its line", "guest kept from running")
    many = copy.deepcopy(report)
    many["round"] = [dict(many["round"][0], ns=1, bytes=2**60 * (i % 2), zero_bytes=0, owed_bytes=2**60) for i in range(64)]
    draws(many, folder, "64 rounds of a nanosecond and an exbibyte", "Moved: ")
    out = os.path.join(folder, "out.svg")
    code, told, error = plot(os.path.join(DATA, "writer.json"), out)
    expect("it goes into the file that is named", code == 0 and not told and not error and tree.parse(out).getroot().tag == SVG + "svg")


def nonsense(report, folder):
    refuses("[]", folder, "no report of a move: 'vmrun migrate --report FILE' writes one")
    refuses(changed(report, type="saved"), folder, "no report of a move: 'vmrun migrate --report FILE' writes one")
    refuses(changed(report, round=[]), folder, "it has no rounds: the move ended before the first")
    refuses(changed(report, round=None), folder, "it has no rounds: the move ended before the first")
    refuses(changed(report, round__1=7), folder, "round[1] is no object")
    refuses(changed(report, round__1__ns=None), folder, "round[1].ns is no number from 0")
    refuses(changed(report, round__0__owed_bytes=-1), folder, "round[0].owed_bytes is no number from 0")
    refuses(changed(report, round__0__zero_bytes=2**50), folder, "round[0] has more zeros than pages")
    refuses(changed(report, pause=None), folder, "pause is missing")
    refuses(changed(report, pause__stop_ns="1"), folder, "pause.stop_ns is no number from 0")
    refuses(changed(report, total_ns=True), folder, "total_ns is no number from 0")
    refuses(changed(report, sent_bytes=math.nan), folder, "sent_bytes is no number from 0")
    refuses(changed(report, sent_bytes=10**400), folder, "sent_bytes is no number from 0")
    path = os.path.join(folder, "nonsense.json")
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100000):
        with open(path, "wb") as file:
            file.write(content)
        code, out, error = plot(path)
        expect(f"refused: {content[:4]!r}", code == 1 and not out and error.startswith(f"plot-migration: {path}: no JSON: ")
               and error.count("\n") == 1)
    code, _, error = plot(os.path.join(folder, "nowhere"))
    expect("a file that is not there", code == 1 and error.endswith("nowhere: No such file or directory\n"))
    code, _, error = plot(os.path.join(DATA, "writer.json"), os.path.join(folder, "no", "folder.svg"))
    expect("a folder that is not there", code == 1 and error.endswith("folder.svg: No such file or directory\n"))
    expect("no words are a wrong command line", plot()[0] == 2)


with open(os.path.join(DATA, "writer.json"), encoding="utf-8") as recorded, tempfile.TemporaryDirectory() as place:
    whole = json.load(recorded)
    pictures(whole, place)
    nonsense(whole, place)
sys.exit(1 if failed else 0)
