@app.local_entrypoint()
async def main():
    result = await async_hello.remote.aio("Alice")
    print(result)
