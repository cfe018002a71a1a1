"""The rows of the table of faults: number → what is done to the daemons."""

from collections.abc import Awaitable, Callable, Mapping

from tests.faults import broker_rows, group_rows, topic_rows
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
    11: broker_rows.kill_in_a_transaction,
    12: broker_rows.lose_the_broker,
    13: broker_rows.lose_the_broker_for_long,
    14: broker_rows.lose_broker_and_daemon,
    15: topic_rows.delete_unread,
    16: topic_rows.make_topic_anew,
    17: topic_rows.add_partitions,
    18: topic_rows.fall_silent,
    19: topic_rows.unplug,
    20: group_rows.lose_the_folder,
    21: topic_rows.move_offsets,
    22: topic_rows.poison,
    23: group_rows.terminate_under_load,
    25: group_rows.unfenced_zombie,
}
