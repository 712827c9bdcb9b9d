"""The tracker: the one process that moves jobs and tasks from state to state, from events and orders."""
