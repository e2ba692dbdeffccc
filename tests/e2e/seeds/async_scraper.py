import modal
import asyncio
import aiohttp

app = modal.App("async-web-scraper")

image = modal.Image.debian_slim().pip_install(
    "aiohttp",
    "beautifulsoup4"
)

@app.function(image=image)
async def fetch_and_parse(url: str):
    """Fetch a URL and extract its title."""
    from bs4 import BeautifulSoup
    
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            html = await response.text()
            soup = BeautifulSoup(html, 'html.parser')
            title = soup.find('title')
            return {
                'url': url,
                'title': title.string if title else 'No title',
                'status': response.status
            }

@app.function()
async def process_batch(urls: list[str]):
    """Process multiple URLs concurrently."""
    tasks = [fetch_and_parse.remote.aio(url) for url in urls]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    
    successful = [r for r in results if not isinstance(r, Exception)]
    failed = [r for r in results if isinstance(r, Exception)]
    
    return {
        'successful': len(successful),
        'failed': len(failed),
        'results': successful
    }

@app.local_entrypoint()
async def main():
    urls = [
        "https://example.com",
        "https://python.org",
        "https://modal.com",
    ]
    
    print("Starting async web scraping...")
    summary = await process_batch.remote.aio(urls)
    
    print(f"\nProcessed {summary['successful']} URLs successfully")
    print(f"Failed: {summary['failed']}")
    
    for result in summary['results']:
        print(f"  {result['url']}: {result['title']}")
