from modal import Client

@app.local_entrypoint()
async def main():
    async with Client.from_env() as client:
        # Use client for low-level operations
        pass
