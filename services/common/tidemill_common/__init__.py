"""What the services share: bus, streams, settings, logging, metrics, health, the service skeleton."""

from tidemill._bus.lean import import_nats

import_nats()
