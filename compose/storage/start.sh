#!/bin/sh
# Start the S3 store with the one key that the workers use.
set -eu
AWS_ACCESS_KEY_ID=ratchet
AWS_SECRET_ACCESS_KEY=$(cat /run/secrets/storage)
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
exec weed mini -dir=/data -bucket=ratchet
