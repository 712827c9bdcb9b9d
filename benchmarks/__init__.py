"""How fast we are beside others: `python -m benchmarks.NAME` runs both sides in turn and prints ratios."""
