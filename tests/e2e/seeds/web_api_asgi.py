from fastapi import FastAPI
web_app = FastAPI()
@web_app.get("/")
async def root():
    return {"status": "ok"}
@web_app.post("/predict")
async def predict(request: dict):
    return {"result": model.run(request["input"])}
@app.function(image=image, gpu="L40S")
@modal.asgi_app()
def fastapi_app():
    return web_app
