"""Random expressions over two arguments, before they are brought into any form."""

from __future__ import annotations

from hypothesis import strategies as st
from vmm_arch_gen.abi import expressions
from vmm_arch_gen.abi.expressions import Argument, Expression, Number
from vmm_arch_gen.abi.integers import S32, TYPES, U32, U64, literal_type

NAMES = ("a", "b")

_LEAVES = st.one_of(
    st.sampled_from(NAMES).map(Argument),
    st.builds(lambda v: Number(v, literal_type(v) or U64), st.integers(0, (1 << 64) - 1)),
    st.sampled_from(
        [Number(0, S32), Number(1, S32), Number(-1, S32), Number(3, U32), Number(63, U64)]
    ),
)
_OPERATORS = [
    *expressions.ARITHMETIC,
    *expressions.COMPARISONS,
    *expressions.LOGICAL,
    *expressions.SHIFTS,
]

TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.just("binary"), st.sampled_from(_OPERATORS), inner, inner),
        st.tuples(st.just("unary"), st.sampled_from("-~!+"), inner),
        st.tuples(st.just("cast"), st.sampled_from(list(TYPES.values())), inner),
        st.tuples(st.just("choice"), inner, inner, inner),
    ),
    max_leaves=8,
)
"""Tuples of what makes an expression, and of its parts; ``build`` makes it."""


def build(tree: object) -> Expression:
    if not isinstance(tree, tuple):
        assert isinstance(tree, Number | Argument)
        return tree
    make, *parts = tree
    known = TYPES.values()
    built = [part if isinstance(part, str) or part in known else build(part) for part in parts]
    value: Expression = getattr(expressions, make)(*built)
    return value
