#!/bin/sh
# Start Flower with its login, on the hub's Redis.
set -eu
FLOWER_BASIC_AUTH="admin:$(cat /run/secrets/flower)"
CELERY_BROKER_URL="redis://flower:$(cat /run/secrets/redis-flower)@redis:6379/0"
export FLOWER_BASIC_AUTH CELERY_BROKER_URL
exec celery flower --address=0.0.0.0 --port=5555 --persistent=False --purge_offline_workers=300
