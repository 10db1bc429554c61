"""The rules of fusion: which operations may be members of a group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from irgrad.errors import PassError, did_you_mean
from irgrad.graph import Node
from irgrad.passes.fusion import locality
from irgrad.passes.fusion.members import Member, NotFusible, elementwise

__all__ = ["RULES", "FusionRule", "RuleTable"]


@dataclass(frozen=True)
class FusionRule:
    """Operations that can be members of a group.

    Attributes:
        name: what the rule is called, to switch it off.
        ops: the qualified names of the operations.
        member: tells how a node runs over its space; raises `NotFusible`, with a reason, where it cannot be a member.
    """

    name: str
    ops: frozenset[str]
    member: Callable[[Node], Member]


def _rule(name: str, ops: str, member: Callable[[Node], Member]) -> FusionRule:
    return FusionRule(name, frozenset(ops.split()), member)


RULES: tuple[FusionRule, ...] = (
    _rule(
        "map",
        "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Celu "
        "Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu "
        "Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign "
        "Sin Sinh Softplus Softsign Sqrt Sub Sum SwiGLU Swish Tan Tanh ThresholdedRelu Where Xor",
        elementwise,
    ),
    _rule("map", "Squeeze Unsqueeze", locality.unsqueeze),
    _rule("rows", "LogSoftmax LpNormalization Softmax irgrad.SoftmaxGrad", locality.one_axis()),
    _rule("rows", "LayerNormalization RMSNormalization", locality.layer_norm),
    _rule("rows", "irgrad.LayerNormalizationGrad", locality.layer_norm_grad),
    _rule("rows", "InstanceNormalization", locality.instance_norm),
    _rule("rows", "GroupNormalization", locality.group_norm),
    _rule("rows", "MeanVarianceNormalization", locality.mean_variance_norm),
    _rule(
        "reductions",
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare",
        locality.reduction,
    ),
    _rule("reductions", "irgrad.SumTo", locality.sum_to),
    _rule("channels", "BatchNormalization", locality.batch_norm),
    _rule("channels", "irgrad.BatchNormalizationGrad", locality.batch_norm_grad),
    _rule("losses", "SoftmaxCrossEntropyLoss", locality.cross_entropy),
    _rule("losses", "irgrad.SoftmaxCrossEntropyLossGrad", locality.cross_entropy_grad),
)
"""The rules that irgrad brings."""


class RuleTable:
    """Operation → the rule that it falls under.

    Args:
        more: further rules, which come before irgrad's own.
        skip: names of rules that are switched off.

    Raises:
        PassError: there is no rule of a name that is to be skipped.
    """

    def __init__(self, more: Sequence[FusionRule] = (), skip: Iterable[str] = ()) -> None:
        rules = (*more, *RULES)
        names = {rule.name for rule in rules}
        self._off = frozenset(skip)
        for name in sorted(self._off - names):
            raise PassError(f"there is no rule of fusion {name!r}{did_you_mean(name, names)}; there are {sorted(names)}")
        self._rules: dict[str, FusionRule] = {}
        for rule in rules:
            for op in rule.ops:
                self._rules.setdefault(op, rule)

    def rule_of(self, node: Node) -> FusionRule:
        """The rule that a node falls under.

        Raises:
            NotFusible: there is none.
        """
        rule = self._rules.get(node.op.qualified_name)
        if rule is None:
            raise NotFusible(f"no rule fuses {node.op.qualified_name}")
        if rule.name in self._off:
            raise NotFusible(f"the rule {rule.name!r} is switched off")
        return rule

    def member(self, node: Node) -> Member:
        """What a node is as a member of a group.

        Raises:
            NotFusible: it can be none.
        """
        rule = self.rule_of(node)
        if node.op.random or node.subgraphs:
            raise NotFusible(f"{node.op.qualified_name} draws random numbers or runs a graph")
        return rule.member(node)
