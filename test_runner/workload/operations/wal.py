"""The log itself: segments, long records, checkpoints."""

from ..chance import Chance
from ..line import Line
from .base import Operation, keeps_rows


class SwitchSegment(Operation):
    """The rest of a segment left empty."""

    weight = 0.6

    def run(self, line: Line, chance: Chance) -> None:
        line.watch.run("select pg_switch_wal()::text")


class Message(Operation):
    """Records of any length, now and then longer than a segment: continued over many pages."""

    weight = 2

    def run(self, line: Line, chance: Chance) -> None:
        if chance.often(0.02):
            size = chance.between(16 << 20, 18 << 20)
        elif chance.often(0.2):
            size = chance.between(60_000, 300_000)
        else:
            size = chance.skewed(0, 20_000)
        session = line.pick_session(chance)
        transactional = "true" if chance.often(0.5) else "false"
        line.change(
            session,
            f"select pg_logical_emit_message({transactional}, 'x', repeat('y', {size}))::text",
            keeps_rows,
        )


class Checkpoint(Operation):
    """Pages written, prepared transactions into files; full images of what changes next."""

    weight = 1.5

    def run(self, line: Line, chance: Chance) -> None:
        line.watch.run("checkpoint")


OPERATIONS: list[Operation] = [SwitchSegment(), Message(), Checkpoint()]
