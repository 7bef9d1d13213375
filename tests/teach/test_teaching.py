"""The teaching pages: minutes, points and weights add up, names exist, and the exam's numbers are right."""

import math
import re

import pytest
import torch
from torch.distributions import Normal, kl_divergence

import vaekit
from tools.notebooks import ROOT

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "book" / "teach").glob("*.md")}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_every_session_fills_its_minutes():
    for title, text in re.findall(r"^### (Session \d|Day \d, \w+)(.*?)(?=^##|\Z)", PAGES["plan"], re.M | re.S):
        minutes = sum(int(n) for n in re.findall(r"^\| (\d+) \|", text, re.M))
        assert minutes == (120 if title.startswith("Session") else 100), title
    assert len(re.findall(r"^### Session", PAGES["plan"], re.M)) == 5
    for chapter in range(1, 8):  # each has a place in both plans
        five, two = PAGES["plan"].split("## Two days")
        assert f"{chapter} §" in five and f"{chapter} §" in two


def test_the_plans_name_sections_that_exist():
    titles = {int(p.name[:2]): p.read_text(encoding="utf-8") for p in (ROOT / "notebooks").glob("0*.py")}
    named = re.findall(r"\b(\d) ((?:§\d+(?:(?:, | to | and )(?=§))?)+)", PAGES["plan"] + PAGES["discussion"])
    assert len(named) > 60
    for chapter, sections in named:
        for section in re.findall(r"§(\d+)", sections):
            assert f"\n# ## {section}. " in titles[int(chapter)], f"{chapter} §{section}"


def test_points_and_weights_add_up():
    questions = re.findall(r"^## Question \d.*?\((\d+) points\)(.*?)(?=^## |\Z)", PAGES["exam"], re.M | re.S)
    assert sum(int(points) for points, _ in questions) == 100
    for points, text in questions:
        asked, solution = text.split(":::{dropdown} Solution")
        for part in (asked, solution):
            assert sum(map(int, re.findall(r"(?<=\()(\d+) points?", part))) == int(points), text[:60]
    assert sum(map(int, re.findall(r"^\| [A-Z][^|]* \| (\d+) \|", PAGES["projects"], re.M))) == 100


def test_projects_start_from_what_exists():
    named = set(re.findall(r"`([A-Za-z_0-9]+)`", PAGES["projects"])) - {"gpu"}
    assert len(named) > 12 and named <= set(dir(vaekit))


def normal(mean, variance):
    return Normal(torch.tensor(float(mean)), torch.tensor(float(variance)).sqrt())


def answers():
    """The exam's numbers, each by another way than its solution's."""
    z = torch.linspace(-12, 12, 200_001)
    joint = Normal(0.0, 1.0).log_prob(z) + Normal(z, 1.0).log_prob(torch.tensor(2.0))
    evidence = torch.trapezoid(joint.exp(), z).log()  # question 1, by quadrature
    guess = Normal(0.5, 1.0).log_prob(z)
    elbo = torch.trapezoid(guess.exp() * (joint - guess), z)
    yield from ((1, "−" if v < 0 else "", abs(v), 3) for v in (evidence.item(), elbo.item(), (evidence - elbo).item()))

    w = torch.tensor([0.5, 1.5])
    pairs = (w[:, None] + w) / 2
    yield from ((2, "-", -w.log().mean().item(), 3), (2, "-", -pairs.log().mean().item(), 3))

    alpha = math.exp(math.log(0.5) / 5)
    damping = torch.block_diag(torch.eye(10), alpha**5 * torch.eye(10))  # all damping of z and rho
    yield from ((3, "", alpha, 3), (3, "-", -torch.linalg.slogdet(damping)[1].item(), 3))

    regret = {}
    for image, distance, v in (("A", 1.0, 0.25), ("B", 5.0, 4.0)):
        mu, gains = torch.tensor(distance, requires_grad=True), []
        for _ in range(3000):  # question 4, by really climbing
            (slope,) = torch.autograd.grad(-(mu**2) / (2 * v), mu)
            mu = (mu + 0.1 * slope).detach().requires_grad_()
            gains.append(((distance**2 - mu**2) / (2 * v)).item())
        regret[image] = gains
    yield from ((4, "", regret["A"][0], 3), (4, "", regret["B"][0], 3), (4, "", regret["B"][-1], 3))
    overtaken = next(n for n, (a, b) in enumerate(zip(regret["A"], regret["B"], strict=True), 1) if b > a)
    yield (4, "step ", overtaken, 0)

    J = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    angles = torch.linspace(0, math.pi / 4, 10_001)
    c, s = angles.cos(), angles.sin()
    turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)  # [angles, 2, 2]
    columns = (J @ turn).abs().sum(-2)  # [angles, 2]
    price = columns.sum(-1)
    assert price.argmin() == 0 and torch.allclose((J @ turn).square().sum((-2, -1)), torch.tensor(4.0))
    assert torch.allclose(price, 4 * angles.cos() + 2 * angles.sin())
    yield from ((5, "", price.max().item(), 3), (5, "", price[-1].item(), 3))
    yield (5, "", (2 * columns[-1]).std(correction=0).item(), 3)

    original, copy = normal(0, 0.25), normal(1, 1)
    yield from ((6, "", kl_divergence(copy, original).item(), 3), (6, "", kl_divergence(original, copy).item(), 3))
    variances = torch.linspace(0.1, 5, 49_001)
    yield (6, r"2 = ", variances[kl_divergence(copy, Normal(torch.tensor(0.0), variances.sqrt())).argmin()].item(), 0)

    kernels = torch.tensor([0.8, 0.4, 0.1, 0.1])
    change = [(torch.cat([kernels[:k], kernels[k + 1 :]]).mean() / kernels.mean()).log().item() for k in (0, 2)]
    yield from ((7, "-", -change[0], 3), (7, "+", change[1], 3))
    ranks = torch.arange(20) * 12 + 16  # any with the mean 130
    assert ranks.double().mean() == 130
    hidden = torch.zeros(1000).index_fill(0, ranks - 1, 1.0)
    recall = hidden.cumsum(0) / 20
    above = (1 - hidden).flip(0).cumsum(0).flip(0)  # natives below each place
    yield from ((7, "", recall.mean().item(), 3), (7, "", (above * hidden).sum().item() / (20 * 980), 3))
    best = torch.zeros(1000).index_fill(0, torch.arange(20), 1.0)
    yield (7, "", (best.cumsum(0) / 20).mean().item(), 4)

    beyond = 2 * (1 - Normal(0.0, 1.0).cdf(torch.tensor(2.0))).item()
    yield from ((8, "", 100 * beyond, 2), (8, "", 50 * beyond, 1))


def test_the_exam_s_numbers_are_right():
    solutions = dict(re.findall(r"^## Question (\d).*?dropdown\} Solution(.*?):::", PAGES["exam"], re.M | re.S))
    found = list(answers())
    assert len(found) > 20
    for question, sign, value, digits in found:
        number = f"{value:.{digits}f}"
        assert number in solutions[str(question)], f"question {question}: {sign}{number}"
