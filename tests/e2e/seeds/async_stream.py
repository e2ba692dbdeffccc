@app.function()
async def stream_data():
    for item in large_dataset:
        await asyncio.sleep(0)  # Yield control
        yield process(item)
