"""Results of a package that not every side has."""

import tidemill

app = tidemill.App("packages")
with_package = tidemill.Image.debian_slim().pip_install("semver==3.0.4")


@app.function(image=with_package)
def version():
    import semver

    return semver.Version(1, 2, 3)


@app.function(image=with_package)
def fails():
    import semver

    class Unfit(Exception):
        pass

    raise Unfit(semver.Version(1, 2, 3))


@app.function(image=with_package)
def calls_version():
    return str(version.remote())


@app.function()
def calls_version_without():
    return str(version.remote())


@app.local_entrypoint()
def main():
    print(calls_version.remote())
    for call in (version, calls_version_without, fails):
        try:
            call.remote()
        except tidemill.exception.ExecutionError as error:
            print(f"{type(error).__name__}: {error} ({error.hint})")
    print(calls_version.remote())
