"""What every event log keeps to, on whichever broker: what is written is read in order, once, and survives its readers.

A test writes and reads as workers and trackers do: through `jobrunner.event_log` and `tracker.eventlog`.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from celery import Celery

from jobrunner.event_log import EventLogWriter, WrittenBatch, open_writer
from jobrunner.wire import EVENT_LOG, VERSION
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis import Redis
from tests.servers.server import Server
from tests.waiting import PATIENCE, until
from tracker.eventlog import Batch, EventLog, open_log
from tracker.eventlog.entries import Numbered
from tracker.outbox import BROKER_ERRORS
from tracker.rejects import Reason

#: More than any read returns, and no multiple of that.
MANY = 160


class Log:
    """A log on a broker, with the position that a tracker would keep in its database."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.app = Celery("log", broker=url, set_as_current=False)
        self.position: str | None = None
        self._stack = ExitStack()
        self.reader = self.new_reader()
        self.writer = self.new_writer()

    def new_reader(self) -> EventLog:
        """Return one more reader."""
        reader = open_log(self.app)
        self._stack.callback(reader.close)
        return reader

    def new_writer(self) -> EventLogWriter:
        """Return one more writer."""
        connection = self.app.connection_for_write()
        self._stack.callback(connection.release)
        connection.ensure_connection(max_retries=3)
        return open_writer(connection)

    def write(self, *numbers: int) -> None:
        """Append one batch for each number."""
        for number in numbers:
            self.writer.append(batch(number))

    def read(self) -> Batch:
        """Wait for a batch; what it holds is not committed yet."""
        return until(lambda: self.reader.read(self.position, 0.1), timeout=PATIENCE, what="a batch")

    def commit(self, found: Batch) -> list[int]:
        """Note the position of a batch, have it trimmed, and return its numbers."""
        self.position = found.position
        self.reader.trim(found.position)
        return numbers(found)

    def read_all(self) -> list[int]:
        """Read and commit until nothing is left."""
        found: list[int] = []
        while (got := self.reader.read(self.position, 0.1)) is not None:
            found += self.commit(got)
        return found

    def close(self) -> None:
        self._stack.close()
        self.app.close()


def batch(number: int) -> WrittenBatch:
    return WrittenBatch(v=VERSION, source="process-1", worker="w1@host", events=f'[{{"number": {number}}}]')


def numbers(found: Batch) -> list[int]:
    return [event["number"] for entry in found.entries for event in entry.events]


