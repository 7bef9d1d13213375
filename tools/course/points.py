"""How much each graded part counts: a file in the lecturer's folder, written once and kept when it has been edited."""

from pathlib import Path

import yaml

from tools.course.assignment import CHAPTERS, EXPERIMENT, assignment

HEAD = """\
# How much each part of a graded assignment counts. This file is yours: edit it and run `make student` again, which
# writes everything else anew and keeps what stands here. (Points in source/ would be written over.)
"""


def default(seed: str) -> dict[str, dict[str, int]]:
    """By chapter, the points of each part."""
    return {c: {**{p.name: p.points for p in assignment(c, seed).parts}, "experiment": EXPERIMENT} for c in CHAPTERS}


def kept(path: Path, seed: str) -> dict[str, dict[str, int]]:
    """The points in a file; it is written first if it is not there.

    Raises:
        ValueError: The file has other chapters or parts, or points that are no whole numbers from 0 on.
    """
    wanted = default(seed)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {chapter: ", ".join(f"{k}: {v}" for k, v in row.items()) for chapter, row in wanted.items()}
        text = "".join(f"{chapter}: {{{row}}}\n" for chapter, row in rows.items())
        path.write_text(HEAD + text, encoding="utf-8")
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    for chapter, row in wanted.items():
        given = found.get(chapter) if isinstance(found, dict) else None
        if not isinstance(given, dict) or set(given) != set(row):
            raise ValueError(f"{path.name}, {chapter}: expected points for {', '.join(row)}, got {given}")
        for part, points in given.items():
            if type(points) is not int or points < 0:
                raise ValueError(f"{path.name}, {chapter}, {part}: expected a whole number from 0 on, got {points!r}")
    return {chapter: found[chapter] for chapter in wanted}
