# The image of a worker. It is root in its container: it starts the containers of functions.
FROM python:3.13-slim

WORKDIR /opt/tidemill
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt '.[server]' && rm -rf /opt/tidemill/*

WORKDIR /
ENV TIDEMILL_LOG_FORMAT=json TIDEMILL_HEALTH_PORT=9000 TIDEMILL_DATA_DIR=/srv/tidemill
VOLUME /srv/tidemill
CMD ["python", "-m", "tidemill_worker"]
