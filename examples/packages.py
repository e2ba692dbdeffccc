"""A function with packages of its own. `tidemill run examples/packages.py`"""

import tidemill

image = tidemill.Image.debian_slim().uv_pip_install("humanize")
app = tidemill.App("packages", image=image)

with image.imports():
    import humanize


@app.function()
def in_words(number: int) -> str:
    return humanize.intword(number)


@app.local_entrypoint()
def main(number: int = 12_400_000) -> None:
    print(in_words.remote(number))
