"""Random canvases that tell what has become of them: each value says which task took what, with which options.

The same seed makes the same canvas again, so that it can be run by Celery and as a job. Left out is what Celery 5.7
gets wrong. `docs/canvas.md` lists these faults; `test_canvas.py` has a test for each that says what a job makes of it:

* a group right inside a group is flattened, and its results may come in another order;
* the results of a group of nothing but one canvas that ends in a group are those of the inner group;
* chunks that are not sent alone yield a description of themselves;
* a chord with an empty group as its body is never seen to end inside of another canvas;
* what follows a chord whose body is a group runs once for each task of that group, unless `|` joins it to the body;
* a group with a chord in it, at the end of what is itself in a group, is never seen to end;
* a chord over a generator of canvases that end in groups gets their results flattened, in another order.
"""

from collections.abc import Iterable
from functools import reduce
from operator import or_
from random import Random
from types import ModuleType
from typing import Any

from celery import Signature, chain, chord, group
from celery.canvas import _chain


class Maker:
    """Makes one canvas, of so many `tasks`, with so many `calls` of `proj.meet`; `name` is in the label of each."""

    def __init__(self, seed: int, name: str, proj: ModuleType) -> None:
        self.random = Random(seed)  # noqa: S311  nothing secret
        self.name, self.proj = name, proj
        self.tasks = self.calls = self.linked = 0

    def canvas(self) -> Signature:
        if self.random.random() < 0.04:
            return self._chunks()
        made = self._any(self.random.choice([1, 2, 2, 3, 3]))
        if isinstance(made, group):  # elsewhere it depends on what comes next whether a group keeps them
            made.set(**self._options())
        if isinstance(made, _chain) and self.random.random() < 0.2:  # only the outermost chain keeps them
            made.args = tuple(self._arguments())
        return made

    def _any(self, depth: int) -> Signature:
        if depth == 0:
            return self._task()
        made = self.random.choices(
            [self._task, self._map, self._chain, self._group, self._chord], weights=[2, 1, 5, 4, 4]
        )[0]
        return made() if made in {self._task, self._map} else made(depth - 1)

    def _task(self) -> Signature:
        self.tasks += 1
        self.calls += 1
        named = {"label": self._label(self.tasks)} | ({"extra": self.random.random()} if self._rarely() else {})
        immutable = self.random.random() < 0.15
        made = self.proj.meet.signature(tuple(self._arguments()), named, immutable=immutable)
        if self._rarely():
            made.set(**self._options())
        if self._rarely():
            self.linked += 1
            self.calls += 1
            made.link(self.proj.meet.s(label=self._label(f"link{self.linked}")))
        return made

    def _map(self) -> Signature:
        self.tasks += 1
        items = [f"{self._label(self.tasks)} item{number}" for number in range(self.random.randint(0, 3))]
        self.calls += len(items)
        if self.random.random() < 0.5:
            return self.proj.meet.map(items)
        return self.proj.meet.starmap([(item, self.random.random()) for item in items])

    def _chunks(self) -> Signature:
        items = [(self._label(f"item{number}"),) for number in range(self.random.randint(1, 7))]
        size = self.random.randint(1, 3)
        self.tasks += -(-len(items) // size)
        self.calls += len(items)
        return self.proj.meet.chunks(items, size)

    def _chain(self, depth: int) -> Signature:
        steps: list[Signature] = []
        for _ in range(self.random.randint(2, 4)):
            if steps and _ends_in_group(steps[-1]) and not (isinstance(steps[-1], group) and len(steps) == 1):
                steps.append(self._task())
            steps.append(self._any(depth))
        made = self.random.choice([lambda: chain(*steps), lambda: chain(steps), lambda: reduce(or_, steps)])()
        return self._with_options(made)

    def _group(self, depth: int) -> Signature:
        tasks = self._parallel(depth)
        if len(tasks) == 1 and _ends_in_group(tasks[0]):
            tasks.append(self._task())
        return group(self._maybe_lazy(tasks))

    def _chord(self, depth: int) -> Signature:
        header, body = self._parallel(depth), self._any(depth)
        while isinstance(body, group) and not body.tasks:
            body = self._any(depth)
        made = chord(self._maybe_lazy(header), body)
        if self._rarely():
            made = made.clone(tuple(self._arguments()))
        if self._rarely() and not any(isinstance(task, _chain) for task in header):
            made = chord(made.tasks, made.body, args=made.args, kwargs={"kwargs": {"more": self.random.random()}})
        made.immutable = self.random.random() < 0.1
        return self._with_options(made)

    def _parallel(self, depth: int) -> list[Signature]:
        made = [self._any(depth) for _ in range(self.random.choice([0, 1, 2, 2, 3, 4]))]
        made = [chain(self._task(), one) if isinstance(one, group) else one for one in made]
        return [chain(one, self._task()) if _ends_in_group(one) and _has_chord(one) else one for one in made]

    def _maybe_lazy(self, tasks: list[Signature]) -> Iterable[Signature]:
        if self.random.random() < 0.8 or any(map(_ends_in_group, tasks)):
            return tasks
        return (task for task in tasks)

    def _with_options(self, made: Signature) -> Signature:
        if isinstance(made, _chain | chord) and self._rarely():
            made.set(**self._options())
        return made

    def _options(self) -> dict[str, Any]:
        options = {"time_limit": self.random.randint(1_000, 9_999), "headers": {"mark": self.random.random()}}
        return {name: value for name, value in options.items() if self.random.random() < 0.7}

    def _arguments(self) -> list[int]:
        return [self.random.randint(0, 99) for _ in range(self.random.choice([0, 0, 0, 1, 2]))]

    def _label(self, what: object) -> str:
        return f"{self.name} {what}"

    def _rarely(self) -> bool:
        return self.random.random() < 0.15


def _ends_in_group(canvas: Signature) -> bool:
    """Whether the last thing that a canvas does is a group."""
    if isinstance(canvas, _chain | chord):
        return _ends_in_group(canvas.tasks[-1] if isinstance(canvas, _chain) else canvas.body)
    return isinstance(canvas, group)


def _has_chord(canvas: Signature) -> bool:
    return isinstance(canvas, chord) or (isinstance(canvas, _chain | group) and any(map(_has_chord, canvas.tasks)))
