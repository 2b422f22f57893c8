"""Muon for processors without instructions for bfloat16.

torch's own iterates in bfloat16 whatever the machine: emulated, that took longer than all else of
a step together.
"""

import torch
from torch import Tensor
from torch.optim import Muon


class SingleMuon(Muon):
    """torch's Muon, state and groups included, with its iteration in float32.

    Of its options ``adjust_lr_fn`` is "original".
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply the gradients; nothing is evaluated again, so there is no ``closure``."""
        for group in self.param_groups:
            parameters: list[Tensor] = []
            gradients: list[Tensor] = []
            means: list[Tensor] = []
            self._init_group(group, parameters, gradients, means)
            for parameter, gradient, mean in zip(parameters, gradients, means, strict=True):
                mean.lerp_(gradient, 1 - group["momentum"])
                ahead = gradient.lerp(mean, group["momentum"]) if group["nesterov"] else mean
                rows, columns = parameter.shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(
                    orthogonalised(
                        ahead, group["ns_coefficients"], steps=group["ns_steps"], eps=group["eps"]
                    ),
                    alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5,
                )


def orthogonalised(
    matrix: Tensor, coefficients: tuple[float, float, float], *, steps: int, eps: float
) -> Tensor:
    """The matrix with singular values of about 1, by Newton-Schulz iterations in its own type.

    With X of Frobenius norm 1 or less: X <- a X + (b X X' + c (X X')^2) X, from
    https://kellerjordan.github.io/posts/muon/.

    Args:
        matrix: [rows, columns], sharded or not.
        coefficients: a, b and c.
        steps: iterations.
        eps: least norm that the matrix is divided by.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
