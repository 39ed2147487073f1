"""A space's points as MetaSchedule traces, and back: one sampled category a knob, each written on the root block.

The hand-built functions of a space are no sequence of schedule primitives. So the trace of a point only names it, on
the canonical function; whoever builds it reads the decisions from the root block and asks the space for the function.
"""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import s_tir
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.schedule import Trace

from edgenext_tvm.schedules.space import Decisions, Space

FAMILY = "enx.family"
KNOB = "enx.knob."
ROOT = "root"


def design_space(space: Space) -> ms.space_generator.ScheduleFn:
    """Return the generator of one design space, whose sampled decisions stand at the hand-picked point."""

    def sample(sch: s_tir.Schedule) -> None:
        root = sch.get_sblock(ROOT)
        sch.annotate(root, FAMILY, space.family)
        for knob in space.knobs:
            size = len(knob.values)
            value = sch.sample_categorical(list(knob.values), [1 / size] * size, knob.values.index(knob.default))
            sch.annotate(root, KNOB + knob.name, value)

    return ms.space_generator.ScheduleFn(sample, sch_rules=[], postprocs=[], mutator_probs={})


def at_point(schedule: s_tir.Schedule, space: Space, decisions: Decisions) -> s_tir.Schedule:
    """Return the design space `schedule` with the sampled decisions of `decisions`, a point of `space`."""
    space.check(decisions)
    values = {knob.name: knob.values for knob in space.knobs}
    trace = schedule.trace
    # with_decision keeps the instructions, so that those of the first trace name those of every later one
    samples = [inst for inst in trace.insts if inst.kind.name == "SampleCategorical"]
    for knob, inst in zip(space.knobs, samples, strict=True):
        trace = trace.with_decision(inst, values[knob.name].index(decisions[knob.name]), remove_postproc=False)
    return replay(trace, schedule.mod)


def replay(trace: Trace, mod: tvm.IRModule) -> s_tir.Schedule:
    """Return `trace` applied to the canonical function of `mod`, whatever `mod`'s annotations are."""
    sch = s_tir.Schedule(mod)
    root = sch.get_sblock(ROOT)
    for key in sch.get(root).annotations:
        sch.unannotate(root, key)
    fresh = s_tir.Schedule(sch.mod)
    trace.apply_to_schedule(fresh, remove_postproc=False)
    return fresh


def point_of(sch: s_tir.Schedule) -> tuple[str, dict[str, int]]:
    """Return family and decisions that stand on the root block; the family is empty if none does."""
    annotations: Mapping = sch.get(sch.get_sblock(ROOT)).annotations
    decisions = {key.removeprefix(KNOB): int(value) for key, value in annotations.items() if key.startswith(KNOB)}
    return str(annotations.get(FAMILY, "")), decisions
