"""How `submit --dry-run` shows what would be submitted: a tree, levels, counts, and what would be refused."""

from collections.abc import Iterator
from typing import Any

from rich.text import Text
from rich.tree import Tree

from jobrunner.preview import Node, Preview

#: Levels, names of tasks and refusals that are shown to people.
_SHOWN = 12


def outline_tree(name: str, preview: Preview, *, barrier: bool) -> Tree:
    """Return the canvas as a tree below a line that counts its tasks."""
    widest = max(preview.levels, default=0)
    how = "level by level" if barrier else f"the widest of {widest:,}"
    number = len(preview.levels)
    tree = Tree(f"{name}: {_tasks(preview.total)} in {number:,} level{'s' * (number != 1)}, {how}")
    if preview.tree is not None:
        _grow(tree, preview.tree)
    return tree


def outline_lines(preview: Preview) -> Iterator[str]:
    """Return how many tasks there are by level and by name, and what would be refused, as lines."""
    yield "levels   " + _folded([f"{number:,}" for number in preview.levels])
    yield "tasks    " + _folded([f"{number:,} {name}" for name, number in preview.names.most_common()])
    for error in preview.refused[:_SHOWN]:
        yield f"refused  {error.problem}"
        yield f"         {error.remedy}"
    if len(preview.refused) > _SHOWN:
        yield f"         … and {len(preview.refused) - _SHOWN:,} more"
    if not preview.refused:
        yield "refused  nothing; whether a key or an id is taken, only the database knows"


def outline_json(name: str, preview: Preview, *, barrier: bool) -> dict[str, Any]:
    """Return the same as JSON-friendly values."""
    return {
        "name": name,
        "barrier": barrier,
        "total": preview.total,
        "levels": list(preview.levels),
        "names": dict(preview.names),
        "tree": preview.tree and _node_json(preview.tree),
        "refused": [{"path": one.path, "problem": one.problem, "remedy": one.remedy} for one in preview.refused],
    }


def _grow(tree: Tree, node: Node) -> None:
    match node.kind:
        case "task":
            tree.add(Text(node.name).append(f"  sequence {node.sequence}", style="dim"))
        case "more":
            tree.add(f"… and {node.number:,} more like it")
        case kind:
            branch = tree.add(f"{kind} of {node.number:,}")
            for child in node.children:
                _grow(branch, child)


def _node_json(node: Node) -> dict[str, Any]:
    match node.kind:
        case "task":
            return {"kind": "task", "name": node.name, "sequence": node.sequence}
        case "more":
            return {"kind": "more", "number": node.number}
        case kind:
            return {"kind": kind, "number": node.number, "children": [_node_json(child) for child in node.children]}


def _tasks(number: int) -> str:
    return "1 task" if number == 1 else f"{number:,} tasks"


def _folded(parts: list[str]) -> str:
    shown = ", ".join(parts[:_SHOWN]) or "none"
    return shown if len(parts) <= _SHOWN else f"{shown}, … {len(parts):,} in all"
