"""The teaching pages: minutes, points and weights add up, names exist, and the exam's numbers are right."""

import math
import re
from random import Random

import pytest
import torch
from torch.distributions import Normal, kl_divergence

import vaekit
from tools import slides
from tools.course import exam, quizzes
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
        # the deck's title slide has two of the minutes
        assert minutes == 100 if title.startswith("Day") else 118 <= minutes <= 120, (title, minutes)
    assert len(re.findall(r"^### Session", PAGES["plan"], re.M)) == len(slides.decks()) == 6
    for chapter in range(1, 8):  # each has a place in both plans
        six, two = PAGES["plan"].split("## Two days")
        assert f"{chapter} §" in six and f"{chapter} §" in two


def test_a_session_s_sections_are_those_of_its_deck():
    """What the plan promises is on a slide, and what is on a slide is in the plan."""
    for number, text in re.findall(r"^### Session (\d)(.*?)(?=^##|\Z)", PAGES["plan"], re.M | re.S):
        planned = {
            f"{chapter} §{section}"
            for chapter, sections in re.findall(r"\| (\d) (§[^|]*) \|$", text, re.M)
            for section in re.findall(r"§(\d+)", sections)
        }
        shown = {section for slide in slides.decks()[f"session-{number}"] for section in slide.sections}
        assert planned <= shown, planned - shown


def test_every_outcome_is_taught_and_examined_where_the_table_says():
    rows = re.findall(
        r"^\| (\d) \| ([^|]+) \| (\d §\d+) \| (\d)\.(\d+) \| ([\d.]+|–) \| (\w+|–) \|$", PAGES["plan"], re.M
    )
    assert len(rows) >= 20 and {row[0] for row in rows} == set("123456")
    decks, questions = slides.decks(), quizzes.questions()
    for session, outcome, section, deck, number, quiz, question in rows:
        slide = decks[f"session-{deck}"][int(number) - 1]
        assert deck == session and section in slide.sections, f"{outcome}: slide {deck}.{number} is {slide.heading!r}"
        assert quiz == "–" or quiz in questions, outcome
        if question != "–":
            asked = re.search(rf"^## Question {question[0]} .*?(?=^:::|\Z)", PAGES["exam"], re.M | re.S)[0]
            assert f"- ({question[1]})" in asked, outcome
        assert (quiz, question) != ("–", "–"), f"{outcome}: examined nowhere"


def test_the_plans_name_sections_that_exist():
    titles = {int(p.name[:2]): p.read_text(encoding="utf-8") for p in (ROOT / "notebooks").glob("0*.py")}
    named = re.findall(r"\b(\d) ((?:§\d+(?:(?:, | to | and )(?=§))?)+)", PAGES["plan"] + PAGES["discussion"])
    assert len(named) > 60
    for chapter, sections in named:
        for section in re.findall(r"§(\d+)", sections):
            assert f"\n# ## {section}. " in titles[int(chapter)], f"{chapter} §{section}"


def test_points_and_weights_add_up():
    for paper in (PAGES["exam"], exam.paper("Exam", exam.variant("any"))):
        questions = re.findall(r"^## Question \d.*?\((\d+) points\)(.*?)(?=^## |\Z)", paper, re.M | re.S)
        assert sum(int(points) for points, _ in questions) == 100
        for points, text in questions:
            asked, solution = text.split(":::{dropdown} Solution")
            for part in (asked, solution):
                assert sum(map(int, re.findall(r"(?<=\()(\d+) points?", part))) == int(points), text[:60]
    assert sum(map(int, re.findall(r"^\| [A-Z][^|]* \| (\d+) \|", PAGES["projects"], re.M))) == 100


def test_projects_start_from_what_exists():
    named = set(re.findall(r"`([A-Za-z_0-9]+)`", PAGES["projects"])) - {"cpu", "gpu"}
    assert len(named) > 12 and named <= set(dir(vaekit))


