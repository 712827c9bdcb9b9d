# jobrunner for every service of docker-compose.yml. For code of your own, start from it:
#
#     FROM jobrunner:local
#     COPY mytasks.py .
#     ENV JOBRUNNER_APP=mytasks
FROM python:3.13-slim

WORKDIR /app
RUN useradd --uid 10001 --create-home jobrunner

COPY pyproject.toml README.md LICENSE ./
COPY jobrunner jobrunner
COPY tracker tracker
COPY workers workers
RUN pip install --no-cache-dir ".[postgresql,flower]" && rm -r jobrunner tracker workers
COPY examples examples

USER jobrunner
ENTRYPOINT ["jobrunner"]
