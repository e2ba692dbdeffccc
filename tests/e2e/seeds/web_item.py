from fastapi.responses import HTMLResponse
from pydantic import BaseModel
import modal
image = modal.Image.debian_slim().pip_install("boto3")
app = modal.App(image=image)
class Item(BaseModel):
    name: str
    qty: int = 42
@app.function()
@modal.web_endpoint(method="POST")
def f(item: Item):
    import boto3
    # do things with boto3...
    return HTMLResponse(f"<html>Hello, {item.name}!</html>")
