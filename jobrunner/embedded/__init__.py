"""What one machine needs when it has no services: a private broker, and child processes that are never left behind.

`broker` finds and addresses the private Valkey or Redis, `supervisor` keeps the child processes of `jobrunner up`,
`demo` and `worker`, and `guardian` ends them when their supervisor was killed. Nothing here knows about jobs.
"""
