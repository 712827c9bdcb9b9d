"""Houses of pytest-celery: brokers, result backend and workers are its nodes, trackers and database are ours.

By default every node is a process on this machine. With `--nodes=docker` those of pytest-celery are its own containers,
which needs Docker; what needs a tracker is skipped there, because a container does not have this package.
"""
