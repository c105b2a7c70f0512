#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Refuse what the house does not do and no compiler sees. Run from the top of the tree.

exit() outside src/main.c, work inside assert(), constructors, notes to self, a file without its
SPDX line, and files and functions of a size that size-allowed.txt gives no reason for.
"""
import pathlib
import re
import sys

MAX_FILE, MAX_FUNCTION = 600, 60
ALLOWED = pathlib.Path(__file__).with_name("size-allowed.txt")
NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
SIDE_EFFECT = re.compile(r"\+\+|--|(?<![=!<>])=(?!=)")
NOTE = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")

bad = 0


def complain(path, number, words):
    global bad
    print(f"{path}:{number}: {words}")
    bad += 1


def bare(text):
    """The text without comments and strings, every line where it was."""
    return NOISE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def argument(code, at):
    """What stands between the parenthesis at `at` and its partner."""
    depth = 0
    for end in range(at, len(code)):
        depth += (code[end] == "(") - (code[end] == ")")
        if depth == 0:
            return code[at + 1 : end]
    return code[at + 1 :]


def check_code(path, code):
    if path.parts[0] == "src":
        for call in re.finditer(r"\b(exit|quick_exit)\s*\(", code):
            if path != pathlib.Path("src/main.c"):
                complain(path, line_of(code, call.start()), f"only src/main.c calls {call[1]}()")
    for call in re.finditer(r"\bassert\s*(\()", code):
        if SIDE_EFFECT.search(argument(code, call.start(1))):
            complain(path, line_of(code, call.start()), "work inside assert()")
    for found in re.finditer(r"\(\s*(?:__)?constructor\b", code):
        complain(path, line_of(code, found.start()), "constructors are not used here")


def functions(code):
    """(name, first line, lines between the braces) of each function: its braces stand alone."""
    lines = code.split("\n")
    for start in (i for i, line in enumerate(lines) if line.rstrip() == "{"):
        end = next((i for i in range(start, len(lines)) if lines[i].rstrip() == "}"), start)
        head = next((i for i in range(start - 1, -1, -1) if re.match(r"\w.*\(", lines[i])), start)
        name = re.search(r"(\w+)\s*\(", lines[head])
        yield (name[1] if name else "?"), head + 1, end - start - 1


def check_sizes(path, text, code, allowed):
    lines = text.count("\n")
    if lines > MAX_FILE and not allowed.pop(str(path), None):
        complain(path, lines, f"{lines} lines: split it, or give the reason in {ALLOWED.name}")
    for name, number, length in functions(code):
        if length > MAX_FUNCTION and not allowed.pop(f"{path}:{name}", None):
            complain(path, number,
                     f"{name}() has {length} lines: split it, or give the reason in {ALLOWED.name}")


def read_allowed():
    allowed = {}
    for number, line in enumerate(ALLOWED.read_text().splitlines(), 1):
        words = line.split(None, 1)
        if not words or line.startswith("#"):
            continue
        if len(words) < 2:
            complain(ALLOWED, number, f"{words[0]} needs a reason")
        allowed[words[0]] = number
    return allowed


def check_text(path, text):
    first = [line for line in text.split("\n") if not line.startswith("#!")][:2]
    if not any("SPDX-License-Identifier: Apache-2.0" in line for line in first):
        complain(path, 1, "the first line is to be the SPDX one")
    for note in NOTE.finditer(text):
        complain(path, line_of(text, note.start()), f"{note[1]}: do it, or open an issue")


def main():
    allowed = read_allowed()
    for folder in ("src", "include", "tests", "tools", "images"):
        for path in sorted(pathlib.Path(folder).rglob("*.[ch]")):
            text = path.read_text()
            code = bare(text)
            check_text(path, text)
            check_code(path, code)
            check_sizes(path, text, code, allowed)
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.is_file() and path.suffix not in (".c", ".h"):
                with path.open("rb") as stream:
                    script = stream.read(2) == b"#!"
                if script:
                    check_text(path, path.read_text())
    for name, number in allowed.items():
        complain(ALLOWED, number, f"{name} is small enough, or gone: take this line out")
    return bad != 0


sys.exit(main())
