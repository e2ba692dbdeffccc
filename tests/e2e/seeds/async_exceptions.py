results = await asyncio.gather(
    *tasks,
    return_exceptions=True  # Don't fail on first exception
)

for result in results:
    if isinstance(result, Exception):
        print(f"Task failed: {result}")