def answers(n):
    """The exam's numbers, each by another way than its solution's, as they must stand there."""
    z = torch.linspace(-14, 14, 200_001)
    joint = Normal(0.0, 1.0).log_prob(z) + Normal(z, 1.0).log_prob(torch.tensor(float(n["q1_x"])))
    evidence = torch.trapezoid(joint.exp(), z).log()  # question 1, by quadrature
    guess = Normal(float(n["q1_m"]), 1.0).log_prob(z)
    elbo = torch.trapezoid(guess.exp() * (joint - guess), z)
    yield from ((1, f"{v:.3f}") for v in (evidence, elbo, evidence - elbo))

    w = torch.tensor([n["q2_low"], 2 - n["q2_low"]])
    pairs = (w[:, None] + w) / 2
    yield from ((2, f"{v:.3f}") for v in (w.log().mean(), pairs.log().mean()))
    yield from ((2, f"{-w.var(correction=0) / (2 * s):.10g}") for s in (1, 2))

    K, D = n["q3_K"], n["q3_D"]
    (alpha,) = (r.real for r in torch.tensor([n["q3_product"]]).pow(1 / K))
    half = torch.block_diag(torch.eye(D), alpha.sqrt() * torch.eye(D))  # one damping of z and rho
    flow = torch.linalg.matrix_power(half, 2 * K)
    yield from ((3, f"{alpha:.3f}"), (3, f"{torch.linalg.slogdet(flow)[1]:.3f}"), (3, f"{D / 2:.10g}"))
    chi = torch.distributions.Chi2(torch.tensor(float(D)))  # |gamma|^2
    yield from ((3, f"mean is $D/2 = {chi.mean / 2:.10g}$"), (3, f"variance too is $D/2 = {chi.variance / 4:.10g}$"))

    regret = {}
    for image in "AB":
        mu, v, gains = torch.tensor(float(n[f"q4_d{image}"]), requires_grad=True), n[f"q4_v{image}"], []
        start = mu.detach().clone()
        for _ in range(3000):  # question 4, by really climbing
            (slope,) = torch.autograd.grad(-(mu**2) / (2 * v), mu)
            mu = (mu + n["q4_eta"] * slope).detach().requires_grad_()
            gains.append(((start**2 - mu.detach() ** 2) / (2 * v)).item())
        regret[image] = gains
    assert regret["A"][0] > regret["B"][0] and regret["A"][-1] < regret["B"][-1]  # the order is reversed
    yield from ((4, f"{regret[image][k]:.3f}") for image in "AB" for k in (0, -1))
    overtaken = next(k for k, (a, b) in enumerate(zip(regret["A"], regret["B"], strict=True), 1) if b > a)
    yield (4, f"step {overtaken} on")

    a, b = n["q5_a"], n["q5_b"]
    J = torch.tensor([[a, 0.0], [0.0, a], [b, b]])
    angles = torch.linspace(0, math.pi / 4, 10_001)
    c, s = angles.cos(), angles.sin()
    turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)  # [angles, 2, 2]
    columns = (J @ turn).abs().sum(-2)  # [angles, 2]
    norm = columns.sum(-1)
    squares = (J @ turn).square().sum((-2, -1))
    assert norm.argmin() == 0 and torch.allclose(squares, squares[0])
    yield from ((5, f"{norm.max():.3f}"), (5, f"{norm[-1]:.3f}"), (5, f"squares is {squares[0]:.10g} throughout"))
    yield (5, f"± {(2 * columns[-1]).std(correction=0):.3f}")

    original, copy = normal(0, n["q6_v"]), normal(n["q6_m"], n["q6_w"])
    yield from ((6, f"{kl_divergence(copy, original):.3f}"), (6, f"{kl_divergence(original, copy):.3f}"))
    variances = torch.linspace(0.1, 8, 79_001)
    best = variances[kl_divergence(copy, Normal(torch.tensor(0.0), variances.sqrt())).argmin()]
    yield (6, f"2 = {round(best.item(), 3):.10g}")

    kernels = torch.tensor([n[f"q7_k{k}"] for k in (1, 2, 3, 4)])
    for k in range(3):
        without = torch.cat([kernels[:k], kernels[k + 1 :]]).mean()
        yield (7, f"{(kernels.mean() / without).log():+.3f}")
    m, N = n["q7_m"], n["q7_N"]
    spacing = int(n["q7_rank"] * 2 // m) - 2
    ranks = torch.arange(m) * spacing
    ranks = ranks + int(n["q7_rank"] - ranks.double().mean())
    ranks[-1] += int(n["q7_rank"] * m - ranks.sum())  # any with this mean
    assert ranks.double().mean() == n["q7_rank"] and ranks.min() >= 1 and ranks.max() <= N and len(ranks.unique()) == m
    hidden = torch.zeros(N).index_fill(0, ranks - 1, 1.0)
    above = (1 - hidden).flip(0).cumsum(0).flip(0)  # natives below each place
    yield (7, f"{(hidden.cumsum(0) / m).mean():.3f}")
    yield (7, f"{(above * hidden).sum() / (m * (N - m)):.3f}")
    yield (7, f"{(torch.zeros(N).index_fill(0, torch.arange(m), 1.0).cumsum(0) / m).mean():.4f}")

    y = torch.tensor([[n["q8_00"], n["q8_01"]], [n["q8_10"], n["q8_11"]]], dtype=torch.float64)  # [h, c]
    yield from ((8, f"main effect {(y[1] - y[0]).mean():.10g} "), (8, f"= {(y[1] - y[0]).diff().item():.10g}$"))
    noise = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(0)).double() * 0.5
    spread = (noise @ torch.tensor([1.0, -1.0, -1.0, 1.0]).double()).std().item()
    assert abs(spread - 1) < 0.01
    beyond = 2 * (1 - Normal(0.0, 1.0).cdf(torch.tensor(2.0))).item()
    yield from ((8, f"{100 * beyond:.2f}"), (8, f"{50 * beyond:.1f}"))


PAPERS = {"practice": exam.PRACTICE, **{seed: exam.variant(seed) for seed in ("one", "two", "three", "four")}}


@pytest.mark.parametrize("name", PAPERS)
def test_the_exam_s_numbers_are_right(name):
    text = PAGES["exam"] if name == "practice" else exam.paper("Exam", PAPERS[name])
    solutions = dict(re.findall(r"^## Question (\d).*?dropdown\} Solution(.*?)^:::$", text, re.M | re.S))
    found = list(answers(PAPERS[name]))
    assert len(found) > 30
    for question, number in found:
        assert number in solutions[str(question)], f"question {question}: {number}"


def test_the_page_shows_the_practice_paper():
    assert PAGES["exam"] == exam.page()  # python -m tools.course.exam


def test_every_paper_is_complete_and_asks_the_same():
    for seed in range(200):  # every draw must be a fair question
        numbers = exam.drawn(Random(seed))
        text = exam.paper("Exam", numbers)
        assert "@" not in text and not re.search(r"\b(nan|inf)\b", text)
        kernels = [numbers[f"q7_k{k}"] for k in (1, 2, 3, 4)]
        assert kernels[0] > sum(kernels) / 4 and min(kernels[1:3]) < sum(kernels) / 4
        assert numbers["q8_11"] - numbers["q8_01"] != numbers["q8_10"] - numbers["q8_00"]
    assert "Solution" not in exam.paper("Exam", numbers, solutions=False)
    assert exam.paper("Exam", numbers, solutions=False).count("## Question") == 8


def normal(mean, variance):
    return Normal(torch.tensor(float(mean)), torch.tensor(float(variance)).sqrt())
