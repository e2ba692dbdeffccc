# Good
result = await my_function.remote.aio(arg)

# Bad - blocks event loop
result = my_function.remote(arg)
