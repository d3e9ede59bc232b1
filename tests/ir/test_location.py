"""Locations: resolved when first looked at, compared by their fields."""

import pickle

from stategraph.ir import UNKNOWN, Location


def test_a_deferred_location_is_resolved_once() -> None:
    calls = []

    def resolve(source: str) -> tuple[str, int, str, str]:
        calls.append(source)
        return (source, 3, "f", "")

    place = Location.deferred("m.py", resolve)
    assert calls == []
    assert place == Location("m.py", 3, "f") and hash(place) == hash(Location("m.py", 3, "f"))
    assert (place.file, place.line, place.function, place.scope) == ("m.py", 3, "f", "")
    assert calls == ["m.py"]


def test_a_location_can_be_sent_elsewhere() -> None:
    place = Location.deferred(object(), lambda source: ("m.py", 3, "f", "s"))
    assert pickle.loads(pickle.dumps(place)) == place


def test_str_says_where() -> None:
    assert str(Location("m.py", 3, "f", "enc/rnn")) == "m.py:3 (f) in scope enc/rnn"
    assert str(UNKNOWN) == "unknown place" and not UNKNOWN.known
