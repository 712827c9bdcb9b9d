"""`jobrunner tracker --check`, which health checks ask."""

from tests.house import PATIENCE, House
from tests.waiting import until


def check(house: House) -> tuple[int, str]:
    ended = house.cli("tracker", "--check")
    return ended.returncode, ended.stdout + ended.stderr


def test_it_fails_while_nobody_leads(house: House) -> None:
    code, text = check(house)
    assert code == 5
    assert text.startswith(f"error: No tracker leads in {house.home / 'jobrunner.db'}.")


def test_it_names_who_leads_and_fails_when_that_one_has_gone(house: House) -> None:
    house.broker()
    tracker = house.tracker()
    assert check(house) == (0, f"{house.tracker_holder()} leads.\n")
    assert tracker.stop() == 0
    assert check(house)[0] == 5


def test_it_says_what_keeps_the_leader_from_its_work(house: House) -> None:
    broker = house.broker()
    house.tracker()
    broker.kill()
    code, text = until(lambda: (found := check(house))[0] and found, timeout=PATIENCE, what="the leader's trouble")
    assert code == 5
    assert "cannot work: " in text
