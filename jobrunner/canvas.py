"""How Celery reads a canvas: its parts, and what each of them is given by the canvas that it is part of.

Partial arguments, options and callbacks of a whole canvas belong to some of its tasks: those of a chain to its first
and last one, those of a chord to its header or its body. Celery finds out while it sends one part after another; a plan
has to know beforehand. Where Celery drops what somebody has written, it is refused.

Pure, and a canvas is never changed: what is given to a task is put into a copy of its signature.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, NamedTuple

from celery import group
from celery.canvas import Signature, _chain, _chord

from jobrunner.errors import InvalidCanvasError
from jobrunner.signatures import as_signature, links

#: Options that are about a canvas itself: its ids, and how a chord polls for its header.
_OF_CELERY = frozenset(
    {
        "task_id",
        "root_id",
        "parent_id",
        "group_id",
        "group_index",
        "chord",
        "chain",
        "reply_to",
        "interval",
        "max_retries",
    }
)
_LINKS = frozenset({"link", "link_error"})
#: Those that do not take the place of an option that a task has.
_NOT_HANDED_ON = _OF_CELERY | _LINKS
#: When a chord starts, which is no matter of its body.
_DELAY = frozenset({"countdown", "eta"})


class Standing(Enum):
    """Where a canvas stands in the one around it."""

    ROOT = auto()
    #: In a group, or in the header of a chord.
    MEMBER = auto()
    #: In a chain, with another step behind it.
    STEP = auto()
    #: The last one in a chain.
    LAST = auto()
    HEADER = auto()
    BODY = auto()


#: Where Celery heeds options that a whole canvas has: chains in chains are spliced, groups in groups flattened, and a
#: group that another step follows is made a chord of, out of its tasks alone.
_HEEDS_OPTIONS = {
    "chain": {Standing.ROOT, Standing.MEMBER, Standing.BODY},
    "group": {Standing.ROOT, Standing.LAST, Standing.HEADER, Standing.BODY},
    "chord": {*Standing},
    "celery.chunks": (),
}
#: Where it heeds partial arguments that a whole canvas keeps itself.
_HEEDS_ARGUMENTS = {"chain": {Standing.ROOT}, "group": (), "chord": {*Standing}, "celery.chunks": ()}
#: Arguments of a canvas that say what it is made of.
_MADE_OF = {
    "chain": {"tasks"},
    "group": {"tasks"},
    "chord": {"header", "body", "kwargs"},
    "celery.chunks": {"task", "it", "n"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a canvas is sent with, apart from the value of what came before."""

    standing: Standing
    #: Put before the arguments that a task has.
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    #: Take the place of those that a task has.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: For its last task, as is the id.
    callbacks: tuple[Signature, ...] = ()
    task_id: str | None = None
    #: For each of its tasks.
    errbacks: tuple[Signature, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is given."""
        return bool(self.args or self.kwargs or self.options or self.callbacks or self.errbacks or self.task_id)

    def to(self, signature: Signature) -> Signature:
        """Return the signature of a task as it would be sent; the same one if nothing is given."""
        if not self:
            return signature
        options = {name: value for name, value in self.options.items() if value is not None}
        made = signature.clone(self.args, dict(self.kwargs), **options)
        for callback in self.callbacks:
            made.link(callback)
        for errback in self.errbacks:
            made.link_error(errback)
        if self.task_id:
            made.options.setdefault("task_id", self.task_id)
        return made


#: Nothing, by the standing of who gets it.
_NOTHING = {standing: Given(standing=standing) for standing in Standing}
ROOT = _NOTHING[Standing.ROOT]


class Part(NamedTuple):
    """A part of a canvas, the way to it for people, and what it is given."""

    signature: Signature
    path: str
    given: Given


def chain_parts(chain: Signature, path: str, given: Given) -> list[Part]:
    """Return the steps of a chain. Its options are for the first one, its callbacks for the last, errbacks for all."""
    given = _own("chain", chain, path, given)
    steps = _steps(chain, path)
    _refuse_lost_arguments(given, *steps[0])
    gets = [_NOTHING[Standing.STEP]] * (len(steps) - 1) + [_NOTHING[Standing.LAST]]
    if given:
        gets = [replace(one, errbacks=given.errbacks) for one in gets]
        gets[0] = replace(gets[0], args=given.args, kwargs=given.kwargs, options=given.options)
        if len(steps) > 1 and isinstance(steps[0][0], group):  # Celery makes a chord of these two
            gets[1] = replace(gets[1], options=_without(_DELAY, given.options))
        gets[-1] = replace(gets[-1], callbacks=given.callbacks, task_id=given.task_id)
    for index, (step, _) in enumerate(steps[:-1]):
        if isinstance(step, group):
            gets[index] = _with_errbacks(gets[index], _errbacks_of(*steps[index + 1]))
    return [Part(step, step_path, one) for (step, step_path), one in zip(steps, gets, strict=True)]


def chord_parts(chord: Signature, path: str, given: Given) -> tuple[Part, Part]:
    """Return header and body of a chord. Its options are for both, callbacks for the body, arguments for the header.

    Celery calls the errbacks of the body also when the header fails. A body that never runs can call nobody, so the
    tasks of the header do.
    """
    given = _own("chord", chord, path, given)
    if chord.body is None:
        msg = "a chord without a body."
        raise InvalidCanvasError(msg, "Give it one, or submit its header as a group.", path=path)
    header, body_path = chord.kwargs["header"], f"{path}.body"
    body = as_signature(chord.body, body_path)
    to_header, to_body = _NOTHING[Standing.HEADER], _NOTHING[Standing.BODY]
    if given:
        to_header = replace(given, standing=Standing.HEADER, callbacks=(), task_id=None)
        options = _without(_DELAY, given.options)
        to_body = replace(given, standing=Standing.BODY, args=(), kwargs={}, options=options)
    to_header = _with_errbacks(to_header, _errbacks_of(body, body_path))
    header = header if isinstance(header, group) else group(header)
    return Part(header, path, to_header), Part(body, body_path, to_body)


def to_members(members: Signature, path: str, given: Given) -> Given:
    """Return what each task of a group, or of chunks, is given: all but its callbacks, for which it has no place."""
    given = _own("group" if isinstance(members, group) else "celery.chunks", members, path, given)
    if given.callbacks:
        msg = "a group cannot call back."
        raise InvalidCanvasError(msg, "Put the callback behind it, as the next task of a chain.", path=path)
    return replace(given, standing=Standing.MEMBER, task_id=None) if given else _NOTHING[Standing.MEMBER]


def _own(kind: str, canvas: Signature, path: str, given: Given) -> Given:
    """Return what a canvas has to hand on: what it keeps itself, and what it is given, which counts for more."""
    options, args, kwargs = canvas["options"], canvas["args"], canvas["kwargs"]
    if not (options or args or kwargs.get("kwargs") or canvas.immutable) and kwargs.keys() <= _MADE_OF[kind]:
        return given  # nearly always
    _refuse_what_is_dropped(kind, canvas, path, given.standing)
    linked = {name: tuple(link for option, link, _ in links(options, path) if option == name) for name in _LINKS}
    return Given(
        standing=given.standing,
        args=tuple(args) if kind == "chord" and canvas.immutable else (*given.args, *args),
        kwargs={**kwargs.get("kwargs", {}), **given.kwargs},
        options={**_without(_NOT_HANDED_ON, options), **given.options},
        callbacks=(*linked["link"], *given.callbacks),
        task_id=options.get("task_id") or given.task_id,
        errbacks=(*linked["link_error"], *given.errbacks),
    )


def _refuse_what_is_dropped(kind: str, canvas: Signature, path: str, standing: Standing) -> None:
    options = sorted(canvas.options.keys() - _OF_CELERY)
    if options and standing not in _HEEDS_OPTIONS[kind]:
        msg = f"{kind} has options of its own ({', '.join(options)}), which Celery drops there."
        raise InvalidCanvasError(msg, "Set them on its tasks.", path=path)
    if (canvas.args and standing not in _HEEDS_ARGUMENTS[kind]) or canvas.kwargs.keys() - _MADE_OF[kind]:
        msg = f"{kind} has partial arguments of its own, which Celery drops there."
        raise InvalidCanvasError(msg, "Give them to its first task.", path=path)


_Step = tuple[Signature, str]


def _steps(chain: Signature, path: str) -> list[_Step]:
    """Return the steps of a chain as Celery takes them: chains spliced, empty groups left out, groups of one opened."""
    steps = list(_spliced(chain, path))
    filled = [(step, step_path) for step, step_path in steps if not isinstance(step, group) or step.tasks]
    return [opened for step in filled or steps[:1] for opened in _opened(*step)]


def _spliced(chain: Signature, path: str) -> Iterator[_Step]:
    if not chain.tasks:
        msg = "a chain without tasks has no value."
        raise InvalidCanvasError(msg, "Leave it out.", path=path)
    for index, task in enumerate(chain.tasks):
        step_path = f"{path}.tasks[{index}]"
        yield from _spliced_step(as_signature(task, step_path), step_path)


def _spliced_step(step: Signature, path: str) -> Iterable[_Step]:
    if not isinstance(step, _chain):
        return [(step, path)]
    _refuse_what_is_dropped("chain", step, path, Standing.STEP)
    return _spliced(step, path)


def _opened(step: Signature, path: str) -> Iterable[_Step]:
    """Return what a step is taken for: a group of one for what is in it."""
    if not isinstance(step, group) or len(members := list(step.tasks)) != 1:
        return [(step, path)]
    _refuse_what_is_dropped("group", step, path, Standing.STEP)
    path = f"{path}.tasks[0]"
    return _spliced_step(as_signature(members[0], path), path)


def _errbacks_of(canvas: Signature, path: str) -> tuple[Signature, ...]:
    """Return whom Celery calls when a canvas cannot start because the group before it has failed."""
    if isinstance(canvas, group):
        tasks = ((as_signature(task, path), path) for task in canvas.tasks)
        return tuple(errback for task in tasks for errback in _errbacks_of(*task))
    return tuple(link for option, link, _ in links(canvas.options, path) if option == "link_error")


def _with_errbacks(given: Given, errbacks: tuple[Signature, ...]) -> Given:
    return replace(given, errbacks=(*given.errbacks, *errbacks)) if errbacks else given


def _without(names: Iterable[str], options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def _refuse_lost_arguments(given: Given, first: Signature, path: str) -> None:
    """Refuse partial arguments for a chain that Celery would put where nobody looks for them."""
    if (given.args and isinstance(first, group)) or (given.kwargs and isinstance(first, group | _chord)):
        msg = "the chain begins with no task that could take the partial arguments given to it: Celery drops them."
        raise InvalidCanvasError(msg, "Give them to its tasks.", path=path)
