"""What most containers do at their start, done once in the template, so that less is left for them.

Importing this module does it. The interpreter rewrites code as it runs it for the first times, and fills
caches in what it touches: in a container each page that is written to is a page of its own, and time.
"""

TIMES = 16  # until the interpreter has made up its mind about a piece of code


def _declare() -> None:
    """Declare an app as users do."""
    import tidemill
    from tidemill import App, Image

    for number in range(TIMES):
        app = App(f"rehearsal{number}", image=Image.debian_slim())

        @app.function(serialized=True, timeout=60)
        def function(x: object = None) -> object:
            return x

        @app.cls(serialized=True)
        class _Class:
            @tidemill.enter()
            def enter(self) -> None: ...

            @tidemill.method()
            def method(self, x: object) -> object:
                return x

            @tidemill.exit()
            def exit(self) -> None: ...


def _encode() -> None:
    """Pass values to and fro."""
    from tidemill._wire import payload

    for _ in range(TIMES):
        form, data = payload.encode_call((1, "text", [2.0], {"key": None}), {"more": True})
        payload.decode(form, data)
        payload.decode(*payload.encode({"answer": (1, 2)}))


_declare()
_encode()
