@app.function()
def sync_function(x: int):
    return x * 2

@app.function()
async def async_function(x: int):
    # Call sync function from async context
    result = await sync_function.remote.aio(x)
    return result + 1

@app.local_entrypoint()
async def main():
    result = await async_function.remote.aio(5)
    print(result)  # 11
