import modal
import asyncio

app = modal.App("async-example")

@app.function()
async def async_hello(name: str):
    await asyncio.sleep(1)  # Simulate async work
    return f"Hello, {name}!"
