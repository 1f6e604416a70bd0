"""A Gaussian process over settings and scales: what every result, at whatever scale, says of full scale.

The value of a setting x at a scale s is modelled as `level(s) + f(x, s)`: scales differ in level, which says
nothing of the settings, and in the settings' order, the less the closer two scales are. Matérn 5/2 over the
settings with a length for each parameter (Rasmussen and Williams 2006, chapters 2 and 5), times an
exponential kernel over the logarithm of the scale, as in Fabolas (Klein et al. 2017, arXiv 1605.07079), which
has a kernel of data size in the same place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The middle and the width (of the logarithms) of what is taken for likely before anything is measured: the
# length of a parameter in units of its range, the variance of f, the steps of scale (of a factor of three)
# over which f stays alike, the variance of the level, and that of the noise.
LENGTH, VARIANCE, REACH, LEVEL, NOISE = (0.7, 1.0), (1.0, 1.0), (6.0, 1.0), (0.5, 1.0), (0.05, 1.5)
LENGTH_BOUNDS, OTHER_BOUNDS = (0.03, 20.0), ((7e-3, 50.0), (0.4, 400.0), (3e-3, 20.0), (1e-4, 4.0))
# Levels change slowly with the scale, whatever the settings do.
LEVEL_REACH = 6.0
STEPS = 25
JITTER = 1e-6
ROOT = np.sqrt(5.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Posterior:
    """What is known after some results.

    Attributes:
        parameters: logarithms of the lengths (one a group), variance, reach, level variance and noise.
        groups: for each feature, the group whose length it has.
        points: features of the results, (n, d).
        scales: their scales as powers of three, (n,); 0 is full scale.
        mean: of the values.
        factor: the Cholesky factor of the results' covariance, (n, n).
        weights: that covariance's inverse times the centred values, (n,).
    """

    parameters: Floats
    groups: NDArray[np.int64]
    points: Floats
    scales: Floats
    mean: float
    factor: Floats
    weights: Floats

    @property
    def noise(self) -> float:
        """The variance of one result around its setting's value."""
        return float(np.exp(self.parameters[-1]))

    def predict(self, points: Floats, scale: float = 0.0) -> tuple[Floats, Floats]:
        """Return the mean (m,) and covariance (m, m) of the values of settings (m, d) at a scale."""
        from scipy.linalg import solve_triangular

        scales = np.full(len(points), scale)
        across = _kernel(self.parameters, self.groups, points, scales, self.points, self.scales)
        within = _kernel(self.parameters, self.groups, points, scales, points, scales)
        known = solve_triangular(self.factor, across.T, lower=True)
        return self.mean + across @ self.weights, within - known.T @ known

    def expect(self, points: Floats, scale: float = 0.0) -> Floats:
        """Return the mean alone, (m,), which takes no more memory than m times n numbers."""
        scales = np.full(len(points), scale)
        across = _kernel(self.parameters, self.groups, points, scales, self.points, self.scales)
        return self.mean + across @ self.weights


def fit(points: Floats, scales: Floats, values: Floats, groups: NDArray[np.int64]) -> Posterior:
    """Fit the process to results, its parameters at their most probable values.

    Args:
        points: features of the settings, (n, d), about 1 wide each.
        scales: of the results, as powers of three, (n,).
        values: of the results, (n,), larger better, about 1 wide.
        groups: for each feature the number of its group; features of one group share a length.
    """
    from scipy.linalg import cho_solve
    from scipy.optimize import minimize

    mean = float(values.mean())
    middle, width = _prior(groups)
    bounds = [LENGTH_BOUNDS] * (int(groups.max()) + 1) + list(OTHER_BOUNDS)
    found = minimize(
        _loss, middle, (points, scales, values - mean, groups, middle, width), method="L-BFGS-B", jac=True,
        bounds=np.log(bounds), options={"maxiter": STEPS},
    )  # fmt: skip
    covariance = _kernel(found.x, groups, points, scales, points, scales)
    covariance[np.diag_indices_from(covariance)] += np.exp(found.x[-1]) + JITTER
    factor = np.linalg.cholesky(covariance).astype(np.float64)
    return Posterior(
        parameters=found.x, groups=groups, points=points, scales=scales, mean=mean, factor=factor,
        weights=cho_solve((factor, True), values - mean),
    )  # fmt: skip


def _prior(groups: NDArray[np.int64]) -> tuple[Floats, Floats]:
    rows = [LENGTH] * (int(groups.max()) + 1) + [VARIANCE, REACH, LEVEL, NOISE]
    middle, width = np.array(rows).T
    return np.log(middle), width


def _kernel(
    parameters: Floats, groups: NDArray[np.int64], one: Floats, s1: Floats, two: Floats, s2: Floats
) -> Floats:
    """Return the covariance (m, n) of values at settings and scales (m) with those at others (n)."""
    lengths = np.exp(parameters[:-4])[groups]
    variance, reach, level = np.exp(parameters[-4:-1])
    distance = _distance(one / lengths, two / lengths)
    steps = np.abs(s1[:, None] - s2[None, :])
    shape = (1 + ROOT * distance + 5 / 3 * distance**2) * np.exp(-ROOT * distance)
    return np.asarray(variance * shape * np.exp(-steps / reach) + level * np.exp(-steps / LEVEL_REACH))


def _distance(one: Floats, two: Floats) -> Floats:
    squares = (one**2).sum(1)[:, None] + (two**2).sum(1)[None, :] - 2 * one @ two.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def _loss(
    parameters: Floats, points: Floats, scales: Floats, values: Floats, groups: NDArray[np.int64],
    middle: Floats, width: Floats,
) -> tuple[float, Floats]:  # fmt: skip
    """Return the negative logarithm of the parameters' probability, and its gradient (ibid., 5.9)."""
    from scipy.linalg import cho_solve

    lengths = np.exp(parameters[:-4])[groups]
    variance, reach, level, noise = np.exp(parameters[-4:])
    scaled = points / lengths
    distance = _distance(scaled, scaled)
    steps = np.abs(scales[:, None] - scales[None, :])
    decay, fading = np.exp(-ROOT * distance), np.exp(-steps / reach)
    smooth = variance * (1 + ROOT * distance + 5 / 3 * distance**2) * decay * fading
    levels = level * np.exp(-steps / LEVEL_REACH)
    covariance = smooth + levels
    covariance[np.diag_indices_from(covariance)] += noise + JITTER
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(parameters)
    inverse = cho_solve((factor, True), np.eye(len(values)))
    weights = inverse @ values
    # Half the trace of (inverse - weights weights') times the derivative of the covariance.
    pull = 0.5 * (inverse - np.outer(weights, weights))
    slope = pull * (5 / 3 * (1 + ROOT * distance) * decay * fading * variance)
    # sum_ij slope_ij (x_i - x_j)^2, without an (n, n) matrix for each feature.
    rows = slope.sum(1)
    by_feature = 2 * (rows @ scaled**2 - (scaled * (slope @ scaled)).sum(0))
    gradient = np.concatenate([
        np.bincount(groups, by_feature, minlength=int(groups.max()) + 1),
        [(pull * smooth).sum(), (pull * smooth * steps).sum() / reach, (pull * levels).sum(),
         noise * np.trace(pull)],
    ])  # fmt: skip
    loss = 0.5 * values @ weights + np.log(np.diag(factor)).sum()
    off = (parameters - middle) / width
    return float(loss + 0.5 * off @ off), gradient + off / width
