"""Words and phrases that docs/STYLE.md rules out, with the words to use instead.

Reads every text file of the repository: sources, tests, documentation, build files and scripts. Also checks the first
comment of each file, which must open with a noun phrase or a verb. Paths on the command line restrict the check to
files below them: `python tests/house/words.py include/ropewalk/cpu`.
"""

import argparse
import re
from pathlib import Path

from common import ROOT, finish

FOLDERS = (
    "include",
    "cuda",
    "bindings",
    "tests",
    "benchmarks",
    "examples",
    "tools",
    "cmake",
    "docs",
    "packaging",
    ".ci",
)
SUFFIXES = {".hpp", ".inl", ".cuh", ".cpp", ".cu", ".h", ".c", ".py", ".pyi", ".sh", ".cmake", ".in", ".txt", ".md"}
SUFFIXES |= {".rst", ".yml", ".yaml", ".toml"}
NAMES = {"Makefile", "CMakePresets.json", ".clang-tidy", ".gitignore", "Doxyfile"}
# Files that list the banned words, and a file that lists the names of earlier versions.
EXEMPT = {"tests/house/words.py", "tests/house/test_words.py", "docs/STYLE.md", "docs/GLOSSARY.md"}
OLD_NAMES_ALLOWED = {"CHANGELOG.md"}
EXEMPT_FOLDERS = ("benchmarks/results", "docs/_build")

# Between two words of a sentence: spaces, or the end of a line and the next line's comment mark.
GAP = r"(?:[ \t]+|[ \t]*\n[ \t]*(?://[/!]?<?|#|\*)?[ \t]*)"
COUNTED = (
    r"(?:bytes?|[KMG]iB|megabytes?|gigabytes?|tokens?|heads?|rows?|lines?|pairs?|steps?|elements?|threads?|warps?|floats?"
    r"|numbers?|positions?|times?|seconds?|milliseconds|microseconds|ms|ns|cycles?|radians|turns|kernels?|units?|files?"
    r"|columns?|samples?|(?-i:calls|launches)|axes|axis|ids|lanes?|blocks?|chunks?|slots?|words?|bits?|(?-i:values?|scales?)"
    r"|(?-i:registers?)|instructions?|architectures?|once|twice|one|two|three|four|five|six|seven|eight|\d+)"
)
PER = (
    r"(?:token|head|pair|row|thread|warp|block|position|call|line|axis|sequence|layer|batch|page|element|lane|key|query"
    r"|kernel|file|pass|step|second|millisecond|microsecond|cycle|launch|instruction|tile|chunk|slot|vec|column|model"
    r"|type|size|set|header|function|policy|register|multiprocessor|architecture|candidate|case|test|day|week|length|package"
    r"|problem|benchmark|machine|processor|core|request|user|name|cell|panel|group|turn|unit|process|rank|node|tensor)"
)

WORDS = [
    (r"\b(?:who|whom)(?:so)?ever\b", "name the subject, or use the passive voice"),
    (r"\b(?:some|no|every|any)(?:body|one)\b", "name the subject: 'the caller', 'users', 'each'"),
    (r"\bbehind\b", "'after' or 'following'"),
    (r"\bbesides\b", "'also' or 'in addition'"),
    (r"\bbeside\b", "'next to' or 'together with'"),
    (r"\bwe\b", "name the subject: 'ropewalk', 'the kernel', 'the tests'"),
    (rf"\b{COUNTED}{GAP}an?{GAP}{PER}\b", "'per' instead of 'a'"),
]
# Names that the glossary replaces.
NAMES_REPLACED = [
    (r"\bun_?turn\w*", "'source': a re-rotation goes from source to target"),
    (r"\bturn_(?!s\b)\w+|\.turn\b|\bturning\b", "'rotate'"),
    (
        rf"\bturn(?:s|ed)?{GAP}(?:the{GAP})?(?:by|q|k|queries|keys|heads?|pairs?|elements?|tokens?|tensors?|vectors?)\b",
        "'rotate'",
    ),
    (rf"\b(?:heads?|pairs?|elements?|keys|queries|tokens?|that|which){GAP}turn(?:s|ed)?\b", "'rotate'"),
    (r"\brotate_(?:job|frame)\b|\bturn_term\b", "'rotate_args' or 'rotate_params'"),
    (r"\bpast_caches\b", "'streaming'"),
    (r"\bheads_outside\b", "'heads_major'"),
    (r"\bteam_for\b", "'thread_count'"),
    (r"\b(?:announce\w*|ask_for\w*)\b", "'prefetch'"),
    (r"\bepochs?\b|\bEpochPolicy\b|\b(?!time_since_epoch|stablelm_epoch)\w*_epoch\b|\bepoch_\w+", "'stage'"),
    (r"\bdecay_?rates?\b|\bhas_decay\b|\.decay\b", "'magnitude' (of xPos)"),
    (r"\boptions?\.way\b|\bway::|\benum class way\b", "'direction'"),
    (r"\bropewalk::runtime\b|\bropewalk_runtime\b|\bruntime/runtime\.hpp\b", "'dispatch'"),
    (r"\bropewalk::attention\b|\b(?:gpu|ropewalk|runtime|dispatch)/attention\b", "'llama'"),
    (r"\bcore/config\.hpp\b", "'core/compiler.hpp'"),
    (r"\bropewalk/call/", "'ropewalk/rotation/'"),
]


