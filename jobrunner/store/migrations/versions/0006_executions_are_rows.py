"""An attempt has a row for each process that told of it: what one of them says does not hide what another one did."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_KEY = ["task_id", "delivery", "retries"]
_attempt = sa.table(
    "attempt",
    *(sa.column(name, sa.String) for name in ("task_id", "process", "source", "worker", "outcome")),
    *(sa.column(name, sa.Integer) for name in ("delivery", "retries", "rank", "standing", "pid")),
)
_SOURCE = 36
#: What `rank` said of attempts that have not ended, and outcomes, as `Standing` has them.
_OPEN = {2: 4, 3: 8}
_ENDED = {"lost": 1, "retried": 5, "revoked": 6, "failed": 7, "succeeded": 9}


def upgrade() -> None:
    """Widen the key by the process, and say how much each row tells."""
    op.drop_index("ix_attempt_open", "attempt")
    op.add_column("attempt", sa.Column("process", sa.String(255), nullable=False, server_default=""))
    op.add_column("attempt", sa.Column("standing", sa.Integer, nullable=False, server_default="0"))
    op.execute(
        sa.update(_attempt).values(
            process=sa.func.coalesce(_attempt.c.source, _attempt.c.worker, ""),
            standing=sa.case(
                *((_attempt.c.outcome == word, standing) for word, standing in _ENDED.items()),
                *((_attempt.c.rank == rank, standing) for rank, standing in _OPEN.items()),
                else_=0,
            ),
        )
    )
    with op.batch_alter_table("attempt") as attempt:
        attempt.drop_constraint("pk_attempt", type_="primary")
        attempt.create_primary_key("pk_attempt", [*_KEY, "process"])
        attempt.drop_column("source")
        attempt.drop_column("rank")
        attempt.alter_column("process", server_default=None)
        attempt.alter_column("standing", server_default=None)
    _index_open("standing IN (4, 8)")
    foreign = sa.text("standing = 0 AND outcome IS NOT NULL")
    op.create_index("ix_attempt_foreign", "attempt", ["task_id"], sqlite_where=foreign, postgresql_where=foreign)


def downgrade() -> None:
    """Keep of each attempt the row that says most."""
    op.drop_index("ix_attempt_foreign", "attempt")
    op.drop_index("ix_attempt_open", "attempt")
    op.add_column("attempt", sa.Column("source", sa.String(_SOURCE)))
    op.add_column("attempt", sa.Column("rank", sa.Integer, nullable=False, server_default="0"))
    other = _attempt.alias("other")
    same = sa.and_(*(other.c[name] == _attempt.c[name] for name in _KEY))
    stronger = (other.c.standing > _attempt.c.standing) | (
        (other.c.standing == _attempt.c.standing) & (other.c.process > _attempt.c.process)
    )
    op.execute(sa.delete(_attempt).where(sa.exists().where(same, stronger)))
    rank = {standing: rank for rank, standing in _OPEN.items()}
    op.execute(
        sa.update(_attempt).values(
            source=sa.case((sa.func.length(_attempt.c.process) <= _SOURCE, sa.func.nullif(_attempt.c.process, ""))),
            rank=sa.case(
                (_attempt.c.outcome.is_not(None), 5),
                *((_attempt.c.standing == standing, number) for standing, number in rank.items()),
                else_=0,
            ),
        )
    )
    with op.batch_alter_table("attempt") as attempt:
        attempt.drop_constraint("pk_attempt", type_="primary")
        attempt.create_primary_key("pk_attempt", _KEY)
        attempt.drop_column("process")
        attempt.drop_column("standing")
        attempt.alter_column("rank", server_default=None)
    _index_open("outcome IS NULL")


def _index_open(condition: str) -> None:
    where = sa.text(condition)
    op.create_index("ix_attempt_open", "attempt", ["worker"], sqlite_where=where, postgresql_where=where)
