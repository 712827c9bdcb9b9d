"""Flower for tests: started by us on a house, and asked over its own pages and API."""

import json
import sys
from http.client import HTTPConnection
from typing import Any

from tests.house import PATIENCE, House, Process
from tests.waiting import until


class Flower:
    """Flower on a free port of this machine, once it has heard the worker."""

    def __init__(self, house: House, *options: str, **settings: str) -> None:
        argv = [sys.executable, "-m", "jobrunner.cli", "flower", "--port", "0", *options]
        self.process: Process = house.start("flower", argv, FLOWER_UNAUTHENTICATED_API="true", **settings)
        self.process.says("Ctrl-C stops it.")
        words = self.process.text.split()
        self.url = words[words.index("Flower") + 1]
        self.port = int(self.url.split(":")[2].partition("/")[0])

    def page(self, path: str) -> str:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        assert answer.status == 200, f"{path}: {answer.status}\n{text}"
        return text

    def api(self, path: str) -> Any:
        return json.loads(self.page(f"/api/{path}"))

    def hears(self, worker: str) -> None:
        online = f'flower_worker_online{{worker="{worker}"}} 1.0'
        until(lambda: online in self.page("/metrics"), timeout=PATIENCE, what=f"Flower to hear {worker}")

    def tasks_of(self, job_id: str) -> dict[str, Any]:
        return {uuid: task for uuid, task in self.api("tasks").items() if task["root_id"] == job_id}