@pytest.fixture(params=["redis", "rabbitmq"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    if request.param == "redis":
        server: Server = Redis(tmp_path).start()
        made = Log(server, server.url)
        yield made
        made.close()
        server.close()
    else:
        rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
        url = rabbitmq.new_vhost()
        made = Log(rabbitmq, url)
        yield made
        made.close()
        rabbitmq.delete_vhost(url)


def test_an_empty_log_has_nothing_to_read(log: Log) -> None:
    assert log.reader.read(None, 0.01) is None


def test_a_batch_is_read_as_it_was_written(log: Log) -> None:
    log.write(7)
    found = log.read()
    (entry,) = found.entries
    assert (entry.source, entry.worker, entry.events) == ("process-1", "w1@host", [{"number": 7}])
    assert found.drained


def test_a_batch_says_its_number_and_what_was_dropped_before_it(log: Log) -> None:
    log.writer.append({**batch(7), "series": "series-1", "number": 12, "dropped": 3})
    (entry,) = log.read().entries
    assert entry.numbered == Numbered(series="series-1", number=12, dropped=3)


def test_a_batch_without_a_number_is_read_too(log: Log) -> None:
    """Workers from before batches had numbers write them, and others than workers."""
    log.write(7)
    (entry,) = log.read().entries
    assert (entry.numbered, entry.events) == (None, [{"number": 7}])


def test_what_is_committed_makes_room_also_when_nothing_comes_behind_it(log: Log) -> None:
    log.write(*range(10))
    log.commit(log.read())

    def has_room() -> bool:
        assert log.reader.read(log.position, 0.05) is None
        return log.writer.length() <= 1  # on Redis the last one stays

    until(has_room, timeout=PATIENCE, what="the log to be empty")


@pytest.mark.parametrize(("name", "odd"), [("number", 0), ("number", "x"), ("dropped", -1), ("number", 2**40)])
def test_odd_numbers_are_none_and_cost_nothing_else(log: Log, name: str, odd: object) -> None:
    numbers = {"series": "series-1", "number": 1, "dropped": 0, name: odd}
    log.writer.append({**batch(7), **numbers})  # type: ignore[typeddict-item]
    (entry,) = log.read().entries
    assert (entry.numbered, entry.events) == (None, [{"number": 7}])


def test_a_writer_learns_how_long_the_log_is(log: Log) -> None:
    other = log.new_writer()
    assert [log.writer.append(batch(number)) for number in range(3)] == [1, 2, 3]
    assert (other.length(), other.append(batch(3))) == (3, 4)
    until(lambda: log.writer.append(batch(4)) > 5, timeout=PATIENCE, what="the writer to learn what another has added")


def test_a_reader_that_may_not_wait_finds_what_is_there(log: Log) -> None:
    assert log.reader.read(None, 0.01) is None  # from now on it follows
    log.write(7)
    found = until(lambda: log.reader.read(None, 0), timeout=PATIENCE, what="a batch without waiting")
    assert numbers(found) == [7]


def test_batches_are_read_in_the_order_in_which_they_were_written(log: Log) -> None:
    log.write(*range(MANY))
    found = log.read()
    assert not found.drained
    first = log.commit(found)
    assert first + log.read_all() == list(range(MANY))


def test_what_comes_while_a_reader_waits_is_read_too(log: Log) -> None:
    assert log.reader.read(None, 0.01) is None
    for number in range(3):
        log.write(number)
        assert log.commit(log.read()) == [number]


def test_the_last_batch_says_that_the_log_is_drained(log: Log) -> None:
    log.write(*range(MANY))
    drained = []
    while (found := log.reader.read(log.position, 0.1)) is not None:
        log.commit(found)
        drained.append(found.drained)
    assert drained == [False] * (len(drained) - 1) + [True]


def test_a_log_of_which_a_part_waits_in_the_readers_memory_is_not_drained(log: Log) -> None:
    """Recovery would decide without having heard what workers have said."""
    assert log.reader.read(None, 0.01) is None  # RabbitMQ pushes from now on
    log.write(*range(100))
    found = log.commit(first := log.read())
    while len(found) < 100:
        assert not first.drained
        found += log.commit(first := log.read())
    assert found == list(range(100))


def test_what_was_read_and_not_committed_is_read_again(log: Log) -> None:
    log.write(1, 2)
    assert numbers(log.read()) == [1, 2]
    log.reader.close()
    assert numbers(log.read()) == [1, 2]


def test_what_was_on_its_way_when_a_reader_closed_is_read_once(log: Log) -> None:
    assert log.reader.read(None, 0.01) is None
    log.write(1)
    assert numbers(log.read()) == [1]
    log.write(2, 3)
    log.reader.close()
    assert log.read_all() == [1, 2, 3]


def test_a_reader_whose_commit_failed_reads_again_without_being_closed(log: Log) -> None:
    log.write(1)
    log.commit(log.read())
    log.write(2)
    assert numbers(log.read()) == [2]
    assert numbers(log.read()) == [2]


def test_what_was_committed_is_not_read_again_even_if_it_was_not_trimmed(log: Log) -> None:
    log.write(*range(10))
    log.position = log.read().position  # killed between commit and acknowledgement
    log.reader.close()
    log.write(10)
    assert log.read_all() == [10]


@pytest.mark.parametrize("committed", [0, 49, 51])
def test_another_reader_goes_on_behind_the_position_of_the_first(log: Log, committed: int) -> None:
    """The first dies with batches read, some of them committed, and none of the last one's acknowledged."""
    log.write(*range(committed))
    first = log.read_all()
    log.write(*range(committed, MANY + 10))
    found = log.read()
    log.position = found.position
    second = numbers(found)
    log.reader.read(log.position, 0.01)
    log.reader.close()
    log.reader = log.new_reader()
    assert first + second + log.read_all() == list(range(MANY + 10))


def test_an_unknown_position_loses_nothing(log: Log) -> None:
    log.write(1, 2)
    log.position = "0-0" if isinstance(log.server, Redis) else "of a message that is long gone"
    assert log.read_all() == [1, 2]


def test_what_was_trimmed_is_gone_from_the_broker(log: Log) -> None:
    log.write(*range(10))
    log.read_all()
    log.reader.close()
    log.position = None
    log.write(10)
    assert log.read_all()[-1] == 10
    with log.app.connection_for_read() as connection:
        if isinstance(log.server, Redis):  # which trims by whole nodes, of 100 entries or so
            assert connection.default_channel.client.xlen(EVENT_LOG) <= 200
        else:
            assert connection.default_channel.queue_declare(EVENT_LOG, passive=True).message_count == 0


def test_log_and_position_survive_a_kill_of_the_broker(log: Log) -> None:
    log.write(*range(20))
    log.commit(log.read())
    log.write(*range(20, 30))
    log.position = log.read().position
    log.server.kill()
    log.reader.close()
    log.server.start()
    log.writer = log.new_writer()
    log.write(30)
    assert log.read_all() == [30]


def test_a_wake_up_ends_a_readers_wait_and_says_nothing(log: Log) -> None:
    assert log.reader.read(None, 0.01) is None
    log.writer.wake()
    found = log.read()
    assert numbers(found) == []
    log.write(1)
    log.commit(found)
    assert log.read_all() == [1]


def test_wake_ups_that_nobody_hears_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On RabbitMQ they expire."""
    monkeypatch.setattr("jobrunner.event_log._AWAKE", 3)
    server = Redis(tmp_path).start()
    log = Log(server, server.url)
    for _ in range(10):
        log.writer.wake()
    assert log.writer.length() == 3
    log.close()
    server.close()


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({"v": "one"}, [Reason.NO_VERSION]),
        ({"v": VERSION + 1}, [Reason.NEWER]),
        ({"events": ""}, [Reason.NO_LIST]),
        ({"events": "no json"}, [Reason.NO_LIST]),
        ({"events": '{"no": "list"}'}, [Reason.NO_LIST]),
        ({"events": "[" * 100_000}, [Reason.NOT_JSON]),
        ({"events": '[{"cut": '}, [Reason.NOT_JSON]),
        ({"events": "[] and more"}, [Reason.NOT_JSON]),
    ],
    ids=["version", "newer", "nothing", "text", "no list", "nesting", "cut", "more"],
)
def test_what_is_malformed_or_newer_is_told_with_its_text_and_the_rest_is_read(
    log: Log, fields: dict[str, str], reasons: list[Reason]
) -> None:
    odd = {**batch(2), **fields}
    log.write(1)
    log.writer.append(odd)  # type: ignore[typeddict-item]
    log.write(3)
    found = log.read()
    assert log.commit(found) == [1, 3]
    malformed = [one for entry in found.entries for one in entry.malformed]
    assert [reason for reason, _ in malformed] == reasons
    assert all(text.decode() in str(odd["events"]) for _, text in malformed)


def test_one_event_that_no_parser_takes_costs_none_of_its_neighbours(log: Log) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    texts = ['{"number": 1}', deep, '{"number": 2, "text": "a, [b] \\" {"}', "1" * 5_000, "nul", '{"number": 3}']
    log.writer.append({**batch(0), "events": f"[{', '.join(texts)}]"})
    found = log.read()
    assert log.commit(found) == [1, 2, 3]
    assert [text.decode().strip() for _, text in found.entries[0].malformed] == [deep, "1" * 5_000, "nul"]


def test_what_somebody_else_wrote_is_told(log: Log) -> None:
    with log.app.connection_for_write() as connection:
        if isinstance(log.server, Redis):
            connection.default_channel.client.xadd(EVENT_LOG, {"hello": "world", "\xff": b"\xff"})
        else:
            connection.default_channel.queue_declare(EVENT_LOG, durable=True, auto_delete=False)
            message = connection.default_channel.prepare_message(b"hello \xff", headers={"v": [1]})
            connection.default_channel.basic_publish(message, routing_key=EVENT_LOG)
    log.write(1)
    found: list[Batch] = []
    until(lambda: found.append(log.read()) or log.commit(found[-1]) == [1], timeout=PATIENCE, what="the last batch")
    ((reason, text),) = [one for got in found for entry in got.entries for one in entry.malformed]
    assert reason is Reason.NO_VERSION
    assert b"hello" in text


def test_names_are_cut_to_what_columns_hold(log: Log) -> None:
    log.writer.append({**batch(1), "source": "s" * 300, "worker": "w" * 300})
    (entry,) = log.read().entries
    assert (len(entry.source or ""), len(entry.worker or "")) == (36, 255)


def test_readers_and_writers_of_a_broker_that_is_away_raise_errors_that_the_tracker_knows(log: Log) -> None:
    log.server.kill()
    log.reader.close()
    with pytest.raises(BROKER_ERRORS):
        log.reader.read(log.position, 0.01)
    with pytest.raises(BROKER_ERRORS):
        log.write(1)


def test_on_rabbitmq_a_second_reader_waits_for_the_first_one_to_be_gone(rabbitmq: RabbitMQ) -> None:
    """Messages lie in the hands of a tracker that is frozen, and these come before all others."""
    url = rabbitmq.new_vhost()
    log = Log(rabbitmq, url)
    log.write(1)
    assert numbers(log.read()) == [1]
    second = log.new_reader()
    with pytest.raises(ConnectionError, match="another tracker"):
        second.read(None, 0.01)
    log.reader.close()
    log.reader = second
    assert log.read_all() == [1]
    log.close()
    rabbitmq.delete_vhost(url)
