"""`/api/v1`: apps, functions, calls and everything else over HTTP."""
