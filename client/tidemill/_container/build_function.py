"""What runs while an image is built: one function, called once. Run by path with the image's own Python.

    python -s -P <lent>/runtime/tidemill/_container/build_function.py <lent>

`<lent>` holds the order (`function.json`), the folders of the function's code (`source<n>`) and, for one
that is in no file, the function itself (`serialized`).
"""

import json
import os
import sys
from base64 import b64decode


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib would be loaded for it
        return file.read()


def main(lent: str) -> None:
    """Call the function. Whatever it raises ends the build."""
    from tidemill import _runtime
    from tidemill._container import loading
    from tidemill._container.configuration import Configuration
    from tidemill._wire import payload

    order = json.loads(_read(f"{lent}/function.json"))
    sys.path[:0] = [f"{lent}/source{number}" for number in range(len(order["bundles"]))]
    serialized = _read(f"{lent}/serialized") if order["serialized"] else None
    _runtime.container = _runtime.Container("", "", "", order["qualname"], "", {})
    function = loading.load(
        Configuration("", module=order["module"], qualname=order["qualname"], serialized=serialized)
    )
    args, kwargs = payload.decode(order["format"], b64decode(order["arguments"]))
    result = function(*args, **kwargs)
    if loading.runs_on_loop(function):
        import asyncio

        asyncio.run(result)


if __name__ == "__main__":
    # pathlib would cost milliseconds here.
    _layer = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    sys.path.append(_layer)
    from tidemill._container import bootstrap

    sys.path.remove(_layer)
    bootstrap.put_layer_in_place(_layer)
    main(sys.argv[1])
