from __future__ import annotations

from typing import Annotated

from ..spectral import Edited, Whole
from .options import Option, leaves_equal_inputs_alone

MaxIter = Annotated[int, Option("most steps towards the mean", 0, metavar="n")]
Tol = Annotated[float, Option("length of a step, in radians, below which it is the last", 0)]


@leaves_equal_inputs_alone
def karcher(*models: Whole, max_iter: MaxIter = 10, tol: Tol = 1e-5) -> Edited:
    """Average several models on the sphere of directions, and their lengths apart.

    Formula: m · mean ‖x_i‖, with m the mean of u_i = x_i / ‖x_i‖ on the sphere: from the normalised
        mean, m ← exp_m(mean log_m u_i) until a step is shorter than `--tol`,
        or `--max-iter` times. A tensor counts as one
        vector; one that is zero has no direction, but its length counts.
    Exact: a single model is copied. float64 inside.
    Cost: reading and writing; for each step one inner product of each model and tensor.
    Source: Karcher 1977, "Riemannian center of mass"; of models in arXiv 2603.04972. mergekit 0.1.5
        leaves out tensors with a length of at most `tol`, and computes angles in float32, where those
        below 3e-4 are not seen.
    """
    from ..spectral.vectors import exact, mean_direction, unit

    if len(models) == 1:
        return models[0]
    pairs = [unit(exact(model)) for model in models]
    units = [direction for direction, length in pairs if length > 0]
    if not units:
        return models[0]
    mean = mean_direction(units, max_iter, tol)
    return mean * (sum(length for _, length in pairs) / len(pairs))
