r"""TracIn: how much each training image has helped or hurt the model's view of a test image.

A step of gradient ascent on the objective $o$ at a training image $x$, of size $\eta$, changes what the objective says
of another image $z$ by $\eta\, \nabla_\theta o(x) \cdot \nabla_\theta o(z)$, to first order. TracIn adds this up along
the training run, at the checkpoints that were kept of it.
"""

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from torch import Tensor, nn

from vaekit import checks
from vaekit.influence.asked import Checkpoint, Objective, Options
from vaekit.influence.run import Run


class Strongest(NamedTuple):
    """For each of N test images the k training images at either end of its column of scores, strongest first.

    Attributes:
        proponents: Indices of the largest scores, `[N, k]`: without these images the test image would fare worse.
        proponent_scores: Their scores `[N, k]`, falling.
        opponents: Indices of the smallest (most negative) scores, `[N, k]`.
        opponent_scores: Their scores `[N, k]`, rising.
    """

    proponents: Tensor
    proponent_scores: Tensor
    opponents: Tensor
    opponent_scores: Tensor


def tracin(
    model: nn.Module, objective: Objective, checkpoints: Sequence[Checkpoint], train: Tensor, test: Tensor,
    **options: Unpack[Options],
) -> Tensor:  # fmt: skip
    r"""TracIn scores of M training images for N test images.

    $$\operatorname{TracIn}(x_i, z_j) = \sum_c \eta_c \,
      \nabla_\theta \bar o(x_i; \theta_c) \cdot \nabla_\theta \bar o(z_j; \theta_c), \qquad
      \bar o(x; \theta) = \mathbb E_\epsilon\, o(x; \theta, \epsilon).$$

    A VAE's objective is itself random: it draws noise $\epsilon$. Gradients are averaged over `samples` draws, in each
    of which all images see the same noise. The inner product of two averages over the *same* draws is biased, by
    $\operatorname{tr}\operatorname{Cov}_\epsilon(\nabla o) / S$ where $x_i = z_j$; so the draws are split into two
    independent halves, and the score is the mean of $g_1(x) \cdot g_2(z)$ and $g_2(x) \cdot g_1(z)$: unbiased and
    symmetric.

    The weight matrices of linear and convolutional layers go through factors of their gradients, which are never
    formed where that costs more; other parameters, and objectives for which factors are not exact, through `torch.func`
    or, at the last, one image at a time. Which of these is sound is tested at every call, in double precision, at every
    checkpoint and on random images: no parameter is left out.

    An objective that looks at the batch as a whole (a total correlation, batch normalisation without running
    statistics) has no gradient for one image and is refused; so is one whose noise is not torch's.

    Args:
        model: The model; it is copied, and left as it is.
        objective: `(model, x) -> [B]`, in nats: the one that was trained. Weights that `fit` had scheduled are given by
            `functools.partial(objective, beta=4.0)`, say. Parameters of its own count too, wherever it keeps them; only
            modules that it finds by a global name are refused.
        checkpoints: Files that `fit` wrote, or dictionaries with `model` and `objective` (state dictionaries) and `lr`.
        train: Training images `[M, *image]`, on any device.
        test: Test images `[N, *image]`.
        **options: `samples` (16): S, draws of the noise, at least 1.
            `unbiased` (true): independent halves; else the inner product of plain averages, a positive semi-definite
            kernel, and the exact score of the objective averaged over these S draws.
            `layers` (all): names of submodules, such as `["decoder"]`, or of parameters; `objective` for those of an
            objective that has some. A weight that several layers share counts whole if one of them is named.
            `path` (`auto`): `layers`, `general`, `forward` (forward mode, for few test images) or `loop`; all agree.
            `chunk`: images at once; by default as many as take about 256 MB.
            `seed` (0): of the noise. `progress` (false): show a bar.
            `resume`: a file from which a run that was stopped goes on, and which keeps the result of one that was not.

    Returns:
        `[M, N]`, on the model's device. With the learning rate $\eta$ and a batch of B images, dividing by B gives nats
        for one visit of $x_i$ per checkpoint.

    Raises:
        ValueError: Bad images, checkpoints, options or objective; `resume` holds scores of something else.
        OSError: `resume` cannot be written.
        FloatingPointError: A gradient is NaN or infinite.

    References:
        Pruthi et al., "Estimating Training Data Influence by Tracing Gradient Descent", NeurIPS 2020, section 3,
        https://arxiv.org/abs/2002.08484;
        Kong & Chaudhuri, "Understanding Instance-based Interpretability of Variational Auto-Encoders", NeurIPS 2021,
        https://arxiv.org/abs/2105.14203.

    Example:
        >>> from vaekit import VAE, elbo, mlp, tracin
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> last = {"model": model.state_dict(), "lr": 0.1}
        >>> tracin(model, elbo, [last], torch.rand(5, 1, 8, 8), torch.rand(3, 1, 8, 8), samples=2).shape
        torch.Size([5, 3])
    """
    checks.images(test, name="test")
    run = Run(model, objective, checkpoints, train, test, **options)
    return torch.cat(run.blocks("scores", lambda block: block), dim=1)


def self_influence(
    model: nn.Module, objective: Objective, checkpoints: Sequence[Checkpoint], train: Tensor,
    **options: Unpack[Options],
) -> Tensor:  # fmt: skip
    r"""TracIn scores of M training images for themselves: the diagonal of `tracin(..., train, train)`.

    $\sum_c \eta_c \lVert \nabla_\theta \bar o(x_i; \theta_c) \rVert^2$, large where the model has had to make room for
    one image. The unbiased estimate may fall below 0 where the noise is larger than the gradient.

    Args, errors and references as for `tracin`.

    Returns:
        `[M]`, on the model's device.
    """
    return Run(model, objective, checkpoints, train, None, **options).blocks("self-influence", lambda block: block)[0]


def strongest(
    model: nn.Module, objective: Objective, checkpoints: Sequence[Checkpoint], train: Tensor, test: Tensor,
    *, k: int = 10, **options: Unpack[Options],
) -> Strongest:  # fmt: skip
    """The k strongest proponents and opponents of each test image, without the whole matrix of scores in memory.

    Args:
        model: This and what follows as for `tracin`.
        objective: See `tracin`.
        checkpoints: See `tracin`.
        train: See `tracin`.
        test: See `tracin`.
        k: How many of each, from 1 to the number of training images.
        **options: See `tracin`.

    Raises:
        ValueError: As for `tracin`, or `k` is out of range.
    """
    checks.count(k, 1, "k")
    checks.images(train, name="train")
    checks.images(test, name="test")
    if k > len(train):
        raise ValueError(f"k: expected at most the number of training images, {len(train)}, got {k}")

    def ends(block: Tensor) -> tuple[Tensor, ...]:  # [M, n]
        top, bottom = block.topk(k, dim=0), block.topk(k, dim=0, largest=False)
        return tuple(values.T for values in (top.indices, top.values, bottom.indices, bottom.values))

    pieces = Run(model, objective, checkpoints, train, test, **options).blocks(f"strongest {k}", ends)
    return Strongest(*(torch.cat(column) for column in zip(*pieces, strict=True)))
