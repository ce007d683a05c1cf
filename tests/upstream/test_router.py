# SPDX-License-Identifier: Apache-2.0
"""From the model that a caller names to its endpoints; and what happens to these when the configuration changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.backends.base import Readiness
from llm_gateway.errors import InvalidRequest, ModelNotFound, NoHealthyBackend
from llm_gateway.generation import Generation, Model
from llm_gateway.upstream.budget import RetryBudget, RetryStatistics
from llm_gateway.upstream.prober import ProbeIntervals, Prober
from llm_gateway.upstream.router import Router, only_one
from llm_gateway.upstream.spec import ANY_MODEL, Address, Balancing, ModelSpec, Timeouts
from tests.kit.calls import until
from tests.upstream.fakes import FakeBackend, backend_spec, endpoint_of
from tests.upstream.pooling import kill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from llm_gateway.errors import GatewayError
    from llm_gateway.upstream.endpoint import Endpoint
    from llm_gateway.upstream.spec import BackendSpec

BASE = Model(name="base")
OTHER = Model(name="other")
ADAPTER = Model(name="adapter", parent="base")


class World:
    """What is outside a router: the backends that it made, and the names that it looks up."""

    def __init__(self) -> None:
        self.made: dict[str, FakeBackend] = {}
        self.addresses: Sequence[str] | OSError = ()

    def make(self, spec: BackendSpec, address: Address, on_change: Callable[[], None]) -> Endpoint:
        backend = self.made[address.url] = FakeBackend(f"{spec.name}@{address.url}")
        endpoint = endpoint_of(spec, backend=backend, clock=lambda: 0.0, on_change=on_change)
        endpoint.address = address
        return endpoint

    async def resolve(self, _: str) -> Sequence[Address]:
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return [Address(url, "name") for url in self.addresses]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def router(world: World) -> AsyncIterator[Router]:
    prober = Prober(ProbeIntervals(readiness=0.001, load=None))
    router = Router(world.make, make_budget=RetryBudget, resolve=world.resolve, prober=prober)
    yield router
    await router.close()


def model(name: str, *backends: str | BackendSpec, **fields: Any) -> ModelSpec:
    """A configured model; a backend that is only a name has an address of the same name."""
    specs = tuple(backend_spec(backend) if isinstance(backend, str) else backend for backend in backends)
    return ModelSpec(name=name, backends=specs, **fields)


def addresses(router: Router, name: str) -> list[str]:
    pool, _ = router.pool(name)
    return [endpoint.address.url for endpoint in pool.endpoints]


# ------------------------------------------------------------------------------------------------- which model it is


async def test_a_model_is_found_by_its_name_and_by_its_aliases(router: Router) -> None:
    await router.apply([model("llama", "a", aliases=("chat", "default-chat")), model("qwen", "b")], None)

    assert [router.pool(name)[1] for name in ("llama", "chat", "default-chat", "qwen")] == ["llama"] * 3 + ["qwen"]


async def test_a_model_that_is_not_configured_is_not_found(router: Router) -> None:
    await router.apply([model("llama", "a")], None)

    with pytest.raises(ModelNotFound):
        router.pool("gpt")


@pytest.mark.parametrize(("names", "default", "found"), [(["a"], None, "a"), (["a", "b"], "b", "b")])
async def test_who_names_none_gets_the_default_or_the_only_one(
    router: Router, names: list[str], default: str | None, found: str
) -> None:
    await router.apply([model(name, name) for name in names], default)

    assert router.pool(None)[1] == found


async def test_where_it_could_be_any_the_field_is_named(router: Router) -> None:
    await router.apply([model("a", "a"), model("b", "b")], None)

    with pytest.raises(InvalidRequest) as caught:
        router.pool(None)

    assert [violation.field for violation in caught.value.violations] == ["model"]


async def test_where_the_backend_knows_best_every_name_is_passed_on(router: Router) -> None:
    await router.apply([model(ANY_MODEL, "a")], None)

    assert [router.pool(name)[1] for name in ("base", "whatever", None)] == ["base", "whatever", ""]
    assert router.models() is None


@pytest.mark.parametrize(
    ("models", "only"), [([BASE], "base"), ([ADAPTER, BASE], "base"), ([BASE, OTHER], None), ([], None)]
)
def test_an_adapter_does_not_make_a_model_ambiguous(models: Sequence[Model], only: str | None) -> None:
    assert only_one(models) == only


@pytest.mark.parametrize(
    ("models", "default", "marked"),
    [([OTHER, BASE], None, []), ([OTHER, BASE], "other", ["other"]), ([BASE, ADAPTER], None, ["base"])],
)
async def test_the_models_of_a_backend_are_listed_by_name_and_the_default_is_marked(
    router: Router, models: Sequence[Model], default: str | None, marked: list[str]
) -> None:
    await router.apply([model(ANY_MODEL, "a")], default)
    listed = router.mark_default(models)

    assert [model.name for model in listed] == sorted(model.name for model in models)
    assert [model.name for model in listed if model.is_default] == marked


async def test_configured_models_are_listed_whether_their_backends_answer_or_not(router: Router) -> None:
    await router.apply([model("qwen", "b"), model("llama", "a", aliases=("chat",))], "qwen")

    assert router.models() == [Model(name="llama", aliases=("chat",)), Model(name="qwen", is_default=True)]


async def test_what_a_backend_says_of_the_context_is_learnt(router: Router, world: World) -> None:
    await router.apply([model("llama", "a", "b")], None)
    for url, length in (("http://a", 4096), ("http://b", 2048)):
        world.made[url].models = (Model(name="own-name", context_length=length),)
    await until(lambda: all(backend.probes for backend in world.made.values()))
    await until(lambda: router.models() == [Model(name="llama", context_length=2048, is_default=True)])


# --------------------------------------------------------------------------------------- another configuration


async def test_an_endpoint_whose_entry_is_unchanged_stays_as_it_is(router: Router) -> None:
    await router.apply([model("llama", "a", "b")], None)
    before = {endpoint.address.url: endpoint for endpoint in router.pool("llama")[0].endpoints}
    await router.apply([model("llama", "a", "c", aliases=("chat",))], None)

    assert addresses(router, "chat") == ["http://a", "http://c"]
    assert router.pool("llama")[0].endpoints[0] is before["http://a"]


@pytest.mark.parametrize(
    "changed",
    [
        {"api_key": "rotated"},
        {"model": "other"},
        {"dialect": "openai"},
        {"timeouts": Timeouts(connect=1.0)},
        {"urls": ("http://a", "http://b")},
    ],
    ids=["key", "model", "dialect", "connect timer", "no longer alone"],
)
async def test_an_entry_that_means_another_server_or_another_driver_is_another_endpoint(
    router: Router, changed: dict[str, Any]
) -> None:
    await router.apply([model("llama", "a")], None)
    before = router.pool("llama")[0].endpoints[0]
    await router.apply([model("llama", backend_spec("a", **changed))], None)

    assert router.pool("llama")[0].endpoints[0] is not before


@pytest.mark.parametrize(
    "changed",
    [{"weight": 2}, {"tier": 1}, {"timeouts": Timeouts(first_token=1.0, idle=1.0, usage=1.0)}],
    ids=["weight", "tier", "timers"],
)
async def test_what_else_changes_is_taken_in_place_and_what_is_known_of_the_endpoint_stays(
    router: Router, world: World, changed: dict[str, Any]
) -> None:
    await router.apply([model("llama", "a", "b")], None)
    pool, _ = router.pool("llama")
    endpoint = pool.endpoints[0]
    lease = pool.lease(None, "llama", avoid=pool.endpoints[1:])
    kill(pool, "a@http://a")
    await router.apply([model("llama", backend_spec("a", **changed), "b")], None)
    after = next(other for other in pool.endpoints if other.address.url == "http://a")

    assert after is endpoint
    assert (after.in_flight, after.ejection.ejections, after.takes_calls) == (1, 1, False)
    assert {field: getattr(after.spec, field) for field in changed} == changed
    assert lease.timeouts == Timeouts()  # what runs keeps what it started with
    lease.ended()
    assert not world.made["http://a"].closed


@pytest.mark.parametrize("balancing", Balancing)
async def test_another_weight_is_heeded_by_the_next_choice(router: Router, balancing: Balancing) -> None:
    def models(weight: int) -> list[ModelSpec]:
        return [model("llama", backend_spec("a", weight=weight), "b", balancing=balancing)]

    await router.apply(models(1), None)
    pool, _ = router.pool("llama")
    sessions = [Generation(session_id=str(n), prompt=str(n)) for n in range(200)]

    def shares() -> Counter[str]:
        names = Counter[str]()
        for session in sessions:
            lease = pool.lease(session, "llama")
            names[lease.endpoint.spec.name] += 1
            lease.ended()
        return names

    before = shares()
    await router.apply(models(9), None)

    assert before["b"] > 60
    assert shares()["b"] < 50


async def test_who_has_several_addresses_keeps_those_that_stay(router: Router) -> None:
    await router.apply([model("llama", backend_spec("a", urls=("http://1", "http://2")))], None)
    before = router.pool("llama")[0].endpoints
    await router.apply([model("llama", backend_spec("a", urls=("http://2", "http://3")))], None)

    assert addresses(router, "llama") == ["http://2", "http://3"]
    assert router.pool("llama")[0].endpoints[0] is before[1]


async def test_an_endpoint_that_goes_is_closed_when_its_last_call_has_ended(router: Router, world: World) -> None:
    await router.apply([model("llama", "a")], None)
    lease = router.pool("llama")[0].lease(None, "llama")
    await router.apply([model("llama", "b")], None)
    closed = [world.made["http://a"].closed]
    lease.ended()
    await until(lambda: world.made["http://a"].closed)

    assert closed == [False]


async def test_an_idle_endpoint_that_goes_is_closed_at_once_and_asked_no_more(router: Router, world: World) -> None:
    await router.apply([model("llama", "a")], None)
    await router.apply([model("llama", "b")], None)
    await until(lambda: world.made["http://a"].closed)
    probes = world.made["http://a"].probes
    await until(lambda: world.made["http://b"].probes > 3)

    assert world.made["http://a"].probes == probes


async def test_an_endpoint_that_goes_is_asked_for_the_sake_of_the_calls_that_wait_on_it(
    router: Router, world: World
) -> None:
    """Who waits for the first token of a dead one is told, and left to the first-token timer otherwise."""
    await router.apply([model("llama", "a")], None)
    lease = router.pool("llama")[0].lease(None, "llama")
    told: list[GatewayError] = []

    def go_elsewhere(error: GatewayError) -> bool:
        told.append(error)
        return True

    lease.on_lost = go_elsewhere
    await router.apply([model("llama", "b")], None)
    world.made["http://a"].readiness = Readiness.DOWN
    await until(lambda: told)
    lease.ended()
    await until(lambda: world.made["http://a"].closed)
    probes = world.made["http://a"].probes
    await until(lambda: world.made["http://b"].probes > 20)

    assert world.made["http://a"].probes == probes


async def test_a_model_that_goes_has_nobody_left_for_a_call_that_tries_again(router: Router) -> None:
    await router.apply([model("llama", "a"), model("qwen", "b")], None)
    pool, _ = router.pool("llama")
    await router.apply([model("qwen", "b")], None)

    with pytest.raises(NoHealthyBackend):
        pool.lease(None, "llama")
    with pytest.raises(ModelNotFound):
        router.pool("llama")


async def test_at_the_end_every_endpoint_is_closed(router: Router, world: World) -> None:
    await router.apply([model("llama", "a", "b"), model("qwen", "c")], None)
    await router.close()

    assert [backend.closed for backend in world.made.values()] == [True] * 3


# ------------------------------------------------------------------------------- a name with many addresses behind it

HEADLESS = backend_spec("vllm", urls=("http://vllm-headless:8000",), resolve=True)


async def test_every_address_behind_a_name_is_an_endpoint(router: Router, world: World) -> None:
    world.addresses = ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
    await router.apply([model("llama", HEADLESS)], None)

    assert addresses(router, "llama") == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]


async def test_addresses_that_come_and_go_are_followed(router: Router, world: World) -> None:
    world.addresses = ["http://1", "http://2"]
    await router.apply([model("llama", HEADLESS)], None)
    world.addresses = ["http://2", "http://3"]
    await router.refresh()
    await until(lambda: world.made["http://1"].closed)

    assert addresses(router, "llama") == ["http://2", "http://3"]
    assert not world.made["http://2"].closed


async def test_who_looks_names_up_is_told_whether_each_has_an_address(router: Router, world: World) -> None:
    world.addresses = []
    await router.apply([model("llama", HEADLESS)], None)

    assert not await router.refresh()

    world.addresses = ["http://1"]
    assert await router.refresh()


@pytest.mark.parametrize("nothing", [(), OSError("no such name")], ids=["empty", "a failure"])
async def test_a_name_that_has_no_address_for_a_while_keeps_those_of_before(
    router: Router, world: World, nothing: Sequence[str] | OSError
) -> None:
    world.addresses = ["http://1"]
    await router.apply([model("llama", HEADLESS)], None)
    world.addresses = nothing
    await router.refresh()
    await router.apply([model("llama", HEADLESS, aliases=("chat",))], None)

    assert addresses(router, "chat") == ["http://1"]


@pytest.mark.parametrize(
    "changed", [{"weight": 2}, {"api_key": "rotated"}, {"timeouts": Timeouts(idle=1.0)}], ids=["weight", "key", "timer"]
)
@pytest.mark.parametrize("nothing", [(), OSError("no such name")], ids=["empty", "a failure"])
async def test_a_change_of_a_backend_while_nobody_knows_its_name_keeps_the_addresses_of_before(
    router: Router, world: World, nothing: Sequence[str] | OSError, changed: dict[str, Any]
) -> None:
    world.addresses = ["http://1"]
    await router.apply([model("llama", HEADLESS)], None)
    world.addresses = nothing
    await router.apply([model("llama", replace(HEADLESS, **changed))], None)

    assert addresses(router, "llama") == ["http://1"]


async def test_a_name_that_never_had_one_is_no_healthy_backend(router: Router, world: World) -> None:
    world.addresses = OSError("no such name")
    await router.apply([model("llama", HEADLESS)], None)

    with pytest.raises(NoHealthyBackend):
        router.pool("llama")[0].lease(None, "llama")


# ---------------------------------------------------------------------------------------------------------- budgets


async def test_each_model_has_a_retry_budget_of_its_own(router: Router) -> None:
    await router.apply([model("llama", "a"), model("qwen", "a")], None)
    while router.pool("llama")[0].budget.withdraw():
        pass
    llama, qwen = router.statistics()

    assert router.pool("qwen")[0].budget.withdraw()
    assert llama.retries == RetryStatistics(requests=0, retries=50, refused=1)
    assert qwen.retries == RetryStatistics(requests=0, retries=0, refused=0)


async def test_what_a_model_has_spent_stays_spent_when_the_configuration_changes(router: Router) -> None:
    await router.apply([model("llama", "a")], None)
    router.pool("llama")[0].budget.withdraw()
    await router.apply([model("llama", "b", seats=1)], None)

    assert [llama.retries.retries for llama in router.statistics()] == [1]


# ------------------------------------------------------------------------------------------------------- statistics


async def test_the_statistics_have_every_model_and_endpoint(router: Router) -> None:
    await router.apply([model("llama", "a", backend_spec("b", tier=1, weight=3), aliases=("chat",), seats=7)], None)
    lease = router.pool("llama")[0].lease(None, "llama")
    (llama,) = router.statistics()
    lease.ended()

    assert (llama.name, llama.aliases, llama.seats) == ("llama", ("chat",), 7)
    assert [(e.name, e.tier, e.weight, e.in_flight, e.health.value) for e in llama.endpoints] == [
        ("a@http://a", 0, 1, 1, "healthy"),
        ("b@http://b", 1, 3, 0, "healthy"),
    ]
