"""What runs inside Celery worker processes; `jobrunner.binding` names it by path: clients need not import it."""
