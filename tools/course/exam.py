"""The written exam: one text, whose numbers are either the practice paper's or drawn from the lecturer's seed."""

import math
import re
from pathlib import Path
from random import Random

from tools.course.draw import fill, stream
from tools.notebooks import ROOT

TEXT = (Path(__file__).parent / "exam.md").read_text(encoding="utf-8")
SOLUTION = re.compile(r":::\{dropdown\} Solution\n(.*?)^:::$\n*", re.DOTALL | re.MULTILINE)
WORDS = ("first", "second", "third")
Numbers = dict[str, float]

PRACTICE: Numbers = {
    "q1_x": 2, "q1_m": 0.5, "q2_low": 0.5, "q3_D": 10, "q3_K": 5, "q3_product": 0.5,
    "q4_dA": 1, "q4_vA": 0.25, "q4_dB": 5, "q4_vB": 4, "q4_eta": 0.1, "q5_a": 1, "q5_b": 1,
    "q6_v": 0.25, "q6_m": 1, "q6_w": 1, "q7_k1": 0.8, "q7_k2": 0.4, "q7_k3": 0.1, "q7_k4": 0.1,
    "q7_m": 20, "q7_N": 1000, "q7_rank": 130, "q8_00": -100, "q8_01": -103, "q8_10": -98, "q8_11": -99,
}  # fmt: skip


def drawn(r: Random) -> Numbers:
    """Numbers of another paper, chosen so that every question asks the same of the student."""
    without, interaction = r.choice([1, 2, 3]), r.choice([-4, -3, 3, 4, 1])
    base, cost = r.choice([-95, -90, -110]), r.choice([2, 3, 4])
    kernels = r.choice([(0.9, 0.5, 0.2, 0.1), (0.7, 0.2, 0.5, 0.1), (1.2, 0.2, 0.7, 0.3), (0.6, 0.6, 0.1, 0.1)])
    return {
        "q1_x": r.choice([1, 1.6, 2.4, 3]), "q1_m": r.choice([0, 0.2, 0.4]), "q2_low": r.choice([0.2, 0.4, 0.6]),
        "q3_D": r.choice([8, 12, 16, 20]), "q3_K": r.choice([3, 4, 6]), "q3_product": r.choice([0.4, 0.6, 0.7]),
        "q4_dA": 1, "q4_vA": r.choice([0.2, 0.25]), "q4_dB": r.choice([5, 6]), "q4_vB": r.choice([3, 4]),
        "q4_eta": r.choice([0.05, 0.1]), "q5_a": r.choice([2, 3]), "q5_b": r.choice([1, 2]),
        "q6_v": r.choice([0.2, 0.5]), "q6_m": r.choice([0.5, 2]), "q6_w": r.choice([1, 0.8]),
        **{f"q7_k{k}": v for k, v in enumerate(kernels, 1)},
        "q7_m": r.choice([30, 40, 50]), "q7_N": r.choice([2000, 2500]), "q7_rank": r.choice([260, 310, 420]),
        "q8_00": base, "q8_01": base - cost, "q8_10": base + without, "q8_11": base - cost + without + interaction,
    }  # fmt: skip


