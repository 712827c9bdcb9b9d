"""Named jobs: parameters given as text become what the function declares, and all that does not fit is said at once."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from celery.canvas import Signature

from jobrunner.errors import InvalidParametersError
from jobrunner.named import NamedJob
from tests.builders import leaf, work


def _job(function: Callable[..., Signature]) -> NamedJob:
    return NamedJob(name="nightly", function=function)


def _takes(annotation: Any, text: str) -> Any:
    """What a parameter of this type receives when it is given as text."""

    def function(x: object) -> Signature:
        return work().s(x)

    function.__annotations__["x"] = annotation
    (value,) = _job(function).canvas({"x": text}).args
    return value


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (str, "eu", "eu"),
        (str, "5", "5"),
        (str, "[draft]", "[draft]"),
        (str, "", ""),
        (int, "5", 5),
        (int, "-5", -5),
        (float, "0.5", 0.5),
        (bool, "true", True),
        (bool, "no", False),
        (bool, "0", False),
        (date, "2026-11-22", date(2026, 11, 22)),
        (Path | None, "/data/in", Path("/data/in")),
        (int | None, "5", 5),
        (list[int], "[1, 2]", [1, 2]),
        (list[date], '["2026-11-22"]', [date(2026, 11, 22)]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
    ],
)
def test_text_becomes_what_the_function_declares(annotation: Any, text: str, value: object) -> None:
    taken = _takes(annotation, text)
    assert taken == value
    assert type(taken) is type(value) or isinstance(taken, Path)


def test_a_parameter_without_a_type_is_text() -> None:
    def function(x) -> Signature:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return work().s(x)

    assert _job(function).canvas({"x": "5"}).args == ("5",)


def test_types_may_be_written_as_text() -> None:
    def function(x: "int", on: "date") -> Signature:
        return work().s(x, on)

    assert _job(function).canvas({"x": "5", "on": "2026-11-22"}).args == (5, date(2026, 11, 22))


def test_a_parameter_that_is_not_given_has_its_default() -> None:
    def function(region: str = "eu", *, path: Path | None = None) -> Signature:
        return work().s(region, path)

    assert _job(function).canvas({}).args == ("eu", None)
    assert _job(function).canvas({"region": "us"}).args == ("us", None)


def test_parameters_that_may_be_any_number_may_be_none() -> None:
    def function(*labels: str, **options: str) -> Signature:
        return work().s(*labels, **options)

    assert _job(function).canvas({}).args == ()


def test_the_canvas_is_what_the_function_returns() -> None:
    canvas = leaf("a")
    assert _job(lambda: canvas).canvas({}) is canvas


@pytest.mark.parametrize(
    ("annotation", "text", "said"),
    [
        (int, "five", "valid integer"),
        (int, "", "valid integer"),
        (bool, "maybe", "valid boolean"),
        (date, "tomorrow", "valid date"),
        (list[int], "1,2", "valid array"),
        (list[int], "[1, two]", "JSON"),
        (list[int], '["one"]', "valid integer"),
    ],
)
def test_text_of_another_type_is_refused_with_the_reason(annotation: Any, text: str, said: str) -> None:
    with pytest.raises(InvalidParametersError, match=rf"x='{text}'".replace("[", r"\[")) as refused:
        _takes(annotation, text)
    assert said in refused.value.problem


def test_unknown_missing_and_mistyped_parameters_are_all_named_at_once() -> None:
    def function(region: str, day: date, count: int = 1) -> Signature:
        return work().s(region, day, count)

    with pytest.raises(InvalidParametersError) as refused:
        _job(function).canvas({"regoin": "eu", "day": "tomorrow", "count": "many"})
    assert refused.value.problem.startswith("The parameters of nightly do not fit: ")
    for said in ("regoin is unknown", "region is missing", "day='tomorrow'", "count='many'"):
        assert said in refused.value.problem
    for taken in ("region: str", "day: datetime.date", "count: int"):
        assert taken in refused.value.remedy
    assert refused.value.exit_code == 2


def test_a_function_that_takes_nothing_says_so() -> None:
    def leaf_only() -> Signature:
        return leaf()

    with pytest.raises(InvalidParametersError, match=r"x is unknown.*It takes none\."):
        _job(leaf_only).canvas({"x": "1"})


def test_the_function_is_not_called_with_parameters_that_do_not_fit() -> None:
    called = []

    def function(x: int) -> Signature:
        called.append(x)
        return leaf()

    with pytest.raises(InvalidParametersError):
        _job(function).canvas({"x": "1", "y": "2"})
    assert called == []
