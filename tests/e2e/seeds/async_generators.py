@app.function()
async def generate_numbers(n: int):
    for i in range(n):
        await asyncio.sleep(0.1)
        yield i

@app.local_entrypoint()
async def main():
    async for number in generate_numbers.remote_gen.aio(10):
        print(f"Received: {number}")
