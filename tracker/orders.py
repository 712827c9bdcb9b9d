"""Orders: what operators and programs ask for, taken in a turn and answered when it is so.

Some orders are done at once. Others put their job into a state that lasts until workers have taken notice or many rows
are changed; `tracker.chores` sees to those, in every turn until they are done, whoever leads.
"""

from jobrunner.errors import RefusedError
from jobrunner.order_records import Answer, Order
from jobrunner.store import tracking
from tracker.job_orders import JobOrder
from tracker.ordered import could_not
from tracker.task_orders import TaskOrder
from tracker.turn import Turn

#: Orders that one turn takes: bounds how long others wait for the database.
_ORDERS = 100


def apply_orders(turn: Turn) -> None:
    """Take what was ordered since the last turn. One that fails changes nothing, and is refused."""
    orders = tracking.new_orders(turn.connection, _ORDERS)
    if not orders:
        return
    turn.move_on()
    turn.settle()  # an order finds its job as all before it has left it
    for order in orders:
        try:
            with turn.apart() as part:
                answer = _apply(part, order)
        except RefusedError as refused:
            answer = Answer(outcome="refused", text=str(refused))
        except Exception as error:  # noqa: BLE001  whatever an odd order leads to: it must not stop the tracker
            answer = could_not(error, f"Order {order.id}")
        tracking.mark_orders(turn.connection, [order.id], turn.now)
        if answer is not None:
            tracking.answer_orders(turn.connection, {order.id: answer}, turn.now)


def _apply(turn: Turn, order: Order) -> Answer | None:
    """Carry out one order; None if it is not done yet."""
    job = tracking.jobs_by_id(turn.connection, [order.job_id]).get(order.job_id)
    if job is None:
        return Answer(outcome="not-found", text=f"There is no job {order.job_id}.")
    if order.task_id is None:
        return JobOrder(turn, order, job).apply()
    task = tracking.tasks_by_id(turn.connection, [order.task_id]).get(order.task_id)
    if task is None or task.job_id != job.id:
        return Answer(outcome="not-found", text=f"Job {job.id} has no task {order.task_id}.")
    return TaskOrder(turn, order, job, task).apply()
