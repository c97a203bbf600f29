from threading import Event

import pytest

from kikitori.data.prefetch import prefetch


def test_results_come_in_order():
    assert [*prefetch(range(3), lambda number: 2 * number)] == [(0, 0), (1, 2), (2, 4)]
    assert [*prefetch([], lambda number: number)] == []


def test_the_next_one_is_read_meanwhile():
    begun = {name: Event() for name in "abc"}

    def read(name: str) -> str:
        begun[name].set()
        return name

    found = prefetch("abc", read)
    assert next(found) == ("a", "a")
    assert begun["b"].wait(10)
    assert not begun["c"].is_set()
    assert [*found] == [("b", "b"), ("c", "c")]


def test_an_error_comes_in_its_place():
    found = prefetch([2, 1, 0, 4], lambda number: 4 // number)
    assert [next(found), next(found)] == [(2, 2), (1, 4)]
    with pytest.raises(ZeroDivisionError):
        next(found)
