"""The Celery application: its settings, and the task that wakes a system from another process.

Each system has one queue and one task, both named ``System.queue``. It does not know what a worker does when it is
woken.
"""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import OperationalError

from ratchet.bus.connection import redis_url
from ratchet.errors import TransientError
from ratchet.settings import Settings
from ratchet.systems.system import System

VISIBILITY_S = 3600
"""Must be equal in all applications of a broker, since the shortest wins. A task that is delivered twice is
harmless."""


def broker_app(url: str) -> Celery:
    """A Celery application on the Redis at ``url``: JSON only, no results, no priorities, endless reconnection."""
    app = Celery("ratchet", broker=url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_create_missing_queues=True,
        task_default_delivery_mode="transient",
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_detect_quorum_queues=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # Redis refuses writes on a full disk, and takes them again later
        broker_transport_options={
            "visibility_timeout": VISIBILITY_S,
            "priority_steps": [0],
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
        event_queue_ttl=60.0,
        enable_utc=True,
        timezone="UTC",
    )
    return app


def wake(settings: Settings, system: System, lane: str | None = None, cause: str | None = None) -> None:
    """Wake one lane, or all lanes, of a system. Raises TransientError while Redis is away."""
    app = broker_app(redis_url(settings))
    try:
        app.send_task(system.queue, kwargs={"lane": lane, "cause": cause}, queue=system.queue)
    except OperationalError as error:
        raise TransientError(f"Redis is away: {error}") from error
    finally:
        app.close()
