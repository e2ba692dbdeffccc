"""Variants: a function or class with options or parameters of a caller's, which has containers of its own.

    base ── options, parameters ──> asked for at the first call ──> a pool of its own, remembered here

A call takes what is remembered, without a question. It is asked again when the base is another one, because
its app was deployed anew, and once an hour: the server forgets variants that nobody asks for.
"""

import dataclasses
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tidemill import _options, _parameters
from tidemill._wire import coding
from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import Parameter
from tidemill._wire.variants import Changes, GetVariant
from tidemill.exception import InvalidError, NotFoundError
from tidemill.functions import Function

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill.secret import Secret

ASK_AGAIN = 3_600.0  # seconds
REMEMBERED = 1_000  # variants of one base

UNCHANGED = Changes()
AnyFunction = Function[..., Any, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """What a caller gives: options, secrets that are still to be stored, and parameters."""

    changes: Changes = UNCHANGED
    secrets: "tuple[Secret, ...]" = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def with_options(self, given: Mapping[str, Any]) -> "Given":
        """Return this with further options, as `with_options` takes them."""
        changes, secrets = _options.changes(given)
        return dataclasses.replace(self.with_changes(changes), secrets=secrets or self.secrets)

    def with_changes(self, changes: Changes) -> "Given":
        """Return this with further changes."""
        return dataclasses.replace(self, changes=self.changes.then(changes))

    def with_parameters(self, parameters: Mapping[str, Any]) -> "Given":
        """Return this with the parameters of an object."""
        return dataclasses.replace(self, parameters=parameters)

    def key(self) -> Hashable:
        """Return what tells variants of one base apart; None for the base itself."""
        if self == Given():
            return None
        parameters = sorted(self.parameters.items())
        return coding.encode((self.changes, parameters)), self.secrets


@dataclass(frozen=True, slots=True)
class Found:
    """A variant's handle, of which base, and until when it is taken without asking."""

    base: FunctionHandle
    handle: FunctionHandle
    until: float


class Variant:
    """One variant of a function or class, or the base itself where nothing is given."""

    def __init__(self, base: AnyFunction, given: Given, *, of_class: bool = False) -> None:
        self.base = base
        self.given = given
        self.of_class = of_class
        self._key = given.key()
        self._complete: FunctionHandle | None = None  # the base that needs no parameters to be used

    def present(self) -> FunctionHandle | None:
        """Return its handle if it is at hand."""
        base = self.base._present_handle()
        if base is None or not self._fits(base):
            return None
        if self._key is None:
            return self._itself(base)
        found = self.base._variants.get(self._key)
        if found is None or found.base is not base or found.until < time.monotonic():
            return None
        return found.handle

    async def find(self, client: "Client", *, refresh: bool) -> FunctionHandle:
        """Return its handle, asking the server if need be."""
        base = await self.base._find(client, refresh=refresh)
        if not refresh and not self._fits(base):  # the name may have been given to another kind since
            base = await self.base._find(client, refresh=True)
        if not self._fits(base):
            raise _other_kind(base)
        if self._key is None:
            return self._itself(base)
        if not refresh and (present := self.present()) is not None:
            return present
        handle = await self._ask(client, base)
        variants = self.base._variants
        while len(variants) >= REMEMBERED:
            del variants[next(iter(variants))]
        variants[self._key] = Found(base, handle, time.monotonic() + ASK_AGAIN)
        return handle

    def _fits(self, base: FunctionHandle) -> bool:
        """Return whether it is of the kind that this is a variant of: of a class, or of a function."""
        return (base.methods is not None) == self.of_class

    def _itself(self, base: FunctionHandle) -> FunctionHandle:
        if base is not self._complete:
            _parameters.values(base.name, _declared(base), {})
            self._complete = base
        return base

    async def _ask(self, client: "Client", base: FunctionHandle) -> FunctionHandle:
        parameters = _parameters.values(base.name, _declared(base), self.given.parameters)
        changes = self.given.changes
        if self.given.secrets:
            changes = dataclasses.replace(changes, secrets=await self._stored(client))
        if not parameters and changes == UNCHANGED:
            return base
        message = GetVariant(base.pool, parameters, changes)
        return await client.request("registry", "get_variant", message, FunctionHandle)

    async def _stored(self, client: "Client") -> tuple[str, ...]:
        from tidemill.secret import resolve

        lookup = self.base._lookup
        where = lookup.environment if lookup is not None else None
        infos = [await resolve(secret, client, where) for secret in self.given.secrets]
        return tuple(dict.fromkeys(info.secret_id for info in infos))


def _other_kind(base: FunctionHandle) -> InvalidError:
    if base.methods is None:
        return InvalidError(f"{base.name} is a function, not a class", hint="use Function.from_name instead")
    return InvalidError(f"{base.name} is a class, not a function", hint="use Cls.from_name instead")


def _declared(base: FunctionHandle) -> list[Parameter]:
    return [Parameter(*each) for each in base.parameters]


class Bound(Function[..., Any, Any]):
    """A variant of a function, or a method of a variant of a class."""

    def __init__(
        self,
        variant: Variant,
        method: str = "",
        *,
        raw: Callable[..., Any] | None = None,
        is_generator: bool | None = None,
        local: Callable[..., Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Make it; `local` is what calls it in this process, by default `raw` as it is.

        `parameters` are those of its object, where they are not what the variant is made by.
        """
        self._of = variant
        self._method = method
        self._local = local
        self._taken: FunctionHandle | None = None
        self._parameters = variant.given.parameters if parameters is None else parameters
        name = f"{variant.base._name}.{method}" if method else variant.base._name
        super().__init__(raw, name=name, app=variant.base._app, is_generator=is_generator)

    @property
    def _client(self) -> "Client | None":
        return self._of.base._client

    @_client.setter
    def _client(self, client: "Client | None") -> None:
        if client is not None:
            self._of.base._client = client

    def _variant(self, change: Callable[[Given], Given]) -> "Bound":
        variant = Variant(self._of.base, change(self._of.given), of_class=self._of.of_class)
        return Bound(variant, self._method, raw=self._raw, is_generator=self._is_generator, local=self._local)

    def local(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it in this process."""
        return (self._local or self.get_raw_f())(*args, **kwargs)

    @property
    def _can_be_found(self) -> bool:
        base = self._of.base
        return base._can_be_found or base._present_handle() is not None

    def _check_reachable(self) -> None:
        if self._of.base._present_handle() is None:
            self._of.base._check_reachable()

    def _present_handle(self) -> FunctionHandle | None:
        handle = self._of.present()
        if handle is not self._taken or handle is None:
            self._take(handle)
        return self._handle

    def _take(self, handle: FunctionHandle | None) -> None:
        self._taken = handle
        if handle is None or not self._method:
            self._handle = handle
            return
        try:
            self._handle = handle.of_method(self._method)
        except KeyError:
            raise NotFoundError(
                f"the class {handle.name} has no method {self._method!r}",
                hint=f"it has {', '.join(handle.methods)}" if handle.methods else "",
            ) from None

    def _web_query(self) -> str:
        return _parameters.query(self._parameters)

    async def _find(self, client: "Client", *, refresh: bool = False) -> FunctionHandle:
        self._take(await self._of.find(client, refresh=refresh))
        assert self._handle is not None
        return self._handle

    def __reduce__(self) -> tuple[Any, ...]:
        of = self._of
        return _arrive, (
            of.base,
            of.given,
            of.of_class,
            self._method,
            self._is_generator,
            dict(self._parameters),
        )


def _arrive(
    base: AnyFunction,
    given: Given,
    of_class: bool,
    method: str,
    is_generator: bool | None,
    parameters: Mapping[str, Any],
) -> Bound:
    """Rebuild a variant that travelled."""
    variant = Variant(base, given, of_class=of_class)
    return Bound(variant, method, is_generator=is_generator, parameters=parameters)
