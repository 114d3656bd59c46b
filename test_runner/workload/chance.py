"""The only source of randomness, so that a seed says everything."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """Random decisions that follow from a seed and a path of names.

    Each step of a workload has a source of its own (``fork``): whatever one step draws, the next
    one's draws stay the same, so a run that is cut short or goes a little differently (a busy
    machine, another PostgreSQL) stays close to the one that is replayed.
    """

    def __init__(self, seed: int, *path: object) -> None:
        self._seed = seed
        self._path = path
        # Python makes a number of a text the same way in every process; of a tuple it does not.
        self._random = random.Random("/".join(map(str, (seed, *path))))

    def fork(self, *path: object) -> "Chance":
        """An independent source."""
        return Chance(self._seed, *self._path, *path)

    def often(self, probability: float) -> bool:
        """Whether something that happens so often happens now."""
        return self._random.random() < probability

    def between(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high``, both included."""
        return self._random.randint(low, high)

    def skewed(self, low: int, high: int) -> int:
        """The same, and small ones are more likely: all orders of magnitude have their turn."""
        top = self._random.uniform(0, 1) ** 3
        return low + round((high - low) * top)

    def pick(self, things: Sequence[T]) -> T:
        """One of them."""
        return things[self._random.randrange(len(things))]

    def weighted(self, things: Sequence[T], weights: Sequence[float]) -> T:
        """One of them; the weights say how often which."""
        return self._random.choices(things, weights)[0]

    def some(self, things: Sequence[T], count: int) -> list[T]:
        """So many of them, or all if there are fewer, in their order."""
        count = min(count, len(things))
        chosen = sorted(self._random.sample(range(len(things)), count))
        return [things[n] for n in chosen]
