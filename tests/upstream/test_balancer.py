# SPDX-License-Identifier: Apache-2.0
"""Which endpoint gets a call: by its load and weight, or by what the call belongs to."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.generation import AudioPart, Generation, ImagePart, Message, TextPart
from llm_gateway.upstream.balancer import BoundedHash, LeastLoad, prefix_key

if TYPE_CHECKING:
    from collections.abc import Callable

SLACK = 4.0
FACTOR = 1.25


@dataclass
class Server:
    """An endpoint as a balancer sees it."""

    name: str
    weight: int = 1
    load: float = 0.0


Servers = tuple[Server, ...]
KEYS = [str(number).encode() for number in range(1000)]


def servers(*weights: int) -> Servers:
    return tuple(Server(f"vllm-{number}", weight) for number, weight in enumerate(weights))


@st.composite
def loaded(draw: st.DrawFn) -> Servers:
    """Some endpoints with any weights and loads."""
    pairs = draw(st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 1000)), min_size=1, max_size=12))
    return tuple(Server(f"vllm-{number}", weight, load) for number, (weight, load) in enumerate(pairs))


def drawing(numbers: list[float]) -> Callable[[], float]:
    """Gives these numbers, over and over, instead of random ones."""
    return cycle(numbers).__next__


DRAWS = st.lists(st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 1 - 2**-53]), min_size=1, max_size=8)


# ---------------------------------------------------------------------------------------------------------- least load


@given(candidates=loaded(), draws=DRAWS)
def test_who_has_the_most_to_do_for_its_weight_is_never_chosen(candidates: Servers, draws: list[float]) -> None:
    chosen = LeastLoad(uniform=drawing(draws)).pick(candidates)
    others = [other for other in candidates if other is not chosen]

    assert not others or any((chosen.load + 1) * o.weight <= (o.load + 1) * chosen.weight for o in others)


@pytest.mark.parametrize("draws", [[0.0, 1 - 2**-53], [1 - 2**-53, 0.0], [1 - 2**-53]])
def test_the_last_number_before_one_is_still_one_of_them(draws: list[float]) -> None:
    """A sum is rounded, here to what is no longer below the whole."""
    candidates = servers(999, 1)

    assert LeastLoad(uniform=drawing(draws)).pick(candidates) in candidates


def test_of_two_the_one_with_less_to_do_is_chosen() -> None:
    busy, idle = Server("busy", load=0.1), Server("idle")
    balancer = LeastLoad()

    assert {balancer.pick((busy, idle)).name for _ in range(100)} == {"idle"}
    assert {balancer.pick((idle, busy)).name for _ in range(100)} == {"idle"}


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (1, 2, 5), (1,) * 50, (90, 10, 10)])
def test_calls_that_last_are_spread_by_weight(weights: tuple[int, ...]) -> None:
    candidates = servers(*weights)
    balancer = LeastLoad(uniform=random.Random(7).random)
    for _ in range(100 * sum(weights)):
        balancer.pick(candidates).load += 1

    assert [server.load / server.weight for server in candidates] == pytest.approx([100] * len(weights), abs=10)


@pytest.mark.parametrize("weights", [(1, 1), (2, 1), (1, 2, 5)])
def test_among_equals_the_choice_is_random_in_proportion_to_weight(weights: tuple[int, ...]) -> None:
    """Else every gateway would send its first call to the same endpoint."""
    candidates = tuple(Server(str(weight), weight, load=weight - 1) for weight in weights)
    balancer = LeastLoad(uniform=random.Random(7).random)
    chosen = Counter(id(balancer.pick(candidates)) for _ in range(8000))

    shares = [chosen[id(server)] / 8000 for server in candidates]
    assert shares == pytest.approx([weight / sum(weights) for weight in weights], abs=0.03)


def test_every_two_may_be_compared() -> None:
    """With one of many idle, it is found as often as it is among the two."""
    candidates = tuple(Server(str(number), load=5) for number in range(10))
    candidates[9].load = 0
    balancer = LeastLoad(uniform=random.Random(7).random)
    chosen = Counter(balancer.pick(candidates).name for _ in range(9000))

    assert chosen["9"] / 9000 == pytest.approx(0.2, abs=0.02)
    assert len(chosen) == 10


def test_another_tuple_is_another_choice() -> None:
    candidates = servers(1, 1, 1)
    balancer = LeastLoad()
    balancer.pick(candidates)

    assert balancer.pick(candidates[1:2]) is candidates[1]
    assert {balancer.pick(servers(1, 1, 1, 1)).name for _ in range(200)} == {f"vllm-{number}" for number in range(4)}


# -------------------------------------------------------------------------------------------------------- bounded hash


def homes(balancer: BoundedHash, candidates: Servers) -> dict[bytes, str]:
    return {key: balancer.pick(candidates, key).name for key in KEYS}


def test_a_key_has_one_home_in_every_process() -> None:
    """These names were written down once, and must not change with a release: every cache would be lost."""
    balancer = BoundedHash()

    assert [balancer.pick(servers(1, 1, 1), key).name[-1] for key in KEYS[:8]] == list("00222111")


def test_the_order_of_the_endpoints_does_not_matter() -> None:
    candidates = servers(1, 2, 3, 4)

    assert homes(BoundedHash(), candidates) == homes(BoundedHash(), candidates[::-1])


@given(weights=st.lists(st.integers(1, 100), min_size=3, max_size=8), leaving=st.integers(0, 7))
def test_when_an_endpoint_leaves_only_its_keys_move_and_they_come_back(weights: list[int], leaving: int) -> None:
    candidates = servers(*weights)
    balancer = BoundedHash()
    before = homes(balancer, candidates)
    gone = candidates[leaving % len(candidates)]
    after = homes(balancer, tuple(server for server in candidates if server is not gone))

    assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == gone.name}
    assert homes(balancer, candidates) == before


def test_when_an_endpoint_is_added_keys_move_only_to_it() -> None:
    balancer = BoundedHash()
    before = homes(balancer, servers(1, 1, 1, 1))
    after = homes(balancer, servers(1, 1, 1, 1, 1))

    moved = {after[key] for key in KEYS if before[key] != after[key]}
    assert moved == {"vllm-4"}
    assert after == homes(BoundedHash(), servers(1, 1, 1, 1, 1))


def test_keys_that_left_an_endpoint_are_spread_over_the_others() -> None:
    candidates = servers(*[1] * 5)
    balancer = BoundedHash()
    orphans = [key for key, name in homes(balancer, candidates).items() if name == "vllm-0"]
    heirs = Counter(balancer.pick(candidates[1:], key).name for key in orphans)

    assert min(heirs.values()) > len(orphans) / 10


@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 5), (90, 10), (1,) * 10])
def test_keys_are_spread_by_weight(weights: tuple[int, ...]) -> None:
    chosen = Counter(homes(BoundedHash(), servers(*weights)).values())

    for number, weight in enumerate(weights):
        assert chosen[f"vllm-{number}"] / len(KEYS) == pytest.approx(weight / sum(weights), rel=0.4)


@given(candidates=loaded(), key=st.binary(max_size=40))
def test_who_has_more_than_its_share_gets_no_call(candidates: Servers, key: bytes) -> None:
    chosen = BoundedHash(factor=FACTOR, slack=SLACK).pick(candidates, key)

    share = chosen.weight / sum(server.weight for server in candidates)
    bound = math.ceil(FACTOR * (sum(server.load for server in candidates) + 1) * share)
    assert len(candidates) == 1 or chosen.load < max(SLACK, bound)


def test_calls_of_one_key_overflow_when_there_are_too_many_and_stay_in_bounds() -> None:
    candidates = servers(*[1] * 10)
    balancer = BoundedHash(factor=FACTOR, slack=SLACK)
    for _ in range(1000):
        balancer.pick(candidates, b"everybody").load += 1

    assert max(server.load for server in candidates) <= FACTOR * 100 + 1


def test_a_few_calls_of_one_key_stay_together() -> None:
    """In a quiet hour the share of one endpoint is less than a call."""
    candidates = servers(*[1] * 50)
    balancer = BoundedHash(slack=SLACK)
    chosen = [balancer.pick(candidates, b"session") for _ in range(3)]
    for server in chosen:
        server.load += 1

    assert len({server.name for server in chosen}) == 1
    assert balancer.pick(candidates, b"session") is chosen[0]


def test_what_is_above_its_share_is_passed_over_for_the_same_other_each_time() -> None:
    candidates = servers(*[1] * 10)
    balancer = BoundedHash()
    home = balancer.pick(candidates, b"session")
    home.load = 100
    others = {balancer.pick(candidates, b"session").name for _ in range(50)}

    assert len(others) == 1
    assert home.name not in others


def test_what_has_much_to_do_but_no_more_than_its_share_keeps_its_keys() -> None:
    candidates = servers(*[1] * 10)
    balancer = BoundedHash()
    before = homes(balancer, candidates)
    for server in candidates:
        server.load = 100

    assert homes(balancer, candidates) == before


def test_what_is_passed_on_goes_to_who_has_a_few_calls_too() -> None:
    candidates = servers(*[1] * 10)
    balancer = BoundedHash(slack=SLACK)
    balancer.pick(candidates, b"session").load = SLACK
    heir = balancer.pick(candidates, b"session")
    heir.load = SLACK - 1

    assert balancer.pick(candidates, b"session") is heir


def test_without_a_key_the_one_with_less_to_do_is_chosen() -> None:
    candidates = Server("busy", load=10), Server("idle")

    assert {BoundedHash().pick(candidates, None).name for _ in range(50)} == {"idle"}


def test_endpoints_that_are_gone_for_good_are_forgotten() -> None:
    balancer = BoundedHash()
    for deployment in range(50):
        balancer.pick((Server(f"a-{deployment}"), Server(f"b-{deployment}")), b"key")

    assert len(set(balancer._ring.after(b"key"))) <= 4


# ---------------------------------------------------------------------------------------------------------- prefix key


def chat(*turns: tuple[str, str], **fields: str) -> Generation:
    return Generation(messages=tuple(Message(role=role, content=text) for role, text in turns), **fields)  # type: ignore[arg-type]  # strings


SYSTEM = ("system", "Be brief.")
USER = ("user", "Why?")
LONG = "x" * 1024


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (chat(SYSTEM, USER), chat(SYSTEM, USER, ("assistant", "Because."), ("user", "Really?"))),
        (chat(("system", LONG), USER), chat(("system", LONG), ("user", "How?"))),
        (Generation(prompt=LONG + "a"), Generation(prompt=LONG + "b")),
        (chat(USER), Generation(messages=(Message(role="user", content=(TextPart("Why?"),)),))),
    ],
    ids=["a conversation that goes on", "a long system prompt", "a long prompt", "text in parts"],
)
def test_what_begins_alike_belongs_together(one: Generation, other: Generation) -> None:
    assert prefix_key(one) == prefix_key(other) is not None


def picture(url: str) -> Generation:
    return Generation(messages=(Message(role="user", content=(TextPart("What?"), ImagePart(url))),))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (chat(SYSTEM, USER), chat(("system", "Be long."), USER)),
        (chat(SYSTEM, USER), chat(SYSTEM, ("user", "How?"))),
        (chat(("system", "a"), ("user", "bc")), chat(("system", "ab"), ("user", "c"))),
        (Generation(prompt="a"), Generation(prompt="b")),
        (chat(USER), chat(USER, cache_salt="mine")),
        (picture("http://a"), picture("http://b")),
    ],
    ids=["system prompts", "first turns", "borders", "prompts", "salts", "pictures"],
)
def test_what_begins_differently_does_not(one: Generation, other: Generation) -> None:
    assert prefix_key(one) != prefix_key(other)


@pytest.mark.parametrize(
    "generation",
    [
        Generation(),
        Generation(prompt=""),
        chat(("system", ""), ("user", "")),
        Generation(messages=(Message(role="assistant"),)),
        Generation(messages=(Message(role="user", content=(AudioPart(b"...", "wav"),)),)),
        Generation(cache_salt="mine"),
    ],
)
def test_what_has_no_text_belongs_nowhere(generation: Generation) -> None:
    assert prefix_key(generation) is None


def test_the_key_of_a_huge_prompt_is_small() -> None:
    key = prefix_key(chat(("system", "x" * 10_000_000), USER))

    assert key is not None
    assert len(key) < 2000
