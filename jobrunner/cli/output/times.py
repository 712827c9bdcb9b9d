"""Moments and durations for people."""

from datetime import UTC, datetime


def stamp(moment: datetime) -> str:
    """Write a moment in the time zone of the reader."""
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")


def ago(moment: datetime) -> str:
    """Write how long ago a moment was, by the clock of this machine."""
    return f"{duration((datetime.now(UTC) - moment).total_seconds())} ago"


def duration(seconds: float) -> str:
    """Write a duration with the two units that matter."""
    if seconds < 60:  # noqa: PLR2004  seconds in a minute
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
