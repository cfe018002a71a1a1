"""The rows of the table of faults: number → what is done to the daemons."""

from collections.abc import Awaitable, Callable, Mapping

from tests.faults import group_rows
from tests.faults.trial import Rig, RowResult

Row = Callable[[Rig], Awaitable[RowResult]]

ROWS: Mapping[int, Row] = {
    1: group_rows.join,
    2: group_rows.leave,
    3: group_rows.die,
    4: group_rows.return_from_the_dead,
    5: group_rows.fail_over,
    6: group_rows.zombie,
    7: group_rows.storm,
    8: group_rows.roll,
    9: group_rows.two_of_one_name,
    10: group_rows.kill_at_points,
    20: group_rows.lose_the_folder,
    23: group_rows.terminate_under_load,
}
