@app.local_entrypoint()
def main():
    result = async_hello.remote("Bob")
    print(result)
