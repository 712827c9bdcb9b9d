"""How the body of a task starts a minder: `python -I -S` and the path of this file.

Isolated, so that nothing of the user's is imported; and without site packages, so that it is there at once.
"""

import json
import os
import signal
import sys
from typing import Final

sys.path.append(os.path.join(os.path.dirname(__file__), "..", ".."))  # an isolated Python does not look there

from workers.minder.loop import Minder
from workers.minder.teller import Teller

_CHUNK: Final = 65_536


def main() -> None:
    """Read what to run, and run it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)  # not ignored: then the command would ignore it as well
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    told = b""
    while b"\n" not in told:
        if not (more := os.read(0, _CHUNK)):
            return  # the body was ended before it had said what to run
        told += more
    specification, _, control = told.partition(b"\n")
    teller = Teller()
    try:
        minder = Minder(json.loads(specification), control, teller)
    except OSError as error:
        teller.tell({"errno": error.errno, "problem": error.strerror})
        teller.go_on(waits=True)
        return
    minder.run()


if __name__ == "__main__":
    main()
