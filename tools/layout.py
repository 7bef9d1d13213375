"""Lay out the chapters' code in 84 columns, what a page shows: `python -m tools.layout [notebooks/NN_name.py ...]`.

`ruff format` breaks lines and leaves strings and comments alone; here long strings are cut between words as well
(adjacent strings are one), and long comments move above their line. What the code does stays as it is, to the tree.
"""

import ast
import io
import re
import subprocess
import sys
import textwrap
import tokenize
from pathlib import Path

from tools import notebooks

COLUMNS = 84
CELL = re.compile(r"^# %%.*\n", re.MULTILINE)
KEPT = re.compile(r"# (noqa|fmt|type|@)")  # comments for tools stay where they are
STRING = re.compile(r"""(f?)(["'])((?!\2\2).*)\2""")  # not a docstring, not raw
HOLE = re.compile(r"\{\{|\}\}|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")  # an f-string's braces, with a format within


def long_lines(source: str) -> list[str]:
    """The lines that a page cannot show."""
    return [line for line in source.splitlines() if len(line) > COLUMNS]


def lay_out(source: str) -> str:
    """The same code in 84 columns; a line that cannot be broken (a docstring's, say) stays long."""
    laid_out = ruff(move_comments(re.sub(r"  # fmt: skip$", "", source, flags=re.MULTILINE)))
    for _ in range(9):  # a cut string may be laid out anew, and then another is too long
        before, laid_out = laid_out, ruff(cut_strings(laid_out))
        if laid_out == before:
            break
    if ast.dump(ast.parse(laid_out)) != ast.dump(ast.parse(source)):
        raise RuntimeError(f"the layout changed what this cell does:\n{source}")
    return laid_out


def ruff(source: str) -> str:
    """`ruff format` at this width."""
    command = [sys.executable, "-m", "ruff", "format", "--isolated", f"--line-length={COLUMNS}", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{done.stderr}\n{source}")
    return done.stdout


def move_comments(source: str) -> str:
    """Wrap comments that are too long; one behind code goes above it."""
    lines = source.splitlines()
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(source).readline))):
        row, column = token.start[0] - 1, token.start[1]
        if token.type != tokenize.COMMENT or len(lines[row]) <= COLUMNS or KEPT.match(token.string):
            continue
        code = lines[row][:column].rstrip()
        indent = re.match(r"\s*", lines[row])[0]
        words = textwrap.wrap(token.string.lstrip("# "), COLUMNS - len(indent) - 2)
        lines[row : row + 1] = [f"{indent}# {text}" for text in words] + ([code] if code else [])
    return "\n".join(lines) + "\n"


def cut_strings(source: str) -> str:
    """Cut a string that makes its line too long, with those that it is one string with, into lines of words."""
    lines = source.splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines) + 1)]
    runs: list[tuple[int, list[tokenize.TokenInfo]]] = []  # brackets around it, and the strings
    depth, previous = 0, None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NL:
            continue
        depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
        if token.type == tokenize.STRING:
            if previous == tokenize.STRING:
                runs[-1][1].append(token)
            else:
                runs.append((depth, [token]))
        previous = token.type
    for depth, tokens in reversed(runs):
        first, last = tokens[0], tokens[-1]
        rows = lines[first.start[0] - 1 : last.end[0]]
        parts = [STRING.fullmatch(token.string) for token in tokens]
        if max(map(len, rows)) - 1 <= COLUMNS or not all(parts):
            continue
        is_format = any(part[1] for part in parts)
        text = "".join(part[3] if part[1] or not is_format else re.sub(r"([{}])", r"\1\1", part[3]) for part in parts)
        quote = parts[0][2]
        if quote == "'" or any(part[2] != quote for part in parts):
            continue
        indent = len(rows[0]) - len(rows[0].lstrip())
        own = len(rows) > 1 or first.start[1] == indent
        head = first.start[1] if own else indent + 4
        pieces = cut(text, COLUMNS - head - is_format - 3, is_format)
        written = [f'f"{p}"' if is_format and "{" in p else f'"{p}"' for p in pieces]
        written = [w.replace("}}", "}") if is_format and w[0] != "f" else w for w in written]
        joined = "\n".join(written)
        if not depth and len(written) > 1:
            joined = f"({joined})"
        begin, end = starts[first.start[0] - 1] + first.start[1], starts[last.end[0] - 1] + last.end[1]
        source = source[:begin] + joined + source[end:]
    return source


def cut(text: str, room: int, is_format: bool) -> list[str]:
    """A string's text in pieces of at most `room` characters where spaces allow, never within an f-string's braces."""
    closed = HOLE.sub(lambda m: m[0].replace(" ", "\0"), text) if is_format else text
    pieces, piece = [], ""
    for word in re.findall(r"[^ ]* ?", closed):
        if piece and len(piece + word) > room:
            pieces.append(piece)
            piece = ""
        piece += word
    return [p.replace("\0", " ") for p in [*pieces, piece] if p]


def lay_out_script(path: Path) -> bool:
    """Lay out every code cell of a paired script; returns whether it changed."""
    text = path.read_text(encoding="utf-8")
    marks = [*CELL.finditer(text)]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    done = text[: marks[0].start()]
    for mark, end in zip(marks, ends, strict=True):
        body = text[mark.end() : end]
        if "[markdown]" not in mark[0] and '"setup"' not in mark[0] and long_lines(body):
            gap = body[len(body.rstrip("\n")) :]
            body = lay_out(body).rstrip("\n") + gap
        done += mark[0] + body
    if done != text:
        path.write_text(done, encoding="utf-8")
    return done != text


if __name__ == "__main__":
    for script in [Path(name) for name in sys.argv[1:]] or sorted(notebooks.FOLDER.glob("[0-9]*.py")):
        if lay_out_script(script):
            print(f"{script.name} was laid out")
