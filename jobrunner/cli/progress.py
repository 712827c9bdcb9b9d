"""`jobrunner progress`: for scripts that a command task runs."""

import click

from jobrunner.commands.progress import say


@click.command(short_help="Say how far a command task is.")
@click.argument("share", type=click.FloatRange(0.0, 1.0))
@click.argument("words", nargs=-1)
def progress(share: float, words: tuple[str, ...]) -> None:
    """Say how far the command task is that runs this script: a SHARE from 0 to 1, and in a few WORDS what it is at."""
    say(share, " ".join(words))
