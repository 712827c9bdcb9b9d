"""The minder of a command: a process of its own that starts it, reads what it writes, and ends its whole family.

It imports the standard library and the modules of this package alone, so that it is there at once. Its standard input
is a pipe that only the process of the task's body can write to. The first line is what to run, as JSON. Another one,
`end SECONDS`, gives the command so long to end. The pipe's end is that of the body's process, whatever has killed it:
then the family is killed at once, before anybody can run the task again. What is to be told goes to standard output,
one JSON object a line.

On Linux it adopts what its children leave behind, so no process escapes by leaving the group or by outliving its
parent. Elsewhere it knows the process group alone.
"""

import os
from typing import Final

#: What Python is to run.
PROGRAM: Final = os.path.join(os.path.dirname(__file__), "__main__.py")
