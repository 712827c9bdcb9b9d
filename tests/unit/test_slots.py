"""Calling from within a call, without going deeper."""

from workers.slots import Looping


def test_what_calls_itself_any_number_of_times_is_called_in_a_loop() -> None:
    left = 10_000

    def call() -> None:
        nonlocal left
        left -= 1
        if left:
            again()

    again = Looping(call)
    again()
    assert left == 0


def test_what_is_due_after_an_error_is_done_at_the_next_call() -> None:
    calls = []

    def call() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            again()
            raise ValueError

    again = Looping(call)
    try:
        again()
    except ValueError:
        again()
    assert calls == [0, 1, 2]
