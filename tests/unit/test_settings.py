"""Where settings come from, which source counts, and what is said of mistakes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobrunner.errors import ConfigurationError
from jobrunner.settings import DEFAULT, OPTIONS, Settings, variable

README = Path(__file__).parents[2] / "README.md"
SECRET = "redis://:secret@host/0"  # noqa: S105  the password that no error may tell


def write(folder: Path, *, file: str | None = None, project: str | None = None) -> None:
    if file is not None:
        (folder / "jobrunner.toml").write_text(file)
    if project is not None:
        (folder / "pyproject.toml").write_text(project)


def problems(folder: Path, **environment: str) -> list[str]:
    """Return what is said of the settings in a folder, line by line without its path."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.read(environment, folder)
    assert caught.value.exit_code == 2
    assert caught.value.remedy == f"Correct this; the settings are {', '.join(OPTIONS)}."
    first, *lines = caught.value.problem.splitlines()
    assert first == "The settings cannot be used."
    return [line.strip().removeprefix(f"{folder}/") for line in lines]


# ---- sources -----------------------------------------------------------------------------------------------


#: Settings that are no text, each with a value that is not its default; all others are text, or made of it.
VALUES = {
    "command_output_megabytes": "7",
    "event_log_limit": "7",
    "keep_logs": "False",
    "log_limit": "8",
    "log_rate": "9",
    "propagate_failures": "True",
    "work_days": "8",
    "work_megabytes": "7",
}
PROPAGATE = "JOBRUNNER_PROPAGATE_FAILURES"
CAF = "CAF_JOB_TRACKING_PROPAGATE_FAILURES"


def value_of(name: str) -> str:
    """Return a value for a setting that is not its default, and is not another's text."""
    return VALUES.get(name, f"/of/{name}")


def test_a_number_is_written_as_one_or_as_its_digits(tmp_path: Path) -> None:
    write(tmp_path, file="event_log_limit = 500")
    assert Settings.read({}, tmp_path).event_log_limit == 500
    assert Settings.read({"JOBRUNNER_EVENT_LOG_LIMIT": "600"}, tmp_path).event_log_limit == 600


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ('"many"', "is text, not a whole number"),
        ("2.5", "is a number, not a whole number"),
        ("true", "is true or false, not a whole number"),
        ('"-1"', "is text, not a whole number"),
        (f'"{"9" * 5_000}"', "is text, not a whole number"),
        ("0", "is less than 1"),
    ],
)
def test_what_is_no_number_of_something_is_told(tmp_path: Path, value: str, fault: str) -> None:
    write(tmp_path, file=f"event_log_limit = {value}")
    assert problems(tmp_path) == [f"jobrunner.toml: event_log_limit {fault}."]


@pytest.mark.parametrize(("written", "meant"), [("true", True), ("TRUE", True), ("False", False), ("false", False)])
def test_whether_failures_propagate_is_true_or_false_in_any_case(tmp_path: Path, written: str, meant: bool) -> None:
    assert Settings.read({PROPAGATE: written}, tmp_path).propagate_failures is meant
    assert Settings.read({CAF: written}, tmp_path).propagate_failures is meant


def test_the_variable_of_the_caf_worker_counts_where_ours_is_not_set(tmp_path: Path) -> None:
    write(tmp_path, file="propagate_failures = false")
    settings = Settings.read({CAF: "true"}, tmp_path)
    assert (settings.propagate_failures, settings.origin("propagate_failures")) == (True, CAF)
    settings = Settings.read({CAF: "true", PROPAGATE: "false"}, tmp_path)
    assert (settings.propagate_failures, settings.origin("propagate_failures")) == (False, PROPAGATE)


@pytest.mark.parametrize("value", ["1", "yes", "on", " true", "truefalse"])
@pytest.mark.parametrize("name", [PROPAGATE, CAF])
def test_what_is_neither_true_nor_false_is_told_with_the_variable(tmp_path: Path, name: str, value: str) -> None:
    assert problems(tmp_path, **{name: value}) == [f"{name}: propagate_failures is neither true nor false."]


