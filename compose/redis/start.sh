#!/bin/sh
# Write the users, each with its own password and only the rights that it needs, and start Redis.
set -eu
# As digests: a line of the users' file is cut at each space, and a password may have any character. Editors on Windows put a
# mark before it and a carriage return after it.
password() {
  LC_ALL=C sed -n '1{s/^\xEF\xBB\xBF//;s/[[:space:]]*$//;p;}' "/run/secrets/redis-$1" | tr -d '\n' | sha256sum | cut -d ' ' -f 1
}
ordinary='~* &* +@all -@admin -@dangerous +info +role'
umask 077
cat >/tmp/users.acl <<USERS
user default off
user admin on #$(password admin) ~* &* +@all
user worker on #$(password worker) $ordinary
user flower on #$(password flower) $ordinary
user monitor on #$(password monitor) %R~* -@all +@read +@connection +info +config|get +slowlog|get +slowlog|len +latency|latest +latency|histogram +xinfo
USERS
chown redis:redis /tmp/users.acl
exec docker-entrypoint.sh redis-server --aclfile /tmp/users.acl --appendonly yes --appendfsync everysec --save '' \
  --maxmemory "${REDIS_MEMORY:-512mb}" --maxmemory-policy noeviction
