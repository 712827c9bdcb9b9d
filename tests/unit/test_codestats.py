"""The demo's analysis: what it counts, what it survives, how it sums up."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobrunner.demo import analysis, codestats
from jobrunner.demo.analysis import (
    Fault,
    FileRecord,
    Function,
    Report,
    analyse,
    broken_samples,
    python_files,
    sentence,
    source_folder,
    summarize,
)
from jobrunner.demo.rendering import render
from jobrunner.errors import InvalidParametersError
from jobrunner.statements import ItemCounts
from jobrunner.states import JobState, TaskState
from jobrunner.testing import run
from jobrunner.text import SENTENCE

Write = Callable[[str | bytes], FileRecord]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Return a function that writes source to a file and returns its record."""

    def write(source: str | bytes) -> FileRecord:
        path = tmp_path / "sample.py"
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        return analyse(path)

    return write


def why(record: FileRecord) -> str:
    return "" if record["error"] is None else sentence(record["error"])


def a_fault(message: str = "odd", line: int | None = None) -> Fault:
    return Fault(type="SyntaxError", message=message, line=line)


def a_record(path: str = "a.py", **changes: Any) -> FileRecord:
    blank = FileRecord(path=path, lines=0, functions=0, longest=None, imports=[], error=None)
    blank.update(changes)  # type: ignore[typeddict-item]
    return blank


def printed(report: Report, width: int = 100) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(render(report))
    return capture.get()


def test_methods_async_and_nested_functions_count_and_lambdas_do_not(written: Write) -> None:
    record = written(
        "def outer():\n"
        "    def inner():\n"
        "        return lambda: 1\n"
        "    return inner\n"
        "\n"
        "async def fetch(): ...\n"
        "\n"
        "class Box:\n"
        "    def open(self): ...\n"
        "    async def close(self): ...\n"
    )
    assert record["functions"] == 5
    assert record["longest"] == {"name": "outer", "lines": 4}
    assert record["lines"] == 10
    assert record["error"] is None


def test_a_function_is_as_long_as_from_its_def_to_its_last_line(written: Write) -> None:
    record = written("@decorated\n@twice\ndef first(\n    a,\n):\n    return a\n\n\ndef second():\n    return 2\n")
    assert record["longest"] == {"name": "first", "lines": 4}


def test_of_functions_equally_long_the_first_is_the_longest(written: Write) -> None:
    assert written("def a(): ...\ndef b(): ...\n")["longest"] == {"name": "a", "lines": 1}


def test_imports_are_top_level_names_once_each_and_sorted(written: Write) -> None:
    record = written(
        "import os.path, sys\nimport os\nfrom xml.dom import minidom\ndef later():\n    import asyncio as aio\n"
    )
    assert record["imports"] == ["asyncio", "os", "sys", "xml"]


def test_relative_imports_name_no_module(written: Write) -> None:
    assert written("from . import a\nfrom .b import c\nfrom ..d.e import f\n")["imports"] == []


def test_an_empty_file_has_nothing_and_no_error(written: Write) -> None:
    record = written("")
    assert {**record, "path": ""} == a_record("")


def test_lines_count_as_python_counts_them(written: Write) -> None:
    assert written('a = 1\r\nb = "\f\x1c\u2028"\nc = 3')["lines"] == 3


@pytest.mark.parametrize("cookie", ["latin-1", "cp1252", "utf-8-sig"])
def test_a_coding_cookie_is_obeyed(written: Write, cookie: str) -> None:
    record = written(f'# -*- coding: {cookie} -*-\ndef größe():\n    return "£"\n'.encode(cookie))
    assert record["error"] is None
    assert record["longest"] == {"name": "größe", "lines": 2}


@pytest.mark.parametrize("cookie", ["klingon", "hex"])
def test_a_coding_cookie_that_names_no_encoding_is_an_error(written: Write, cookie: str) -> None:
    assert cookie in why(written(f"# coding: {cookie}\nanswer = 42\n"))


def test_bytes_that_fit_no_encoding_are_an_error_even_in_a_comment(written: Write) -> None:
    assert "0xe9" in why(written(b"a = 1\nb = 2\n# caf\xe9\n"))