def test_nothing_set_gives_the_defaults(tmp_path: Path) -> None:
    settings = Settings.read({}, tmp_path)
    assert settings == Settings(home=tmp_path / ".jobrunner")
    assert settings.database_url == f"sqlite:///{tmp_path}/.jobrunner/jobrunner.db"
    assert {settings.origin(name) for name in OPTIONS} == {DEFAULT}


def test_every_setting_comes_from_its_variable(tmp_path: Path) -> None:
    environment = {variable(name): value_of(name) for name in OPTIONS}
    assert set(environment) >= {"JOBRUNNER_HOME", "JOBRUNNER_RESULT_BACKEND"}
    settings = Settings.read(environment, tmp_path)
    for name in OPTIONS:
        assert str(getattr(settings, name)) == value_of(name)
        assert settings.origin(name) == variable(name)


def test_every_setting_comes_from_a_file(tmp_path: Path) -> None:
    lines = "\n".join(f'{name} = "{value_of(name)}"' for name in OPTIONS)
    write(tmp_path, file=lines)
    settings = Settings.read({}, tmp_path)
    for name in OPTIONS:
        assert str(getattr(settings, name)) == value_of(name)
        assert settings.origin(name) == str(tmp_path / "jobrunner.toml")


def test_the_environment_comes_before_the_file_and_that_before_the_project(tmp_path: Path) -> None:
    write(
        tmp_path,
        file='broker = "file"\ndatabase = "file"',
        project='[tool.jobrunner]\nbroker = "project"\ndatabase = "project"\napp = "project"\n[tool.other]\nx = 1',
    )
    settings = Settings.read({"JOBRUNNER_BROKER": "environment"}, tmp_path)
    assert (settings.broker, settings.database, settings.app) == ("environment", "file", "project")
    assert settings.origin("broker") == "JOBRUNNER_BROKER"
    assert settings.origin("database") == str(tmp_path / "jobrunner.toml")
    assert settings.origin("app") == str(tmp_path / "pyproject.toml")
    assert settings.origin("home") == DEFAULT


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    write(tmp_path, file='broker = "file"')
    settings = Settings.read(dict.fromkeys(map(variable, OPTIONS), ""), tmp_path)
    assert (settings.home, settings.broker, settings.app) == (tmp_path / ".jobrunner", "file", None)


def test_files_of_folders_above_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, file='app = "theirs"', project="not toml")
    folder = tmp_path / "inner"
    folder.mkdir()
    assert Settings.read({}, folder).app is None


def test_the_process_reads_its_own_environment_and_its_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, file='app = "shop"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBRUNNER_APP", raising=False)
    monkeypatch.setenv("JOBRUNNER_BROKER", "redis://")
    settings = Settings.read()
    assert (settings.app, settings.broker) == ("shop", "redis://")


@pytest.mark.parametrize("project", ["", "[tool.ruff]\nline-length = 120", "[tool]", "[tool.jobrunner]"])
def test_a_project_without_settings_sets_nothing(tmp_path: Path, project: str) -> None:
    write(tmp_path, project=project)
    assert Settings.read({}, tmp_path).origins == {}


def test_home_is_relative_to_the_folder_of_its_file(tmp_path: Path) -> None:
    write(tmp_path, file='home = "var/jobs"')
    assert Settings.read({}, tmp_path).home == tmp_path / "var/jobs"
    assert Settings.read({"JOBRUNNER_HOME": "/srv/jobs"}, tmp_path).home == Path("/srv/jobs")


def test_a_tilde_is_the_users_own_folder(tmp_path: Path) -> None:
    write(tmp_path, file='home = "~/jobs"')
    assert Settings.read({}, tmp_path).home == Path.home() / "jobs"


