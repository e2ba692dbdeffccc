"""Images that are built at once, known by their id, named, and begun with, on a whole stack."""

from collections.abc import Iterator

import pytest
from named_image_programs import look
from running_stacks import RunningStack
from small_wheels import write_wheel
from waiting import wait_until

import tidemill
from tidemill import Client, Image
from tidemill.exception import ImageBuildError, InvalidError, NotFoundError


@pytest.fixture(scope="module")
def app(stack: RunningStack) -> Iterator[tidemill.App]:
    info = stack.info
    app = tidemill.App("named-images")
    with (
        Client.from_credentials(info.token_id, info.token_secret, server_url=info.server_url) as client,
        app.run(client=client),
    ):
        yield app


@pytest.fixture(scope="module")
def image(app: tidemill.App, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """An image with a package and a variable, built."""
    write_wheel(folder := tmp_path_factory.mktemp("wheels"), "tidemill-named", "ANSWER = 42\n")
    token = tidemill.Secret.from_dict({"TOKEN": "t"})
    image = Image.debian_slim().uv_pip_install(
        "tidemill-named", find_links=str(folder), extra_options="--no-index", secrets=[token]
    )
    return image.env({"COLOUR": "blue"}).build(app)


def test_an_image_is_built_at_once_and_tells_what_was_said(image: Image) -> None:
    assert image.object_id.startswith("im-")
    line = " + tidemill-named==1.0\n"
    wait_until(
        lambda: line in [entry.message for entry in image.logs.tail()], what="for the stream to have it"
    )


def test_images_are_begun_with_by_their_id_and_by_their_name(app: tidemill.App, image: Image) -> None:
    client = app._reach().client
    image.publish("test-base:v1", client=client)
    by_name = Image.from_name("test-base:v1", client=client).hydrate()
    assert by_name.object_id == image.object_id
    programs = tidemill.App("begun-with")
    second = tidemill.Secret.from_dict({"OTHER": "o"})
    further = Image.from_id(image.object_id).env({"COLOUR": "red"})
    function = programs.function
    same = function(image=by_name, name="same", secrets=[second])(look)
    other = function(image=further, name="other")(look)
    with programs.run(client=client):
        assert same.remote() == (42, "blue", image.object_id)
        answer, colour, image_id = other.remote()
    assert (answer, colour) == (42, "red")
    assert image_id != image.object_id


def test_an_image_that_is_not_there_is_told_when_the_app_starts(app: tidemill.App) -> None:
    client = app._reach().client
    with pytest.raises(NotFoundError, match="published as 'test-none:latest'"):
        Image.from_name("test-none", client=client).hydrate()
    programs = tidemill.App("begun-with-nothing")
    programs.function(image=Image.from_id("im-none"))(look)
    with pytest.raises(NotFoundError, match="there is no image 'im-none'"), programs.run(client=client):
        pass


def test_a_build_that_fails_is_heard_by_its_caller_and_has_no_name(
    app: tidemill.App, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = Image.debian_slim().pip_install("tidemill-none", extra_options="--no-index")
    failed = pytest.raises(ImageBuildError, match=r"layer 2, Image.pip_install\(tidemill-none\) failed")
    with tidemill.enable_output(), failed:
        wrong.build(app)
    said = "".join(capfd.readouterr())
    assert "tidemill-none was not found" in said
    with pytest.raises(InvalidError, match="only a built image"):
        wrong.publish("test-wrong")
