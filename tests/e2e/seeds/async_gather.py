@app.local_entrypoint()
async def main():
    tasks = [
        async_hello.remote.aio("Alice"),
        async_hello.remote.aio("Bob"),
        async_hello.remote.aio("Charlie")
    ]
    results = await asyncio.gather(*tasks)
    print(results)
