"""The bootstep between the event listener and Celery: an event becomes an ordinary task of this worker's own pool.

The message is made in memory and given to the consumer's loop, so that it never passes through a Redis list, where a
killed worker loses it.
"""

from __future__ import annotations

import uuid
from typing import Any

from celery import Celery, bootsteps
from kombu import Message
from kombu.serialization import dumps, prepare_accept_content

JSON_ONLY = prepare_accept_content(["json"])


class EventStep(bootsteps.StartStopStep):
    """Connects the worker's desk to the consumer while that has Redis. Started again with every connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        app, receive = consumer.app, consumer.create_task_handler()

        def hand(lane: str, cause: str | None) -> None:
            consumer.hub.call_soon(receive, doorbell(app, app.system.queue, lane, cause))

        app.desk.attach(hand)

    def stop(self, consumer: Any) -> None:
        consumer.app.desk.detach()


class NoChannel:
    """Stands where a message's channel would be: there is nothing to acknowledge and nowhere to go back to."""

    no_ack_consumers = None

    def basic_ack(self, *_args: Any, **_options: Any) -> None: ...

    def basic_reject(self, *_args: Any, **_options: Any) -> None: ...


def doorbell(app: Celery, queue: str, lane: str, cause: str | None) -> Message:
    """The message that ``send_task`` would have put into the queue."""
    task_id = uuid.uuid4().hex
    made = app.amqp.as_task_v2(task_id, queue, kwargs={"lane": lane, "cause": cause}, ignore_result=True)
    content_type, content_encoding, body = dumps(made.body, serializer="json")
    return Message(
        body=body,
        content_type=content_type,
        content_encoding=content_encoding,
        headers=made.headers,
        properties=made.properties,
        delivery_info={"exchange": "", "routing_key": queue},
        delivery_tag=task_id,
        accept=JSON_ONLY,
        channel=NoChannel(),
    )
