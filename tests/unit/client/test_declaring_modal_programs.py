"""Programs written for Modal declare what they have under `import modal`, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = {
    "async functions": """
import asyncio
app = modal.App("async-example")

@app.function()
async def async_hello(name: str):
    await asyncio.sleep(1)
    return f"Hello, {name}!"

@app.function()
async def generate_numbers(n: int):
    for i in range(n):
        await asyncio.sleep(0.1)
        yield i

@app.function()
def sync_function(x: int):
    return x * 2

@app.local_entrypoint()
async def main():
    result = await async_hello.remote.aio("Alice")
    async for number in generate_numbers.remote_gen.aio(10):
        print(f"Received: {number}")

assert generate_numbers.is_generator and not async_hello.is_generator
assert sync_function.local(2) == 4
""",
    "packages": """
app = modal.App("async-web-scraper")
image = modal.Image.debian_slim().pip_install("aiohttp", "beautifulsoup4")

@app.function(image=image)
async def fetch_url(url: str):
    import aiohttp

@app.function()
async def process_batch(urls: list[str]):
    return [fetch_url.remote.aio(url) for url in urls]
""",
    "client": """
from modal import Client
app = modal.App()

@app.local_entrypoint()
async def main():
    async with Client.from_env() as client:
        pass
""",
    "secret and schedule": """
app = modal.App()

@app.function(
    secrets=[modal.Secret.from_name("some_secret")],
    schedule=modal.Period(days=1),
)
def foo():
    pass
""",
    "defaults": """
image = modal.Image.debian_slim().pip_install("numpy")
secret = modal.Secret.from_name("my-secret")
volume = modal.Volume.from_name("my-data")
app = modal.App(image=image, secrets=[secret], volumes={"/mnt/data": volume})
""",
    "running guarded": """
app = modal.App("guarded")

@app.function()
def some_modal_function():
    pass

if __name__ == "never":
    with modal.enable_output():
        with app.run():
            some_modal_function.remote()
""",
    "entrypoints": """
app = modal.App("entrypoints")

@app.local_entrypoint()
def main(foo: int, bar: str):
    print(foo, bar)

@app.local_entrypoint()
def some_other_function():
    pass

assert sorted(app.registered_entrypoints) == ["main", "some_other_function"]
""",
    "including": """
app_a = modal.App("a")
@app_a.function()
def foo():
    ...

app_b = modal.App("b")
@app_b.function()
def bar():
    ...

app_a.include(app_b)

@app_a.local_entrypoint()
def main():
    bar.remote()

assert sorted(app_a.registered_functions) == ["bar", "foo"]
""",
    "every parameter": """
app = modal.App("all", tags={"team": "tide"})

@app.function(
    image=modal.Image.debian_slim(), schedule=modal.Cron("0 6 * * *", timezone="Europe/Berlin"),
    env={"A": "1", "B": None}, secrets=[modal.Secret.from_dict({"C": "2"})], gpu=["H100:2", "any"],
    serialized=False, network_file_systems={}, volumes={"/data": modal.Volume.from_name("v")},
    cpu=(0.5, 1.0), memory=(256, 512), ephemeral_disk=1024, min_containers=1, max_containers=3,
    buffer_containers=1, scaledown_window=60, proxy=None, retries=modal.Retries(max_retries=3), timeout=600,
    startup_timeout=60, name="named", is_generator=False, cloud="aws", region=["us-east", "eu-west"],
    routing_region="us-east", nonpreemptible=True, enable_memory_snapshot=True, block_network=True,
    restrict_modal_access=True, single_use_containers=True, i6pn=True, include_source=True,
    experimental_options={"x": 1}, _experimental_restrict_output=True, max_inputs=None,
)
def f():
    pass

assert list(app.registered_functions) == ["named"]
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_declares_what_it_has(name: str, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(f"import modal\n{PROGRAMS[name]}")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tidemill", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TIDEMILL_ALIAS_MODAL": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
