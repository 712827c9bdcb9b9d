"""What the minder tells the body: one JSON object a line, on standard output."""

import json
import os
from typing import Any


class Teller:
    """Tells the body one JSON object a line, and waits for it at the end only: who does not listen misses news."""

    def __init__(self) -> None:
        self._untold = b""

    @property
    def is_free(self) -> bool:
        """Whether it has been told everything."""
        return not self._untold

    def tell(self, told: dict[str, Any]) -> None:
        """Tell something, as far as it listens."""
        self._untold += f"{json.dumps(told)}\n".encode()
        self.go_on()

    def go_on(self, *, waits: bool = False) -> None:
        """Go on where it did not listen."""
        os.set_blocking(1, waits)
        try:
            while self._untold:
                self._untold = self._untold[os.write(1, self._untold) :]
        except BlockingIOError:
            return
        except OSError:  # it is gone
            self._untold = b""
