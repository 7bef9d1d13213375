"""What is inside an objective is found wherever it is kept, copied with it, and described exactly."""

import copy
import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from vaekit import (
    VAE,
    Consistency,
    HamiltonianBound,
    JacobianL1,
    PlanarBound,
    elbo,
    fit,
    gaussian,
    importance_bound,
    linear,
    mlp,
    mutated,
)  # fmt: skip
from vaekit.training.description import describe, digest
from vaekit.training.functional import functional_call
from vaekit.training.objectives import module_of, modules_of, private_copy, strangers


def small():
    return VAE(*mlp((1, 3, 3), 2, hidden=(4,)), latent_dim=2)


class Kept:
    """An objective that is neither a module nor a function."""

    def __init__(self, bound):
        self.bound = bound

    def __call__(self, model, x):
        return self.bound(model, x)

    def method(self, model, x):
        return self.bound(model, x)


def flip(x):
    return x.flip(-1)


WAYS = {
    "itself": lambda bound: bound,
    "partial": lambda bound: partial(partial(bound, samples=2), samples=3),
    "method": lambda bound: bound.log_weight,
    "partial of a method": lambda bound: partial(bound.log_weight, samples=3),
    "closure": lambda bound: mutated(bound),
    "closure over a partial": lambda bound: lambda model, x: partial(bound, samples=1)(model, x),
    "object": lambda bound: Kept(partial(bound, samples=1)),
    "method of an object": lambda bound: Kept(bound).method,
    "keyword": lambda bound: partial(lambda model, x, inner: inner(model, x), inner=bound),
    "argument": lambda bound: partial(lambda inner, model, x: inner(model, x), bound),
    "list": lambda bound: [elbo, bound],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_module_is_found_wherever_it_is_kept(way):
    bound = PlanarBound(2, steps=1)
    assert module_of(WAYS[way](bound)) is bound
    nested = JacobianL1(WAYS[way](bound), weight=0.1) if way != "list" else WAYS[way](bound)
    assert bound in modules_of(nested).values() or bound in nested.modules()
    assert {id(p) for p in bound.parameters()} == {id(p) for p in module_of(nested).parameters()}


def test_a_plain_function_has_none():
    for objective in (elbo, partial(elbo, beta=2.0), mutated(elbo), lambda model, x: elbo(model, x), flip, None):
        assert modules_of(objective) == {} and module_of(objective) is None


def test_partials_do_not_change_the_names_of_what_is_saved():
    inner = HamiltonianBound(2, steps=1)
    for bound in (JacobianL1(inner, weight=0.1), JacobianL1(partial(inner, samples=2), weight=0.1)):
        assert list(module_of(bound).state_dict()) == list(module_of(partial(bound, weight=0.3)).state_dict())
    assert list(module_of(JacobianL1(inner, weight=0.1)).state_dict()) == ["bound.step_logit", "bound.alpha_logit"]


def test_an_objective_that_refers_to_itself_ends():
    kept = Kept(elbo)
    kept.me, kept.bound = kept, PlanarBound(2, steps=1)
    assert module_of(kept) is kept.bound
    describe(kept)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "list"])
def test_a_private_copy_shares_nothing_with_the_original_and_all_with_the_model(way):
    model, bound = small(), PlanarBound(2, steps=1)
    bound.holds = model
    objective = WAYS[way](bound)
    twin, copied = private_copy(model, objective)
    inside = next(m for m in module_of(copied).modules() if isinstance(m, PlanarBound))
    assert inside is not bound and inside.holds is twin is not model
    with torch.no_grad():
        for p in (*bound.parameters(), *model.parameters()):
            p.fill_(float("nan"))
    x = torch.rand(3, 1, 3, 3)
    options = {"samples": 2} if way == "method" else {}
    assert copied(twin, x, **options).isfinite().all()


