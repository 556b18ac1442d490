"""Finds warning signs of prose that must be read twice: `python docs/prose.py [FILE ...]`, by default in all words.

Reads Markdown outside code, and docstrings and comments of Python, C++ and JavaScript. Part of `make check`. A
line that needs such a word ends with `prose: ok` in a comment.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

SIGNS = re.compile(
    r"\b(whoever|whatever(?! the)|anew|so many|so long as|held to|(?<!there )(?:is|are) no|tells? of"
    r"|what (?:was|came|comes|has|leaves|waits|there))\b",
    re.IGNORECASE,
)
CODE = {".py", ".cpp", ".js", ".mjs"}


def words(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line of prose in a file."""
    text = path.read_text()
    if path.suffix == ".md":
        blank = re.sub(r"```.*?```|`[^`\n]*`", lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.DOTALL)
        yield from ((n, line) for n, line in enumerate(blank.splitlines(), 1) if not line.startswith("    "))
    elif path.suffix == ".py":
        yield from _of_python(text)
    else:
        for found in re.finditer(r"//[^\n]*|/\*.*?\*/", text, re.DOTALL):
            first = text.count("\n", 0, found.start()) + 1
            yield from enumerate(found[0].splitlines(), first)


def _of_python(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        for child in ast.iter_child_nodes(node):
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                lines = text.splitlines()[child.lineno - 1 : child.end_lineno]
                yield from enumerate(lines, child.lineno)


def main(files: list[str]) -> int:
    """Prints each finding as FILE:LINE; returns 1 if there is one."""
    root = Path(__file__).parent.parent
    if not files:
        files = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
    found = 0
    for path in (root / name for name in files if Path(name).suffix in CODE | {".md"}):
        for number, line in words(path):
            if (sign := SIGNS.search(line)) and "prose: ok" not in line:
                print(f"{path.relative_to(root)}:{number}: {sign[0]!r}: {line.strip()}")
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
