"""The connection to PostgreSQL, and what its failures mean to whoever asked."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

from sqlalchemy import ColumnElement, func, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from tidemill.exception import ResourceExhaustedError, ServiceError

CONNECT_TIMEOUT = 5.0  # seconds
STATEMENT_TIMEOUT = 10.0
CHECKOUT_TIMEOUT = 5.0

# The time, as SQL: all replicas go by the database's clock.
Clock = Callable[[], ColumnElement[datetime]]

# What a database that is away, starting or overrun raises.
UNREACHABLE = (OSError, SQLAlchemyError, TimeoutError)


def refuses(error: BaseException) -> bool:
    """Return whether the database answered that a value can never be stored, whoever tries again."""
    state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    return str(state or "")[:2] in ("22", "23")  # data exceptions, violated constraints


def database_clock() -> ColumnElement[datetime]:
    """Return the database's time."""
    return func.clock_timestamp()


def new_engine(url: str, connections: int) -> AsyncEngine:
    """Return an engine with at most this many connections; it connects when first used."""
    return create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=CHECKOUT_TIMEOUT,
        pool_use_lifo=True,  # the connection that was used last has its statements prepared
        hide_parameters=True,  # what users store has no place in an error or a log
        pool_pre_ping=True,  # a restarted server costs nobody a failed request
        connect_args={
            "timeout": CONNECT_TIMEOUT,
            "command_timeout": STATEMENT_TIMEOUT,
            "server_settings": {"application_name": "tidemill-registry", "jit": "off"},
        },
    )


async def ping(engine: AsyncEngine) -> None:
    """Ask the database for nothing; `UNREACHABLE` if it does not answer."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Run one transaction; a database that cannot be used becomes an error that says so."""
    with _told_apart():
        async with engine.begin() as connection:
            yield connection


@asynccontextmanager
async def question(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Ask single questions: each is a transaction of its own, and one round trip instead of three."""
    with _told_apart():
        async with engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def _told_apart() -> Iterator[None]:
    """Tell a database that cannot be used from a statement that is wrong."""
    try:
        yield
    except PoolTimeout as error:
        raise ResourceExhaustedError("the registry has more requests than it can serve") from error
    except DBAPIError as error:
        if not error.connection_invalidated and error.orig is not None and _is_ours(error):
            raise
        raise ServiceError("the registry cannot use its database", hint="try again in a moment") from error
    except (OSError, TimeoutError) as error:
        raise ServiceError("the registry cannot reach its database", hint="try again in a moment") from error


def _is_ours(error: DBAPIError) -> bool:
    """Return whether the statement is at fault (classes 22, 23, 42: data, constraints, syntax)."""
    return str(getattr(error.orig, "sqlstate", ""))[:2] in ("22", "23", "42")
