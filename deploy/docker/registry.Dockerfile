# The image of the registry, and the one-shot migration.
FROM python:3.13-slim

WORKDIR /opt/tidemill
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt '.[server]' && rm -rf /opt/tidemill/*

RUN useradd --system --no-create-home tidemill
USER tidemill
WORKDIR /
ENV TIDEMILL_LOG_FORMAT=json TIDEMILL_HEALTH_PORT=9000
CMD ["python", "-m", "tidemill_registry"]
