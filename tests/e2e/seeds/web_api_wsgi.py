from flask import Flask
flask_app = Flask(__name__)
@flask_app.route("/")
def index():
    return {"status": "ok"}
@app.function(image=image)
@modal.wsgi_app()
def flask_server():
    return flask_app