def test_bad_syntax_bad_encoding_and_nul_bytes_give_records_with_errors(tmp_path: Path) -> None:
    syntax, encoding, nul = (analyse(path) for path in broken_samples(tmp_path))
    assert syntax["error"] == {"type": "SyntaxError", "message": "invalid syntax (line 1)", "line": 1}
    assert why(syntax) == "SyntaxError: invalid syntax (line 1)"
    assert why(encoding).startswith("UnicodeDecodeError: 'utf-8' codec can't decode byte 0xa3")
    assert "null bytes" in why(nul)
    assert [record["lines"] for record in (syntax, encoding, nul)] == [2, 3, 3]
    assert all(record["functions"] == 0 and record["longest"] is None for record in (syntax, encoding, nul))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("missing.py", "FileNotFoundError: No such file or directory"),
        (".", "IsADirectoryError: Is a directory"),
        ("nul\0.py", "ValueError: embedded null byte"),
    ],
)
def test_a_path_that_cannot_be_read_gives_a_record_with_its_error(tmp_path: Path, name: str, error: str) -> None:
    record = analyse(tmp_path / name)
    assert why(record) == error
    assert record["lines"] == 0


@pytest.mark.parametrize("source", ["(" * 5_000, "-" * 20_000 + "1", "a" + ".a" * 50_000], ids=["(", "-", "."])
def test_nesting_deeper_than_the_parser_goes_is_survived(written: Write, source: str) -> None:
    assert written(source)["lines"] == 1


def test_an_error_is_one_line_of_bounded_length(written: Write) -> None:
    error = why(written("# coding: " + "x" * 5_000 + "\n"))
    assert error
    assert "\n" not in error
    assert len(error) <= SENTENCE


def test_warnings_of_foreign_source_do_not_leak(written: Write) -> None:
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        record = written(r'pattern = "\d"' + "\nodd = 1if True else 2\n")
    assert record["error"] is None
    assert leaked == []


def test_a_record_is_json(written: Write) -> None:
    record = written("import os\ndef f(): ...\n")
    assert json.loads(json.dumps(record)) == record


