from contextlib import asynccontextmanager

@app.function()
async def process_with_cleanup():
    @asynccontextmanager
    async def database_connection():
        # Setup
        conn = await connect_to_db()
        try:
            yield conn
        finally:
            # Cleanup
            await conn.close()
    
    async with database_connection() as conn:
        result = await conn.query("SELECT * FROM users")
        return result
