"""Two digests differ exactly if what they are taken of may give another result."""

import linecache
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vaekit import VAE, HamiltonianBound, elbo, gaussian, mlp
from vaekit.notebook.digest import digest
from vaekit.training import linear, seeded


def tiny_vae():
    with seeded(0):
        return VAE(*mlp((1, 2, 2), 2, hidden=(3,)), latent_dim=2)


Point = namedtuple("Point", "x y")


@dataclass
class Record:
    a: int
    b: torch.Tensor


def same(a, b):
    return digest(value=a) == digest(value=b)


CELL = """
import torch
scale = 2.0
def inner(x):
    "Doc."
    return x * scale
def outer(x, shift=1):
    return [inner(v) for v in x] + [shift]  # a comment
class Thing:
    factor = 3
    def go(self, x):
        return inner(x) * self.factor
thing = Thing()
decorated = torch.no_grad()(outer)
def make(k):
    return lambda x: x * k
pair = (lambda x: x + 1, lambda x: x + 2)
"""


def cell(text=CELL):
    """What a notebook's cell defines, with its source where Python looks for it."""
    name, lines = f"cell {len(linecache.cache)}", text.splitlines(keepends=True)
    linecache.cache[name] = (len(text), None, lines, name)
    found = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), found)
    return found


@pytest.mark.parametrize("what", ["outer", "Thing", "thing", "decorated", "pair"])
def test_layout_comments_and_docstrings_do_not_matter(what):
    other = CELL.replace('"Doc."', '"Other words."').replace("  # a comment", "").replace("\ndef", "\n\n\ndef")
    assert same(cell()[what], cell(other)[what])


@pytest.mark.parametrize(
    ("what", "before", "after"),
    [
        ("outer", "[shift]", "[-shift]"),
        ("outer", "shift=1", "shift=2"),
        ("outer", "x * scale", "x / scale"),  # a function that it calls
        ("outer", "scale = 2.0", "scale = 2.5"),  # a constant of a function that it calls
        ("decorated", "x * scale", "x / scale"),
        ("decorated", "no_grad()", "enable_grad()"),
        ("thing", "factor = 3", "factor = 4"),
        ("thing", "* self.factor", "+ self.factor"),
        ("Thing", "x * scale", "x / scale"),
        ("pair", "x + 2", "x + 3"),
    ],
)
def test_a_changed_source_is_seen_wherever_it_stands(what, before, after):
    assert before in CELL
    assert not same(cell()[what], cell(CELL.replace(before, after))[what])


CLASS = """
class Thing:
    "Doc."
    factor = 3
    @property
    def twice(self):
        "Doc."
        return 2 * self.factor
    @staticmethod
    def half(x):
        return x / 2
"""


def test_a_class_is_its_code_and_its_plain_values_but_not_its_docstring():
    thing = cell(CLASS)["Thing"]
    assert same(thing, cell(CLASS.replace('"Doc."', '"Other words."'))["Thing"])
    for before, after in (("2 *", "3 *"), ("x / 2", "x / 4"), ("factor = 3", "factor = 4"), ("@static", "@class")):
        assert not same(thing, cell(CLASS.replace(before, after))["Thing"])
    later = cell(CLASS)["Thing"]
    later.factor = 4  # where no source says so
    assert not same(thing, later)


def test_lambdas_on_one_line_and_what_a_function_captures_are_told_apart():
    found = cell()
    assert not same(*found["pair"])
    assert same(found["make"](2), found["make"](2)) and not same(found["make"](2), found["make"](3))


def test_functions_that_call_each_other_end():
    text = "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)\n"
    assert same(cell(text)["even"], cell(text)["even"])
    assert not same(cell(text)["even"], cell(text.replace("n != 0", "n > 0"))["even"])


ALIKE = {
    "tensors": (torch.arange(6.0).reshape(2, 3).T, torch.arange(6.0).reshape(2, 3).T.contiguous()),
    "strange bits": (torch.tensor([float("nan")]), torch.tensor([float("nan")])),
    "bfloat16": (torch.ones(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16)),
    "sets": ({"b", "a", "c"}, {"c", "b", "a"}),
    "modules": (tiny_vae(), tiny_vae()),
    "library functions": (gaussian(0.5), gaussian(0.5)),
    "schedules": (linear(0, 1, 10), linear(0, 1, 10)),
    "records": (Record(1, torch.ones(2)), Record(1, torch.ones(2))),
    "partials": (partial(elbo, samples=2), partial(elbo, samples=2)),
    "distributions": (torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, 1.0)),
}


