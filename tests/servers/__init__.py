"""Real servers for tests: each private, on a unix socket or a loopback port, in a folder of its own, and restartable.

Nothing is installed here, and no server that the machine runs is used.
"""
