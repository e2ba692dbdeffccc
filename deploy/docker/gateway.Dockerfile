# The image of the gateway.
FROM python:3.13-slim

WORKDIR /opt/tidemill
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt '.[server]' && rm -rf /opt/tidemill/*

RUN useradd --system --no-create-home tidemill
USER tidemill
WORKDIR /
ENV TIDEMILL_LOG_FORMAT=json TIDEMILL_HEALTH_PORT=9000
ENV TIDEMILL_GATEWAY_HOST=0.0.0.0 TIDEMILL_GATEWAY_PORT=8080
EXPOSE 8080
CMD ["python", "-m", "tidemill_gateway"]
