"""What runs inside Celery worker processes: named by path in `jobrunner.app`, so that clients need not import it."""