def solved(n: Numbers) -> dict[str, str]:
    """Everything that the text has a name for: the given numbers and what follows from them."""
    x, m = n["q1_x"], n["q1_m"]
    evidence = -0.5 * math.log(4 * math.pi) - x**2 / 4
    gap = 0.5 * (math.log(0.5) + 2 * (1 + (x / 2 - m) ** 2) - 1)
    low, high = n["q2_low"], 2 - n["q2_low"]
    both, spread = math.log(low) + math.log(high), (1 - low) ** 2
    D, K, product = n["q3_D"], n["q3_K"], n["q3_product"]
    regret = {
        image: lambda k, d=n[f"q4_d{image}"], v=n[f"q4_v{image}"]: (
            d**2 / (2 * v) * (1 - (1 - n["q4_eta"] / v) ** (2 * k) if k else 1)
        )
        for image in "AB"
    }
    a, b = n["q5_a"], n["q5_b"]
    c, s = 2 * (a + b), 2 * a
    root = math.sqrt(0.5)
    first, second = (2 * a + 2 * b) * root, 2 * a * root
    v, mean, w = n["q6_v"], n["q6_m"], n["q6_w"]
    kernels = [n[f"q7_k{k}"] for k in (1, 2, 3, 4)]
    density, without = sum(kernels) / 4, [(sum(kernels) - k) / 3 for k in kernels]
    influence = [math.log(density / other) for other in without]
    found, N, rank = n["q7_m"], n["q7_N"], n["q7_rank"]
    plain, crossed = n["q8_10"] - n["q8_00"], n["q8_11"] - n["q8_01"]
    sign = crossed - plain
    exact = {
        **n, "q1_mean": x / 2, "q2_high": high, "q2_variance": spread,
        "q2_rule_one": -spread / 2, "q2_rule_two": -spread / 4, "q3_twice": 2 * K, "q3_enough": K + 1,
        "q3_half": D / 2, "q3_beta": product**2, "q5_c": c, "q5_s": s, "q5_squares": 2 * (a**2 + b**2),
        "q6_best": w + mean**2, "q7_NN": 2 * N, "q7_shift": (found + 1) / 2, "q7_natives": N - found,
        "q8_without": plain, "q8_with": crossed, "q8_main": (plain + crossed) / 2, "q8_interaction": sign,
        "q8_sigmas": abs(sign),
        "q4_step": next(k for k in range(1, 100_000) if regret["B"](k) > regret["A"](k)),
    }  # fmt: skip
    rounded = {
        "q1_evidence": evidence, "q1_gap": gap, "q1_elbo": evidence - gap, "q2_one": both / 2, "q2_two": both / 4,
        "q3_alpha": product ** (1 / K),
        "q3_logdet": D * math.log(product), "q4_A1": regret["A"](1), "q4_B1": regret["B"](1),
        "q4_Ainf": regret["A"](0), "q4_Binf": regret["B"](0), "q5_peak": math.hypot(c, s),
        "q5_diagonal": first + second, "q5_first": first, "q5_second": second, "q5_first2": 2 * first,
        "q5_second2": 2 * second, "q5_spread": abs(first - second),
        "q6_kl": 0.5 * (math.log(v / w) - 1 + (w + mean**2) / v),
        "q6_reverse": 0.5 * (math.log(w / v) - 1 + (v + mean**2) / w),
        "q7_density": density, **{f"q7_w{k}": without[k - 1] for k in (1, 2, 3)},
        "q7_recall": (N + 1 - rank) / N, "q7_auc": 1 - (rank - (found + 1) / 2) / (N - found),
    }  # fmt: skip
    texts = {key: f"{value:.10g}" for key, value in exact.items()} | {k: f"{v:.3f}" for k, v in rounded.items()}
    texts |= {f"q7_i{k}": f"{influence[k - 1]:+.3f}" for k in (1, 2, 3)}
    texts["q7_most"] = f"{1 - (found - 1) / (2 * N):.4f}"
    return texts | {"q7_verdict": verdict(influence), **judged(sign)}


def verdict(influence: list[float]) -> str:
    """Which of the first three points are proponents, in words."""
    said = []
    for name, sign in (("a proponent", 1), ("an opponent", -1)):
        words = [f"the {word}" for word, value in zip(WORDS, influence, strict=False) if value * sign > 0]
        if words:
            verb = "is" if len(words) == 1 else "are each"
            said.append(f"{' and '.join(words)} {verb} {name}")
    reason = ", since by normalisation it took probability away" * (len(said) == 2)
    return f"{'; '.join(said)}{reason}.".capitalize()


def judged(sign: float) -> dict[str, str]:
    """What question 8 says of an interaction of this size and sign."""
    border = "on the border" if abs(sign) == 2 else "clear, by this rule" if abs(sign) > 2 else "not clear"
    mechanism = (
        "For example: consistency pulls the two guesses together and away from their posteriors; a flow carries the "
        "draws back, so that with a fixed decoder agreement takes less when it is on."
        if sign > 0
        else "For example: with the cost on, fewer latents are in use and posteriors are simpler, so that the flow has "
        "little left to bend, while its noise stays."
    )
    return {"q8_verdict": border, "q8_mechanism": mechanism}


def paper(title: str, numbers: Numbers, *, solutions: bool = True) -> str:
    """The exam in MyST Markdown."""
    text = fill(TEXT, {"title": title, **solved(numbers)}).replace("--", "-")
    text = re.sub(r"(?<=\|) -(?=\d)", " −", text)  # a true minus in tables
    return text if solutions else SOLUTION.sub("", text)


def variant(seed: str) -> Numbers:
    """The numbers of the exam that belongs to a lecturer's seed."""
    return drawn(stream(seed, "exam"))


FRONT = """---
myst:
  html_meta:
    description: A practice exam of two hours over all seven chapters, with worked solutions and marks for each step.
---

"""
NOTE = """This paper is for practice. The exam itself asks the same with other numbers, which `make teach` draws from
the lecturer's seed.

"""
PAGE = ROOT / "book" / "teach" / "exam.md"


def page() -> str:
    """The practice paper as the book shows it."""
    title, _, rest = paper("A practice exam", PRACTICE).partition("\n\n")
    return f"{FRONT}{title}\n\n{NOTE}{rest}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