def test_writing_the_broken_samples_twice_gives_the_same_three_files(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    first = broken_samples(folder)
    contents = [Path(path).read_bytes() for path in first]
    assert broken_samples(folder) == first
    assert [Path(path).read_bytes() for path in first] == contents
    assert sorted(first) == python_files(folder)


def test_the_standard_library_is_listed_without_installed_packages() -> None:
    files = python_files(source_folder())
    assert len(files) >= 500
    assert files == sorted(set(files))
    assert any(path.endswith("/json/decoder.py") for path in files)
    assert not {"site-packages", "dist-packages", "__pycache__"} & {part for path in files for part in Path(path).parts}


def test_a_folder_is_listed_sorted_and_absolute_and_only_its_python_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.py", "a/z.py", "a/notes.txt", "site-packages/x.py", "__pycache__/y.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert python_files(source_folder(Path())) == [str(tmp_path.resolve() / "a/z.py"), str(tmp_path.resolve() / "b.py")]


def test_a_folder_inside_site_packages_can_be_asked_for(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "package"
    package.mkdir(parents=True)
    (package / "m.py").touch()
    assert len(python_files(package)) == 1


@pytest.mark.parametrize("name", ["missing", "file.py"])
def test_what_is_no_folder_is_refused_with_a_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.py").touch()
    with pytest.raises(InvalidParametersError, match=name) as refused:
        source_folder(tmp_path / name)
    assert refused.value.remedy


def test_in_an_empty_folder_there_are_no_files(tmp_path: Path) -> None:
    assert python_files(tmp_path) == []


def test_a_report_sums_the_records_up() -> None:
    report = summarize(
        [
            a_record("a.py", lines=10, functions=2, longest=Function(name="f", lines=4), imports=["os", "re"]),
            a_record("b.py", lines=20, functions=1, longest=Function(name="g", lines=9), imports=["os"]),
            a_record("c.py", lines=3, error=a_fault("invalid syntax (line 1)", line=1)),
        ]
    )
    assert report == {
        "files": 3,
        "failed": 1,
        "lines": 33,
        "functions": 3,
        "longest": [{"name": "g", "lines": 9, "path": "b.py"}, {"name": "f", "lines": 4, "path": "a.py"}],
        "imports": [{"module": "os", "files": 2}, {"module": "re", "files": 1}],
        "errors": [{"path": "c.py", "error": "SyntaxError: invalid syntax (line 1)"}],
        "errors_omitted": 0,
    }


def test_a_report_shows_a_few_of_many_and_counts_the_rest() -> None:
    report = summarize(
        [
            a_record(f"{n}.py", longest=Function(name="f", lines=n), imports=[f"m{n}"], error=a_fault(f"E{n}"))
            for n in range(1, 13)
        ]
    )
    assert [function["lines"] for function in report["longest"]] == [12, 11, 10, 9, 8]
    assert len(report["imports"]) == 10
    assert [failure["error"] for failure in report["errors"]] == [f"SyntaxError: E{n}" for n in range(1, 11)]
    assert (report["failed"], report["errors_omitted"]) == (12, 2)


def test_a_report_on_nothing_is_all_zeros() -> None:
    assert " ".join(printed(summarize([])).split()) == "Totals files failed lines functions 0 0 0 0"


def test_a_printed_report_names_totals_functions_modules_and_errors() -> None:
    text = printed(
        summarize(
            [
                a_record("a.py", lines=12_345, functions=1, longest=Function(name="run", lines=99), imports=["os"]),
                *(a_record(f"bad{n}.py", error=a_fault("invalid syntax (line 1)", line=1)) for n in range(11)),
            ]
        )
    )
    assert all(part in text for part in ("12,345", "run", "99", "os", "bad0.py", "invalid syntax (line 1)"))
    assert "and 1 more" in text


def test_foreign_text_is_neither_markup_nor_an_escape_sequence_when_printed() -> None:
    text = printed(summarize([a_record("[red]x\x1b[2J.py", error=a_fault("[/nonsense]"))]))
    assert "[red]x\N{REPLACEMENT CHARACTER}[2J.py" in text
    assert "[/nonsense]" in text


def test_a_printed_path_is_cut_to_its_end_only_beside_a_function() -> None:
    path = "/usr/lib/python3/json/decoder.py"
    beside = a_record(path, longest=Function(name="decode", lines=9))
    assert "…/python3/json/decoder.py" in printed(summarize([beside]))
    assert path in printed(summarize([a_record(path, error=a_fault())]))


def test_the_analysis_needs_neither_celery_nor_rich() -> None:
    imports = analyse(analysis.__file__)["imports"]
    assert "jobrunner" in imports
    assert not {"celery", "rich"} & set(imports)


# ---- the job -----------------------------------------------------------------------------------------------


def test_a_faulty_file_is_an_item_error_with_its_line_and_the_report_has_the_others(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("import os\n")
    job = run("codestats", {"folder": str(tmp_path), "samples": str(tmp_path / "samples")}, app=codestats.jobs)
    assert (job.state, job.outcome, job.items) == (JobState.COMPLETED, "with-errors", ItemCounts(failed=3))
    assert (job.result()["files"], job.result()["failed"]) == (4, 3)
    partial = [task for task in job.tasks() if task.state is TaskState.PARTIAL]
    (error,) = job.task(partial[0].id).item_errors()
    path = str(tmp_path / "samples" / "bad_syntax.py")
    assert (error.item, error.error, error.details) == (path, "SyntaxError: invalid syntax (line 1)", {"line": 1})


def test_an_empty_folder_is_nothing_to_do(tmp_path: Path) -> None:
    job = run("codestats", {"folder": str(tmp_path)}, app=codestats.jobs)
    assert (job.state, job.outcome, job.result()) == (JobState.COMPLETED, "noop", None)
    assert [(task.state, task.note) for task in job.tasks()] == [
        (TaskState.SKIPPED, f"no Python files below {tmp_path}"),
        (TaskState.SKIPPED, "skipped: what it takes is empty"),
    ]
