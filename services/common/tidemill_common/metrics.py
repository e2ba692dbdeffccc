"""Prometheus metrics of one process."""

from prometheus_client import CollectorRegistry, GCCollector, Info, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

Registry = CollectorRegistry

# Requests of the control plane take between a tenth of a millisecond and a few seconds.
REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def new_registry(service: str, version: str) -> Registry:
    """Return a registry that knows the process, its interpreter and what it is."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    Info("tidemill_service", "What this process is.", registry=registry).info(
        {"service": service, "version": version}
    )
    return registry


def render(registry: Registry, accept: str = "") -> tuple[str, bytes]:
    """Return the content type and the text of all metrics, in the format that `accept` prefers."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)
