"""The core's memory keeps what a dictionary would keep."""

from __future__ import annotations

import random

import pytest
from streamseg_engine import States

KEYS = [b"", *(f"kunde-\N{SNOWMAN}-{number}".encode() for number in range(40)), b"k" * 65_535]


@pytest.mark.parametrize("seed", range(5))
def test_customers_who_come_go_and_come_back_have_the_state_that_was_put_last(seed: int) -> None:
    dice, states, known = random.Random(seed), States(), dict[bytes, bytes]()
    for _ in range(400):
        given = {dice.choice(KEYS): dice.randbytes(dice.choice([1, 5, 5, 300])) for _ in range(dice.randrange(6))}
        gone = dice.choice(KEYS)
        states.put(given)
        states.delete(gone)
        known.update(given)
        known.pop(gone, None)
        assert (len(states), dict(states.items()), set(states)) == (len(known), known, set(known))
        assert {key: states.get(key) for key in KEYS} == {key: known.get(key) for key in KEYS}
    states.drop()
    assert (len(states), list(states), states.get(KEYS[1])) == (0, [], None)


def test_an_id_that_no_customer_can_have_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        States().put({b"k" * 65_536: b"1"})
