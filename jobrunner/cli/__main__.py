"""`python -m jobrunner.cli`: how `jobrunner up` starts its tracker."""

from jobrunner.cli import main

main()
