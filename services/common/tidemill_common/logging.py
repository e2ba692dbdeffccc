"""Structured logs: one JSON object per line on stdout, or coloured lines on a terminal.

Records of libraries that use the standard `logging` take the same way, so that every line of a process
can be read by the same reader.
"""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from tidemill_common.settings import ServiceSettings

Logger = FilteringBoundLogger


def configure(service: str, version: str, settings: ServiceSettings) -> Logger:
    """Set up logging for this process and return the service's logger."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stdout.isatty())
    level = getattr(logging, settings.log_level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, *([_console()] if console else _json())],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    _route_standard_logging(level, shared, console)
    identity = {} if console else {"service": service, "version": version}
    return structlog.get_logger(**identity)  # type: ignore[no-any-return]


def _json() -> list[Any]:
    return [structlog.processors.EventRenamer("msg"), structlog.processors.JSONRenderer()]


def _console() -> Any:
    return structlog.dev.ConsoleRenderer(
        timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
    )


def _route_standard_logging(level: int, shared: list[Any], console: bool) -> None:
    """Give records of the standard `logging` the same fields and the same shape."""
    render = [_console()] if console else _json()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