def test_parameters_that_nobody_knows_are_told():
    model, hidden, x = small(), PlanarBound(2, steps=1), torch.rand(3, 1, 3, 3)
    known = list(model.parameters())
    assert strangers(elbo(model, x), known) == []
    assert sorted(strangers(hidden(model, x), known)) == sorted(tuple(p.shape) for p in hidden.parameters())
    assert strangers(hidden(model, x), [*known, *hidden.parameters()]) == []
    with torch.no_grad():
        assert strangers(hidden(model, x), []) == []


# --- calls with other weights ----------------------------------------------------------------------------------------


class Shared(nn.Module):
    """One layer under two names, one weight in two layers."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2)
        self.b = self.a
        self.c = nn.Linear(2, 2)
        self.c.weight = self.a.weight

    def forward(self, x):
        return self.c(self.b(self.a(x)))


def test_shared_modules_take_other_weights_and_get_their_own_back():
    net, other, x = Shared(), Shared(), torch.randn(3, 2)
    before, expected = copy.deepcopy(net.state_dict()), other(x)
    by_its_second_name = {"b.weight": other.a.weight, "a.bias": other.a.bias, "c.bias": other.c.bias}
    torch.testing.assert_close(functional_call(net, by_its_second_name, (x,)), expected)
    torch.testing.assert_close(functional_call(net, dict(other.named_parameters()), (x,)), expected)
    after = net.state_dict()  # torch's own functional_call leaves the new weights in
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(isinstance(p, nn.Parameter) for p in (net.a.weight, net.c.weight, net.a.bias)) and net.b is net.a

    def fails(x):
        raise KeyboardInterrupt

    net.c.register_forward_pre_hook(lambda *_: fails(x))
    with pytest.raises(KeyboardInterrupt):
        functional_call(net, dict(other.named_parameters()), (x,))
    assert all(torch.equal(before[name], net.state_dict()[name]) for name in before)
    with pytest.raises(ValueError, match=r"weights: expected names .* got \['d.weight'\]"):
        functional_call(net, {"d.weight": x}, (x,))


# --- descriptions ----------------------------------------------------------------------------------------------------


def named(seed, cls, *args, **options):
    torch.manual_seed(seed)
    return cls(*args, **options)


SCALE = 2.0


def with_default(model, x, beta=1.0):
    return elbo(model, x, beta=beta)


def by_global(model, x):
    return SCALE * elbo(model, x)


DIFFERENT = [
    lambda: elbo,
    lambda: importance_bound,
    lambda: partial(elbo, beta=1.0),
    lambda: partial(elbo, beta=1.0 + 1e-15),
    lambda: partial(elbo, samples=1),
    lambda: mutated(elbo, rate=0.2),
    lambda: mutated(elbo, rate=0.3),
    lambda: mutated(partial(elbo, samples=2), rate=0.2),
    lambda: named(0, PlanarBound, 2, steps=1),
    lambda: named(1, PlanarBound, 2, steps=1),
    lambda: named(0, PlanarBound, 2, steps=2),
    lambda: named(0, PlanarBound, 2, steps=1).log_weight,
    lambda: HamiltonianBound(2, steps=1),
    lambda: HamiltonianBound(2, steps=1, estimator="rao-blackwell"),
    lambda: HamiltonianBound(2, steps=1, max_energy_error=1e5),
    lambda: JacobianL1(elbo, weight=0.1),
    lambda: JacobianL1(elbo, weight=0.1, columns=1),
    lambda: JacobianL1(partial(elbo, beta=2.0), weight=0.1),
    lambda: Consistency(elbo, flip, weight=1.0),
    lambda: Consistency(elbo, torch.Tensor.contiguous, weight=1.0),
    lambda: linear(0, 1, 100),
    lambda: linear(0, 1, 101),
    lambda: gaussian(0.5),
    lambda: gaussian(0.6),
    lambda: lambda model, x: elbo(model, x),
    lambda: lambda model, x: elbo(model, x) + 0,
    lambda: with_default,
    lambda: by_global,
    lambda: named(0, small),
    lambda: named(1, small),
    lambda: named(0, VAE, *named(0, mlp, (1, 3, 3), 2, hidden=(4,), activation=nn.Tanh), latent_dim=2),
    lambda: [1, 2.5, None, True, "a", float("inf"), torch.float32, torch.zeros(2), {"k": {1, 2}}],
    lambda: [1, 2.5, None, True, "a", float("-inf"), torch.float32, torch.zeros(2), {"k": {1, 2}}],
    lambda: [1, 2.5, None, True, "a", float("inf"), torch.float32, torch.ones(2), {"k": {1, 2}}],
    lambda: [1, "2.5", None, True, "a", float("inf"), torch.float32, torch.zeros(2), {"k": {1, 2}}],
    lambda: [1, np.float64(2.5), None, True, "a", float("inf"), torch.float32, torch.zeros(2), {"k": {1, 2}}],
    lambda: [1, 2.5, None, 1, "a", float("inf"), torch.float32, torch.zeros(2), {"k": {1, 2}}],
    lambda: [1, 2.5, None, True, "a", float("nan"), torch.float32, torch.zeros(2), {"k": {1, 2}}],
]


def test_a_description_tells_configurations_apart_and_nothing_else():
    first, second = ([describe(make()) for make in DIFFERENT] for _ in range(2))
    assert first == second == json.loads(json.dumps(first))
    texts = {json.dumps(d, sort_keys=True) for d in first}
    assert len(texts) == len(DIFFERENT)
    assert digest(DIFFERENT[0]()) == digest(elbo) != digest(DIFFERENT[1]())


def test_a_description_sees_globals_and_defaults(monkeypatch):
    before = describe(by_global), describe(with_default)
    monkeypatch.setattr(with_default, "__defaults__", (2.0,))
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert describe(by_global) != before[0] and describe(with_default) != before[1]


def test_a_description_may_leave_the_weights_out():
    one, two = named(0, small), named(1, small)
    assert describe(one) != describe(two) and describe(one, weights=False) == describe(two, weights=False)
    before = describe(one)
    fit(one, elbo, torch.rand(8, 1, 3, 3), epochs=1, progress=False, device="cpu")
    assert describe(one) != before and describe(one, weights=False) == describe(two, weights=False)


def with_method(call):
    return type("Mine", (), {"__call__": call})()


def test_a_description_sees_the_attributes_and_the_methods_of_an_object():
    kept = [
        Kept(lambda model, x: 2 * elbo(model, x)),
        Kept(lambda model, x: 3 * elbo(model, x)),
        with_method(lambda self, model, x: 2 * elbo(model, x)),
        with_method(lambda self, model, x: 3 * elbo(model, x)),
    ]
    assert len({json.dumps(describe(each), sort_keys=True) for each in kept}) == 4
    assert [describe(each) for each in kept] == [describe(each) for each in kept]


def test_what_cannot_be_described_is_refused():
    with pytest.raises(ValueError, match="objective: expected a configuration that can be described, got <generator"):
        describe(partial(elbo, beta=(i for i in range(3))))


def test_weights_that_fit_would_not_train_are_refused_before_the_first_step(monkeypatch):
    hidden, model = PlanarBound(2, steps=1), small()
    monkeypatch.setitem(globals(), "HIDDEN", hidden)
    before, x = copy.deepcopy(model.state_dict()), torch.rand(6, 1, 3, 3)
    options = {"epochs": 2, "batch_size": 3, "device": "cpu", "progress": False}
    with pytest.raises(ValueError, match=r"objective: expected its parameters .* shapes \[\(5, 4\), \(5,\)\].*freeze"):
        fit(model, by_a_global_module, x, **options)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    fit(model, partial(lambda bound, model, x: bound(model, x), hidden), x, **options)  # reached, so trained
    hidden.requires_grad_(False)
    fit(model, by_a_global_module, x, **options)


def by_a_global_module(model, x):
    return HIDDEN(model, x)  # noqa: F821