# ---- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ('brokr = "x"', "'brokr' is no setting; did you mean broker?"),
        ('result-backend = "x"', "'result-backend' is no setting; did you mean result_backend?"),
        ("zzz = 1", "'zzz' is no setting."),
        ("broker = 6379", "broker is a number, not text."),
        (f'broker = ["{SECRET}"]', "broker is a list, not text."),
        ("broker = true", "broker is true or false, not text."),
        ("app = 2026-11-22", "app is a date or time, not text."),
        ("[database]\nurl = 1", "database is a table, not text."),
        ("home = 1.5", "home is a number, not text."),
        ('home = "~nobody-of-that-name/jobs"', "home begins with a user whose folder is not known."),
        ('app = ""', "app is empty: leave it out to get the default."),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_place(tmp_path: Path, file: str, said: str) -> None:
    write(tmp_path, file=file)
    assert problems(tmp_path) == [f"jobrunner.toml: {said}"]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        file=f'brokr = "{SECRET}"\nbroker = ["{SECRET}"]\nhome = 1',
        project="[tool.jobrunner]\napp = 1\nresult_backend = 2",
    )
    told = problems(tmp_path, JOBRUNNER_HOME="~nobody-of-that-name", JOBRUNNER_BROKER=SECRET)
    assert [line.partition(" ")[0] for line in told] == ["pyproject.toml:"] * 2 + ["jobrunner.toml:"] * 3 + [
        "JOBRUNNER_HOME:"
    ]
    assert "secret" not in "".join(told)


def test_a_file_that_is_no_toml_is_told_with_the_line_and_the_other_file_is_read_all_the_same(tmp_path: Path) -> None:
    write(tmp_path, file=f"\nbroker = {SECRET}", project="[tool.jobrunner]\nap = 1")
    project, file = problems(tmp_path)
    assert project == "pyproject.toml: 'ap' is no setting; did you mean app?"
    assert file.startswith("jobrunner.toml: the file is no valid TOML (")
    assert "line 2" in file
    assert "secret" not in file


@pytest.mark.parametrize(
    ("project", "said"),
    [
        ("[tool]\njobrunner = 1", "pyproject.toml: jobrunner is a number, not a table."),
        ('tool = "x"', "pyproject.toml: tool is text, not a table."),
    ],
)
def test_what_should_be_a_table_and_is_not_is_told(tmp_path: Path, project: str, said: str) -> None:
    write(tmp_path, project=project)
    assert problems(tmp_path) == [said]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobrunner.toml").mkdir()
    assert problems(tmp_path) == ["jobrunner.toml: the file cannot be read (Is a directory)."]


def test_a_file_that_is_no_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobrunner.toml").write_bytes(b'app = "\xff"')
    assert problems(tmp_path) == ["jobrunner.toml: the file is no text in UTF-8."]


# ---- what is told ------------------------------------------------------------------------------------------


def test_a_password_is_in_no_value_that_is_shown(tmp_path: Path) -> None:
    texts = OPTIONS.keys() - VALUES.keys()
    settings = Settings.read(dict.fromkeys(map(variable, texts), SECRET), tmp_path)
    assert settings.broker == SECRET
    for text in (repr(settings), *(str(settings.shown(name)) for name in texts)):
        assert "secret" not in text
        assert ":***@host/0" in text


def test_the_readme_tells_every_setting() -> None:
    text = README.read_text()
    for name, option in OPTIONS.items():
        assert f"| `{name}` | `{variable(name)}` | {option.about} | {option.otherwise} |" in text


def test_no_import_reads_the_environment_or_a_file(tmp_path: Path) -> None:

    write(tmp_path, file="not toml")
    environment = {**os.environ, "PYTHONPATH": str(README.parent), "JOBRUNNER_HOME": "~nobody-of-that-name"}
    done = subprocess.run(
        [sys.executable, "-c", "import jobrunner.cli"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