def compiled(rules):
    return [(re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in rules]


BANNED_WORDS, BANNED_NAMES = compiled(WORDS), compiled(NAMES_REPLACED)


# An opening line with one of these names neither a thing nor an action.
OPENINGS = re.compile(
    r"(?:What|How|Which|Where|From|Whether|Who|Whose|When|Why|If|That|Of|For|To|By|In|On|At|As|With|Without|So|Because"
    r"|Not|Nothing|And|But|Everything|It|Its|They|Their|There|Here|Then|Also|Only|Whatever|While|Until|Before|After"
    r"|Between|Both|Either|Neither|Such|Same|Else|Out|Into|Behind)(?![-\w])"
)
CODE = {".hpp", ".inl", ".cuh", ".cpp", ".cu", ".h", ".c"}


def texts(root):
    """Every text file of the tree, sorted."""
    found = [path for path in root.glob("*") if path.is_file()]
    for folder in FOLDERS:
        found += [path for path in (root / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in sorted(found):
        name = path.relative_to(root).as_posix()
        if name in EXEMPT or name.startswith(EXEMPT_FOLDERS):
            continue
        if path.suffix in SUFFIXES or path.name in NAMES or (not path.suffix and name.startswith(("tools/", ".ci/"))):
            yield path, name


def opening(path, text):
    """The first line of a file's first comment or docstring, or None."""
    if path.suffix in CODE:
        match = re.match(r"//[/!]?[ \t]*(?:@file[ \t]*)?(.*)", text)
    elif path.suffix in {".py", ".pyi"}:
        match = re.match(r'(?:#!.*\n)?(?:#.*\n)*r?"""(.*)', text)
    elif path.suffix == ".md":
        return None
    else:
        match = re.match(r"(?:#!.*\n)?#[ \t]*(.*)", text)
    return match.group(1) if match else None


def check_text(name, path, text):
    problems = []
    for pattern, advice in BANNED_WORDS + (BANNED_NAMES if name not in OLD_NAMES_ALLOWED else []):
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            problems.append((line, f"{name}:{line}: '{' '.join(match.group().split())}': use {advice}"))
    first = opening(path, text)
    if first is not None and OPENINGS.match(first):
        problems.append((1, f"{name}:1: opens with '{first.split()[0]}': open with a noun phrase or a verb"))
    if first is None and path.suffix in {".hpp", ".cuh"} and name.startswith(("include/", "cuda/")):
        problems.append((1, f"{name}:1: the first line must be a comment that says what the header holds"))
    return [problem for _, problem in sorted(problems)]


def check(root, under=()):
    problems, count = [], 0
    for path, name in texts(root):
        if not under or any(name == folder or name.startswith(folder.rstrip("/") + "/") for folder in under):
            problems += check_text(name, path, path.read_text(encoding="utf-8", errors="replace"))
            count += 1
    return problems, f"{count} texts"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="files or folders, relative to the root")
    parser.add_argument("--root", type=Path, default=ROOT)
    options = parser.parse_args()
    finish(*check(options.root.resolve(), options.paths))


if __name__ == "__main__":
    main()
