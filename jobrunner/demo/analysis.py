"""Read Python source and say what is in it, without running any of it and without Celery.

Everything returned is made of plain JSON values, for records travel through a result backend. A file that cannot be
read or parsed is a result like any other: it gives a record with its error, because a job over foreign files meets such
files daily.
"""

import ast
import os
import sysconfig
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from heapq import nlargest
from importlib.util import decode_source
from pathlib import Path
from typing import TypedDict

from jobrunner.errors import InvalidParametersError
from jobrunner.text import NAME, SENTENCE, bounded

#: How many entries a report's lists hold at most.
LONGEST = 5
IMPORTED = 10
ERRORS = 10

_FOREIGN_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__"})

_BROKEN = {
    "bad_syntax.py": b"def broken(:\n    return 1\n",
    "bad_encoding.py": b'"""Latin-1 that does not say so."""\n\nprice = "\xa3 5"\n',
    "nul_byte.py": b'title = "before"\n\x00\ntitle = "after"\n',
}

#: `catch_warnings` swaps filters of the whole process; two threads inside it could restore each other's.
_parsing = threading.Lock()


class Function(TypedDict):
    """A function and its length, from the line of its `def` to its last."""

    name: str
    lines: int


class Fault(TypedDict):
    """Why a file could not be read or parsed; the message names the line, if that is known."""

    type: str
    message: str
    line: int | None


class FileRecord(TypedDict):
    """What one file holds; `lines` counts even where `error` says that they could not be parsed."""

    path: str
    lines: int
    functions: int
    longest: Function | None
    imports: list[str]
    error: Fault | None


class LongFunction(Function):
    """A function and the file that it is in."""

    path: str


class ImportedModule(TypedDict):
    """A top-level module and the number of files that import it."""

    module: str
    files: int


class FileError(TypedDict):
    """A file that could not be read or parsed, and why."""

    path: str
    error: str


class Report(TypedDict):
    """The sum of many records; `failed` counts every error, of which `errors` shows the first few."""

    files: int
    failed: int
    lines: int
    functions: int
    longest: list[LongFunction]
    imports: list[ImportedModule]
    errors: list[FileError]
    errors_omitted: int


def analyse(path: str | Path) -> FileRecord:
    """Return the record of one file; one that is missing, unreadable or not Python gives a record with its error."""
    record = FileRecord(path=bounded(path, SENTENCE), lines=0, functions=0, longest=None, imports=[], error=None)
    try:
        source = Path(path).read_bytes()
        record["lines"] = len(source.splitlines())
        tree = _parse(source)
    # ValueError: a NUL in the path, or bytes that do not fit the encoding. LookupError: a coding cookie that names a
    # codec, but none for text. The last two: nested deeper than the parser goes.
    except (OSError, SyntaxError, ValueError, LookupError, RecursionError, MemoryError) as error:
        record["error"] = _fault(error)
        return record
    functions = list(_functions(tree))
    record["functions"] = len(functions)
    record["longest"] = max(functions, key=lambda function: function["lines"], default=None)
    record["imports"] = sorted({bounded(name, NAME) for name in _imports(tree)})
    return record


def summarize(records: list[FileRecord]) -> Report:
    """Join the records of many files into one report; equals keep the order of the records."""
    longest = [
        LongFunction(path=record["path"], **record["longest"]) for record in records if record["longest"] is not None
    ]
    imported = Counter(module for record in records for module in record["imports"])
    errors = [
        FileError(path=record["path"], error=sentence(fault))
        for record in records
        if (fault := record["error"]) is not None
    ]
    return Report(
        files=len(records),
        failed=len(errors),
        lines=sum(record["lines"] for record in records),
        functions=sum(record["functions"] for record in records),
        longest=nlargest(LONGEST, longest, key=lambda function: function["lines"]),
        imports=[ImportedModule(module=module, files=files) for module, files in imported.most_common(IMPORTED)],
        errors=errors[:ERRORS],
        errors_omitted=len(errors[ERRORS:]),
    )


def sentence(fault: Fault) -> str:
    """Return a fault as people read it."""
    return bounded(f"{fault['type']}: {fault['message']}" if fault["message"] else fault["type"], SENTENCE)


def source_folder(folder: Path | None = None) -> Path:
    """Return the absolute path of a folder, by default that of the standard library.

    Absolute, because the workers that list it and open its files may run in another directory.

    Raises:
        InvalidParametersError: There is no such folder.
    """
    root = Path(sysconfig.get_path("stdlib") if folder is None else folder).resolve()
    if not root.is_dir():
        problem = f"{root} is not a folder."
        raise InvalidParametersError(problem, "Name a folder that exists.")
    return root


def python_files(root: Path) -> list[str]:
    """Return the paths of the Python files below a folder, sorted.

    Installed packages are left out, unless the folder itself lies within them.
    """
    return sorted(_walk(root))


def broken_samples(folder: Path) -> list[str]:
    """Write three files that no Python can parse into `folder`, and return their paths.

    Some distributions ship a standard library without its tests, where all of its faulty files are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder.resolve() / name for name in _BROKEN]
    for path in paths:
        path.write_bytes(_BROKEN[path.name])
    return [str(path) for path in paths]


def _walk(root: Path) -> Iterator[str]:
    """Yield the Python files below `root`; links to folders are not followed, so a cycle does no harm."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in _FOREIGN_FOLDERS]
        yield from (str(Path(folder, name)) for name in names if name.endswith(".py"))


def _parse(source: bytes) -> ast.Module:
    """Return the tree of `source`, decoded as its coding cookie says (PEP 263).

    Not left to `ast.parse`, which lets bytes pass that do not fit the encoding as long as they stand in a comment;
    `import` does not.
    """
    text = decode_source(source)
    with _parsing, warnings.catch_warnings():
        # Foreign source warns of its own odd escapes; and where warnings are errors, it would fail to parse.
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _functions(tree: ast.Module) -> Iterator[Function]:
    """Yield every function: methods, nested and async ones too, but no lambdas, which have no name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.end_lineno or node.lineno
            yield Function(name=bounded(node.name, NAME), lines=last - node.lineno + 1)


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the top-level name of every absolute import; a relative one names a part of the file's own package."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]


def _fault(error: BaseException) -> Fault:
    """Return an error as bounded text on one line."""
    line = None
    match error:
        case SyntaxError(msg=message, lineno=int(known)) if known > 0:
            line, message = known, f"{message} (line {known})"
        case OSError(strerror=str(message)):
            pass  # the whole text repeats the path, which is in the record
        case _:
            message = str(error)
    return Fault(type=type(error).__name__, message=bounded(" ".join(message.split()), SENTENCE), line=line)
