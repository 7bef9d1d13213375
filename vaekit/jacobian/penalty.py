r"""The Jacobian of the decoder's mean image, by forward mode or by differences, and the L1 penalty on it.

$g(z) = \mathbb E[x \mid z]$ is the mean image. Column $i$ of its Jacobian, $\partial g / \partial z_i$, is an image
too: what changes in the picture when latent $i$ moves a little. An L1 cost on these columns asks that each latent
changes few pixels; unlike the L2 norm it tells a rotation of the latent space from none.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaekit import checks
from vaekit.model import VAE


def decoder_jacobian(model: VAE, z: Tensor) -> Tensor:
    r"""$J_{b,i} = \partial g(z_b) / \partial z_i$: how the mean image changes with each latent.

    One Jacobian-vector product a column, all side by side: the decoder runs once for $g$ and D times for the tangents.

    Args:
        model: The model; only its decoder and likelihood are used.
        z: Latents `[B, D]`.

    Returns:
        `[B, D, *image]`, in pixel units per unit of z; differentiable in the decoder's parameters and in z.

    Raises:
        ValueError: `z` is not `[B, D]`, or the decoder normalises over the batch: no image has a Jacobian of its own.

    Example:
        >>> from vaekit import VAE, mlp
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> decoder_jacobian(model, torch.zeros(5, 2)).shape
        torch.Size([5, 2, 1, 8, 8])
    """
    _check(model, z)
    basis = torch.eye(model.latent_dim, dtype=z.dtype, device=z.device)
    directions = basis[:, None].expand(-1, len(z), -1)  # [D, B, D]
    return _tangents(model, z, directions).transpose(0, 1)


def jacobian_l1(model: VAE, z: Tensor, *, columns: int | None = None, differences: float | None = None) -> Tensor:
    r"""$\|J(z_b)\|_1 = \sum_{i,p} \lvert\partial g_p(z_b) / \partial z_i\rvert$, summed over latents i and pixels p.

    With `columns=k` each example draws k of its D columns without replacement and weighs their sum by D / k: the same
    in expectation, at about k / D of the cost.

    Args:
        model: The model.
        z: Latents `[B, D]`.
        columns: k, from 1 to D; `None` for all, without noise.
        differences: A step $\varepsilon$ above 0, to take forward differences $(g(z + \varepsilon e_i) - g(z)) /
            \varepsilon$ in place of derivatives. For ReLU their gradients differ: see `JacobianL1`.

    Returns:
        `[B]`, in pixel units per unit of z.

    Raises:
        ValueError: As `decoder_jacobian`; `columns` outside 1 to D, `differences` not above 0.

    References:
        Rhodes & Lee, "Local Disentanglement in Variational Auto-Encoders Using Jacobian L1 Regularization", NeurIPS
        2021, https://arxiv.org/abs/2106.02923. The authors take forward differences of all columns, with step 1e-3.
    """
    return _norm(model, z, torch.abs, columns, differences)


def jacobian_l2(model: VAE, z: Tensor, *, columns: int | None = None, differences: float | None = None) -> Tensor:
    r"""$\|J(z_b)\|_2^2 = \sum_{i,p} (\partial g_p(z_b) / \partial z_i)^2$; arguments and errors as `jacobian_l1`.

    Unlike the L1 norm it does not change when the latent space is rotated: $\|J R\|_2 = \|J\|_2$.
    """
    return _norm(model, z, torch.square, columns, differences)


class JacobianL1(nn.Module):
    r"""Any bound less an L1 penalty on the decoder's Jacobian.

    $$\mathcal L(x) - \gamma\, \mathbb E_{q_\phi(z \mid x)} \sum_{i,p}
      \Big\lvert \frac{\partial g_p(z)}{\partial z_i} \Big\rvert,$$

    with one draw of z, detached: the penalty trains the decoder and leaves the encoder alone. It is a sum over pixels,
    so that a weight does not carry over to images of another size.

    **Kinks.** A ReLU decoder is piecewise linear in z: its derivative jumps where a unit's input $h_k(z)$ is 0. When a
    parameter $\theta$ moves, so do these boundaries, and what they sweep over changes its derivative:

    $$\nabla_\theta\, \mathbb E_z \lvert \partial_i g_p \rvert = \mathbb E_z \nabla_\theta \lvert \partial_i g_p \rvert
      + \sum_k \mathbb E_z \Big[ \delta(h_k(z))\, \nabla_\theta h_k(z)\,
      \big( \lvert \partial_i g_p \rvert_{h_k = 0^+} - \lvert \partial_i g_p \rvert_{h_k = 0^-} \big) \Big].$$

    Differentiating exact derivatives gives the first term alone. For one unit, $g(z) = \max(0, z + b)$ with
    $z \sim \mathcal N(0, 1)$, the penalty is $P(z > -b) = \Phi(b)$, its gradient in b is the density $\varphi(b)$, and
    the first term is 0. Forward differences are continuous in $\theta$, so their gradient has both terms: here
    $(\Phi(b + \varepsilon) - \Phi(b)) / \varepsilon$ on average. A small step has less bias and more noise, for a share
    $\varepsilon$ of the draws then brings $1 / \varepsilon$ each. Smooth decoders (Softplus, tanh) have no second term.

    Args:
        bound: The objective that is penalised, `(model, x, **options) -> [B]`; a module's parameters are trained too.
        weight: $\gamma$, at least 0. `fit(..., schedules={"weight": linear(0, gamma, steps)})` anneals it.
        columns: Columns drawn per image and step; `None` for all of them.
        norm: 1, or 2 for the sum of squares that the paper compares with.
        differences: The step of forward differences, such as 0.1; `None` for exact ones (chapter 4 trains with both).

    Raises:
        ValueError: `weight` below 0, `columns` outside 1 to D, `norm` neither 1 nor 2, `differences` not above 0; and
            what `bound` raises.

    References:
        Rhodes & Lee, NeurIPS 2021, https://arxiv.org/abs/2106.02923.

    Example:
        >>> from functools import partial
        >>> from vaekit import VAE, elbo, mlp
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=4), latent_dim=4)
        >>> objective = JacobianL1(partial(elbo, beta=4.0), weight=0.1, columns=2)
        >>> objective(model, torch.rand(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    def __init__(
        self, bound: Callable[..., Tensor], *, weight: float, columns: int | None = None, norm: int = 1,
        differences: float | None = None,
    ) -> None:  # fmt: skip
        """See the class."""
        super().__init__()
        checks.at_least(weight, 0, "weight")
        if norm not in (1, 2):
            raise ValueError(f"norm: expected 1 or 2, got {norm!r}")
        if columns is not None:
            checks.count(columns, 1, "columns")
        checks.function(bound, "bound")
        if differences is not None:
            checks.positive(differences, "differences")
        self.bound, self.weight, self.columns, self.norm, self.differences = bound, weight, columns, norm, differences

    def forward(self, model: VAE, x: Tensor, *, weight: float | None = None, **options: float) -> Tensor:
        """Nats per image `[B]`; `weight` in place of the one set above, `options` for the bound."""
        gamma = self.weight if weight is None else weight
        checks.at_least(gamma, 0, "weight")
        bound = self.bound(model, x, **options)
        if gamma == 0:
            return bound
        with torch.no_grad():
            z = model.posterior(x).rsample().detach()  # [B, D]; forward mode goes through no_grad, not through detach
        norm = jacobian_l1 if self.norm == 1 else jacobian_l2
        return bound - gamma * norm(model, z, columns=self.columns, differences=self.differences)


def _norm(model: VAE, z: Tensor, cost: Callable[..., Tensor], columns: int | None, step: float | None) -> Tensor:
    _check(model, z)
    if step is not None:
        checks.positive(step, "differences")
    if columns is None and step is None:
        return cost(decoder_jacobian(model, z)).flatten(1).sum(1)
    n, latent_dim = z.shape
    basis = torch.eye(latent_dim, dtype=z.dtype, device=z.device)
    if columns is None:
        columns, directions = latent_dim, basis[:, None]  # [D, 1, D]
    else:
        checks.count(columns, 1, "columns")
        if columns > latent_dim:
            raise ValueError(f"columns: expected 1 to {latent_dim} (the latent dimension), got {columns}")
        drawn = torch.rand(n, latent_dim, device=z.device).argsort(1)[:, :columns]  # [B, K], others for each image
        directions = basis[drawn].transpose(0, 1)  # [K, B, D]
    changes = _tangents(model, z, directions) if step is None else _changes(model, z, directions, step)
    return latent_dim / columns * cost(changes).flatten(2).sum((0, 2))


def _changes(model: VAE, z: Tensor, directions: Tensor, step: float) -> Tensor:
    """(g(z_b + step v) - g(z_b)) / step for directions v `[K, B, D]`: `[K, B, *image]`."""
    images = model.likelihood(torch.cat([z[None], z + step * directions])).mean  # [1 + K, B, *image]
    return (images[1:] - images[0]) / step


def _tangents(model: VAE, z: Tensor, directions: Tensor) -> Tensor:
    """J(z_b) v for directions v `[K, B, D]`: `[K, B, *image]`. The primal g(z) is shared between the K directions."""
    z = z.contiguous()  # forward mode cannot lay a tangent beside a tensor that repeats itself in memory

    def mean_image(z: Tensor) -> Tensor:
        return model.likelihood(z).mean

    def push_forward(v: Tensor) -> Tensor:
        return torch.func.jvp(mean_image, (z,), (v,))[1]

    return torch.func.vmap(push_forward, randomness="same")(directions)


def _check(model: VAE, z: Tensor) -> None:
    checks.model(model)
    fine = isinstance(z, Tensor) and z.is_floating_point() and z.ndim == 2 and z.shape[1] == model.latent_dim
    if not fine:
        raise ValueError(f"z: expected latents of shape [B, {model.latent_dim}], got {checks.described(z)}")
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.decoder.modules()):
        raise ValueError(
            "model: expected a decoder without batch normalisation, got one in training mode; an image then depends on "
            "the others' latents. Call model.eval(), or take a decoder such as `conv` or `mlp`"
        )
