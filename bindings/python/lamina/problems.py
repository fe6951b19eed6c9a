"""Problems as text, what they cost, and what the library would run for them."""

from dataclasses import dataclass
from typing import Any

from . import _lamina
from ._lamina import Context


def describe(desc: str, /, **fields: Any) -> str:
    """The descriptor's text `desc` with `fields` added or replaced; None takes the default.

    describe("conv2d", ih=56, iw=56, ic=64, oc=64, activation="relu6"); field names are those of include/lamina.
    """
    operator, *words = desc.split()
    kept = [word for word in words if word.split("=")[0] not in fields]
    return " ".join([operator, *kept, *(f"{n}={_word(v)}" for n, v in fields.items() if v is not None)])


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


@dataclass(frozen=True)
class Cost:
    """What a problem costs, whatever kernel runs it (include/lamina/cost.h says how it is counted)."""
    macs: int
    transcendentals: int
    params: int
    weight_bytes: int
    activation_bytes: int

    @property
    def flops(self) -> int:
        """2 * macs."""
        return 2 * self.macs

    @property
    def bytes(self) -> int:
        """What must move at least: weights and inputs read once, outputs written once."""
        return self.weight_bytes + self.activation_bytes

    @property
    def arithmetic_intensity(self) -> float:
        """flops per byte that must move."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Candidate:
    """One implementation's answer to one problem."""
    name: str
    refusal: str | None  # the reason, or None when it accepts
    predicted_ns: float  # on one thread, when it accepts
    accuracy: str  # whose bound it keeps: "strict", "default" or "reduced"


def cost(desc: str, /, **fields: Any) -> Cost:
    """What a problem costs. Raises InvalidArgument for a problem that is none."""
    return Cost(*_lamina.cost_of(describe(desc, **fields)))


def candidates(desc: str, /, context: Context | None = None, **fields: Any) -> list[Candidate]:
    """Every candidate of the context's backend, in the order of preference. Prepares nothing."""
    return [Candidate(*c) for c in _lamina.candidates_of(describe(desc, **fields), context or Context())]


def explain(desc: str, /, context: Context | None = None, **fields: Any) -> str:
    """Every candidate with its predicted time or the reason of its refusal, a line each; * is what would run."""
    found = candidates(desc, context, **fields)
    best = min((c for c in found if c.refusal is None), key=lambda c: c.predicted_ns, default=None)
    return "\n".join(f"{'*' if c is best else ' '} {c.name:36}" +
                     (f"refused: {c.refusal}" if c.refusal else f"predicted {c.predicted_ns * 1e-3:.3g} us")
                     for c in found)
