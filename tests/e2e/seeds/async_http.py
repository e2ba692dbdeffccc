import aiohttp

image = modal.Image.debian_slim().pip_install("aiohttp")

@app.function(image=image)
async def fetch_url(url: str):
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            return await response.text()

@app.local_entrypoint()
async def main():
    urls = [
        "https://api.example.com/1",
        "https://api.example.com/2",
        "https://api.example.com/3",
    ]
    
    tasks = [fetch_url.remote.aio(url) for url in urls]
    results = await asyncio.gather(*tasks)
    print(f"Fetched {len(results)} pages")
