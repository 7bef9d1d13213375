"""Code as a text that says what it does: without layout and comments, and the same in every version of Python."""

import ast


def written_out(node: object) -> str:
    """A syntax tree as text; unlike `ast.dump` the same in every version of Python.

    Example:
        >>> written_out(ast.parse("a  # one\\n")) == written_out(ast.parse("\\na"))
        True
    """
    if isinstance(node, ast.AST):
        fields = (f"{name}={written_out(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({','.join(fields)})"
    return f"[{','.join(map(written_out, node))}]" if isinstance(node, list) else repr(node)
