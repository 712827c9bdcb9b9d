"""Named jobs: functions that return a canvas, with typed parameters that a command line or a form can fill."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery.canvas import Signature
from pydantic import TypeAdapter, ValidationError

from jobrunner.errors import InvalidParametersError
from jobrunner.failure_policy import DEFAULT, FailurePolicy

_VARIABLE = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedJob:
    """A function registered with `@jobs.job("name")`, and what failures mean for it unless a submission says so."""

    name: str
    function: Callable[..., Signature]
    policy: FailurePolicy = DEFAULT

    def canvas(self, parameters: Mapping[str, str]) -> Signature:
        """Call the function with parameters given as text, each converted to the type that the function declares.

        Raises:
            InvalidParametersError: one is unknown, missing or of another type; all problems are named at once.
        """
        declared = self._declared()
        problems = [f"{name} is unknown" for name in parameters if name not in declared]
        values = {}
        for name, parameter in declared.items():
            if name in parameters:
                try:
                    values[name] = _convert(parameters[name], parameter.annotation)
                except ValidationError as error:
                    problems.append(f"{name}={parameters[name]!r}: {error.errors()[0]['msg']}")
            elif parameter.default is parameter.empty:
                problems.append(f"{name} is missing")
        if problems:
            msg = f"The parameters of {self.name} do not fit: {'; '.join(problems)}."
            raise InvalidParametersError(msg, f"It takes {self._parameters()}.")
        return self.function(**values)

    def _parameters(self) -> str:
        return ", ".join(str(parameter) for parameter in self._declared().values()) or "none"

    def _declared(self) -> dict[str, inspect.Parameter]:
        """Return the parameters that can be given by name; `*args` and `**kwargs` stay empty."""
        declared = inspect.signature(self.function, eval_str=True).parameters
        return {name: parameter for name, parameter in declared.items() if parameter.kind not in _VARIABLE}


def _convert(text: str, annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return text
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        return adapter.validate_strings(text)
    except ValidationError:
        if text.startswith(("[", "{")):
            return adapter.validate_json(text)
        raise
