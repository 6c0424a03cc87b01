#!/bin/sh
# Start Flower with its login, on the hub's Redis.
set -eu
FLOWER_BASIC_AUTH="admin:$(cat /run/secrets/flower)"
quoted() { python -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.stdin.readline().lstrip("\ufeff").strip(), safe=""))'; }
CELERY_BROKER_URL="redis://flower:$(quoted </run/secrets/redis-flower)@redis:6379/0"
export FLOWER_BASIC_AUTH CELERY_BROKER_URL
exec celery flower --address=0.0.0.0 --port=5555 --persistent=False --purge_offline_workers=300 \
  --max_tasks=5000 --max_workers=500 # the container has 512 MB; the default of 100,000 tasks takes more
