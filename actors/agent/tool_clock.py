"""How long an episode's cells ran, and how much of that they only waited for tools. Pure.

The wait for a tool that is slow is ours, all else of a cell's time is the policy's. Only the time
counts in which one call was under way and nothing else, as it is when a cell calls a tool and waits
for it. A cell that calls tools beside other work, in threads, spends its time as it pleases, and
nothing of it counts as waiting. So the waits are never more than the time of the cells.
"""


class ToolClock:
    """Follows the cells and tool calls of one episode; times are seconds on any rising clock."""

    def __init__(self) -> None:
        """Start without cells; ``ended_waiting``: the last cell only waited when it ended."""
        self._cells_s = self._waits_s = 0.0
        self._cell: float | None = None
        self._calls: set[int] = set()
        self._number = 0
        self._since = self._waited = 0.0
        self._beside = False
        self.ended_waiting = False

    def begin_cell(self, now: float) -> None:
        """A cell starts; calls that are left over from an earlier one are not its own."""
        self._cell, self._waited, self._beside = now, 0.0, False

    def end_cell(self, now: float, *, by_itself: bool) -> None:
        """The cell ended.

        Args:
            now: the time.
            by_itself: it was not interrupted; a call that is still under way then runs beside it.
        """
        if by_itself and self._calls:
            self._beside = True
        self.ended_waiting = bool(self._calls) and not self._beside
        self._cells_s, self._waits_s = self.cells_s(now), self.waits_s(now)
        self._cell = None
        self._calls.clear()

    def begin_call(self, now: float, *, alone: bool = True) -> int:
        """A tool is called; its number for ``end_call``.

        Args:
            now: the time.
            alone: the notebook says that its cell itself called, and so does nothing else.
        """
        self._number += 1
        if self._cell is not None:
            self._beside = self._beside or not alone or bool(self._calls)
            self._calls.add(self._number)
            self._since = now
        return self._number

    def end_call(self, number: int, now: float) -> None:
        """The call was answered."""
        if number in self._calls:
            self._calls.remove(number)
            self._waited += now - self._since

    def cells_s(self, now: float) -> float:
        """Wall time of all cells, the running one included."""
        return self._cells_s + (0.0 if self._cell is None else now - self._cell)

    def waits_s(self, now: float) -> float:
        """How much of it was nothing but waiting for tools."""
        if self._cell is None or self._beside:
            return self._waits_s
        under_way = now - self._since if self._calls else 0.0
        return self._waits_s + self._waited + under_way
