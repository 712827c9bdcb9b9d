"""The demo's real work: statistics of Python source, one task per file, joined into a report."""
