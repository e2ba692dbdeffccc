import copy
import dataclasses
import pickle
from dataclasses import field

import msgspec
import pytest

from tidemill._dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """Has every kind of field."""

    x: int
    y: int = 2
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.x + self.y


@dataclass(frozen=True, slots=True)
class Empty:
    """Has none."""


def test_fields_are_given_by_position_and_name() -> None:
    assert Point(1, y=5).total == 6
    assert Point(1) == Point(1, 2, {})
    assert Point(1) != Point(2)
    assert Point(1) != (1, 2, {})
    assert repr(Point(1)) == "Point(x=1, y=2, tags={})"
    assert hash(Empty()) == hash(Empty())


def test_defaults_that_are_made_are_nobody_elses() -> None:
    assert Point(1).tags is not Point(1).tags


def test_what_is_missing_or_too_much_is_an_ordinary_error() -> None:
    with pytest.raises(TypeError, match=r"Point.__init__\(\) missing 1 required positional argument: 'x'"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        Point(1, z=3)  # type: ignore[call-arg]


def test_it_is_frozen_and_has_slots() -> None:
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        del point.x
    assert not hasattr(point, "__dict__")


def test_it_is_a_dataclass_to_the_standard_library() -> None:
    point = Point(1, tags={"a": "b"})
    assert dataclasses.is_dataclass(Point)
    assert [each.name for each in dataclasses.fields(Point)] == ["x", "y", "tags"]
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "tags": {"a": "b"}}
    assert dataclasses.replace(point, x=3) == Point(3, 2, {"a": "b"})
    assert pickle.loads(pickle.dumps(point)) == copy.deepcopy(point) == point
    match point:
        case Point(x, _, tags):
            assert (x, tags) == (1, {"a": "b"})


def test_what_another_version_pickled_has_fewer_fields_or_more() -> None:
    older, newer = Point.__new__(Point), Point.__new__(Point)
    older.__setstate__((1,))  # type: ignore[attr-defined]
    newer.__setstate__((1, 2, {}, "new"))  # type: ignore[attr-defined]
    assert older == newer == Point(1)


def test_it_is_a_dataclass_to_msgspec() -> None:
    point = Point(1, tags={"a": "b"})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(point), type=Point) == point
    assert msgspec.msgpack.decode(msgspec.msgpack.encode({"x": 1}), type=Point) == Point(1)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"x": "1"}), type=Point)


def test_declaring_one_compiles_nothing() -> None:
    @dataclass(frozen=True, slots=True)
    class First:
        """Is used."""

        x: int

    @dataclass(frozen=True, slots=True)
    class Second:
        """Is not."""

        x: int

    assert First.__init__ is Second.__init__
    assert First(1).x == 1
    assert First.__init__ is not Second.__init__
    assert First.__eq__ is Second.__eq__
