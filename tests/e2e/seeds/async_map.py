@app.local_entrypoint()
async def main():
    names = ["Alice", "Bob", "Charlie"]
    
    # Map returns async results
    async for result in async_hello.map.aio(names):
        print(result)
