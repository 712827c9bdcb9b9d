"""Which workers without jobrunner live, judged by what the plain receiver hears and by our own monotonic clock.

Nothing is decided by it: of what they have in their hands nothing is sent again, because an event that nobody heard is
no sign of a loss.
"""

from collections.abc import Iterable

from tracker.fold import Event
from tracker.roster import Heard

_COMES = frozenset({"worker-online", "worker-heartbeat"})
_GOES = "worker-offline"


class LossyWorkers(Heard):
    """When each of them was last heard. In memory; the rows are the database's."""

    def know(self, names: Iterable[str], moment: float) -> None:
        """Begin with these, or give everybody a full time-out again: nobody could be heard until now."""
        self.heard = dict.fromkeys((*names, *self.heard), moment)

    def hear(self, events: Iterable[Event], moment: float) -> dict[str, Event]:
        """Note who has spoken, and return who has come or gone, each with the event that says so last."""
        moved: dict[str, Event] = {}
        for event in events:
            name = event.worker
            if event.type == _GOES:
                self.heard.pop(name, None)
                moved[name] = event
                continue
            if event.type in _COMES and (name not in self.heard or event.type == "worker-online"):
                moved[name] = event
            elif name not in self.heard:  # a client that has sent a task is no worker
                continue
            self.note(name, moment)
        return moved
