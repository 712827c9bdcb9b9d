"""Named jobs: functions that return a canvas, with typed parameters that a command line or a form can fill."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery.canvas import Signature
from pydantic import TypeAdapter, ValidationError

from jobrunner.errors import InvalidParametersError


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedJob:
    """A function registered with `@jobs.job("name")`."""

    name: str
    function: Callable[..., Signature]

    def canvas(self, parameters: Mapping[str, str]) -> Signature:
        """Call the function with parameters given as text, each converted to the type that the function declares.

        Raises:
            InvalidParametersError: one is unknown, missing or of another type; all problems are named at once.
        """
        declared = inspect.signature(self.function, eval_str=True).parameters
        problems = [f"{name} is unknown" for name in parameters if name not in declared]
        values = {}
        for name, parameter in declared.items():
            if name in parameters:
                try:
                    values[name] = _convert(parameters[name], parameter.annotation)
                except ValidationError as error:
                    problems.append(f"{name}={parameters[name]!r}: {error.errors()[0]['msg']}")
            elif parameter.default is inspect.Parameter.empty:
                problems.append(f"{name} is missing")
        if problems:
            msg = f"The parameters of {self.name} do not fit: {'; '.join(problems)}."
            raise InvalidParametersError(msg, f"It takes {self._parameters()}.")
        return self.function(**values)

    def _parameters(self) -> str:
        declared = inspect.signature(self.function, eval_str=True).parameters.values()
        return (
            ", ".join(inspect.formatannotation(one.annotation).join((f"{one.name}: ", "")) for one in declared)
            or "none"
        )


def _convert(text: str, annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return text
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        return adapter.validate_strings(text)
    except ValidationError:
        if text[:1] in "[{":
            return adapter.validate_json(text)
        raise
