"""What became of the attempts of a campaign, as a table."""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum


class End(Enum):
    """How an attempt ended."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    UNEXPECTED = "unexpected"
    HANG = "hang"
    DIED = "died"


@dataclass(frozen=True)
class Attempt:
    """One input, kill or attack.

    Attributes:
        group: its row of the table, such as the name of a reader.
        end: how it ended.
        what: the error, or what was wrong.
        memory: bytes at the peak beyond those before it.
        seconds: it took.
        input: how to make it again.
    """

    group: str
    end: End
    what: str = ""
    memory: int = 0
    seconds: float = 0.0
    input: str = ""


@dataclass
class Report:
    """Attempts so far.

    Attributes:
        most_memory: bytes that an attempt may take before it counts as a fault.
        half_written: files that were found and should not be there.
    """

    most_memory: int = 1 << 30
    attempts: list[Attempt] = field(default_factory=list)
    half_written: list[str] = field(default_factory=list)

    def add(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    @property
    def faults(self) -> list[Attempt]:
        """Attempts that ended as none should."""
        return [
            attempt
            for attempt in self.attempts
            if attempt.end not in (End.REFUSED, End.ACCEPTED) or attempt.memory > self.most_memory
        ]

    @property
    def sound(self) -> bool:
        return not self.faults and not self.half_written

    def table(self) -> str:
        """Markdown: a row per group, then the faults."""
        ends = [*End]
        lines = [
            f"| | tried | {' | '.join(end.value for end in ends)} | slowest, s | most memory, MB |",
            f"|---|{'---|' * (len(ends) + 3)}",
        ]
        groups = list(dict.fromkeys(attempt.group for attempt in self.attempts))
        for group in [*groups, None]:
            rows = [a for a in self.attempts if group is None or a.group == group]
            counts = Counter(attempt.end for attempt in rows)
            slowest = max((attempt.seconds for attempt in rows), default=0.0)
            most = max((attempt.memory for attempt in rows), default=0)
            numbers = " | ".join(str(counts[end]) for end in ends)
            lines.append(
                f"| {group or 'all'} | {len(rows)} | {numbers} | {slowest:.1f} | {most / 1e6:.0f} |"
            )
        lines += ["", f"half-written files: {len(self.half_written)}", *self.half_written]
        lines += [
            f"FAULT {a.group}: {a.end.value}, {a.memory / 1e6:.0f} MB, {a.what} [{a.input}]"
            for a in self.faults[:50]
        ]
        return "\n".join(lines)
