import asyncio

import modal

app = modal.App("async-example")


@app.function()
async def async_hello(name: str):
    await asyncio.sleep(1)  # Simulate async work
    return f"Hello, {name}!"


@app.local_entrypoint()
async def from_async():
    result = await async_hello.remote.aio("Alice")
    print(result)


@app.local_entrypoint()
def from_sync():
    result = async_hello.remote("Bob")
    print(result)


@app.local_entrypoint()
async def with_map():
    names = ["Alice", "Bob", "Charlie"]

    # Map returns async results
    async for result in async_hello.map.aio(names):
        print(result)


@app.local_entrypoint()
async def with_gather():
    tasks = [
        async_hello.remote.aio("Alice"),
        async_hello.remote.aio("Bob"),
        async_hello.remote.aio("Charlie"),
    ]
    results = await asyncio.gather(*tasks)
    print(results)


@app.function()
async def generate_numbers(n: int):
    for i in range(n):
        await asyncio.sleep(0.1)
        yield i


@app.local_entrypoint()
async def with_generator():
    async for number in generate_numbers.remote_gen.aio(10):
        print(f"Received: {number}")


@app.function()
def sync_function(x: int):
    return x * 2


@app.function()
async def async_function(x: int):
    # Call sync function from async context
    result = await sync_function.remote.aio(x)
    return result + 1


@app.local_entrypoint()
async def mixed():
    result = await async_function.remote.aio(5)
    print(result)  # 11


@app.local_entrypoint()
async def with_client():
    async with modal.Client.from_env() as client:
        # Use client for low-level operations
        pass
    print(type(client).__name__)
