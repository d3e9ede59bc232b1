"""The table of contents."""

from stategraph import ir


def test_every_listed_name_exists_once() -> None:
    assert len(set(ir.__all__)) == len(ir.__all__)
    assert all(hasattr(ir, name) for name in ir.__all__)