@pytest.mark.parametrize("pair", ALIKE.values(), ids=ALIKE)
def test_equal_things_have_one_digest(pair):
    assert same(*pair)


def changed(model, how):
    how(model)
    return model


tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
tied[1].load_state_dict(tied[0].state_dict())
untied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
untied[0].load_state_dict(tied[0].state_dict())
untied[1].load_state_dict(tied[0].state_dict())
tied[1].weight = tied[0].weight

DIFFERENT = {
    "numbers": (0.1, np.nextafter(0.1, 1).item()),
    "kinds of numbers": (1, 1.0),
    "truth and one": (True, 1),
    "zeros": (0.0, -0.0),
    "text and bytes": ("a", b"a"),
    "lists and tuples": ([1], (1,)),
    "nesting": ([[1], 2], [[1, 2]]),
    "order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "shapes": (torch.zeros(2, 3), torch.zeros(3, 2)),
    "types of numbers": (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
    "one pixel": (torch.zeros(100), torch.zeros(100).index_fill(0, torch.tensor([7]), 1e-30)),
    "gradient": (torch.zeros(2), torch.zeros(2, requires_grad=True)),
    "arrays": (np.zeros(2), np.zeros(2, dtype=np.float32)),
    "a weight": (tiny_vae(), changed(tiny_vae(), lambda m: next(m.parameters()).data.add_(1e-7))),
    "training": (tiny_vae(), tiny_vae().eval()),
    "frozen": (tiny_vae(), tiny_vae().requires_grad_(False)),
    "tied": (tied, untied),
    "configuration": (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
    "flow": (HamiltonianBound(2, steps=1), HamiltonianBound(2, steps=1, tempering="none")),
    "likelihoods": (gaussian(0.5), gaussian(0.6)),
    "schedules": (linear(0, 1, 10), linear(0, 1, 11)),
    "partials": (partial(elbo, samples=2), partial(elbo, samples=3)),
    "fields": (Point(1, 2), Point(2, 1)),
    "records": (Record(1, torch.ones(2)), Record(1, torch.zeros(2))),
    "distributions": (torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, 2.0)),
    "library": (elbo, HamiltonianBound),
    "methods": (tiny_vae().sample, tiny_vae().reconstruct),
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
def test_different_things_have_two(pair):
    assert not same(*pair)


def test_files_count_by_what_is_in_them(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    assert same(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b").write_text("2")
    assert not same(tmp_path / "a", tmp_path / "b")


hook = nn.Linear(1, 1)
hook.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"k": [torch.Generator()]}, r"value\['k'\]\[0\]: expected .*got a torch._C.Generator"),
        (sys.stdin, "value: expected"),
        (hook, "a module with _forward_hooks"),
        (object(), "got a builtins.object"),
        (np.array([{}]), "an array of objects"),
        (torch.zeros(2).to_sparse(), "sparse"),
        (Path("nowhere"), "the path nowhere, where no file is"),
        (eval("lambda x: x"), "the source of <lambda> cannot be read"),
    ],
    ids=["generator", "stream", "hook", "object", "objects", "sparse", "path", "source"],
)
def test_what_cannot_be_told_apart_is_refused_by_name(value, words):
    with pytest.raises(ValueError, match=words):
        digest(value=value)


def test_a_global_that_cannot_be_told_apart_is_named():
    found = cell("import sys\nout = sys.stdin\ndef f(x):\n    return out.read(x)\n")
    with pytest.raises(ValueError, match=r"value: out: expected"):
        digest(value=found["f"])


def test_a_digest_is_the_same_in_another_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        CELL + "import sys\nfrom functools import partial\nfrom vaekit.notebook.digest import digest\n"
        "print(digest(a=outer, b=thing, c=pair, d={'x', 'y', 'z'}, e=partial(decorated, shift=2), f=torch.ones(3)))\n"
    )
    runs = [subprocess.run([sys.executable, script], capture_output=True, text=True) for _ in range(2)]
    assert len(runs[0].stdout) == 65 and runs[0].stdout == runs[1].stdout, runs[0].stderr
