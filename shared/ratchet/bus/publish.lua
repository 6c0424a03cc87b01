-- Adds an event to its stream, unless it has been added before: a relay may repeat itself, an event may not.
-- KEYS: the stream; the key that remembers the event.  ARGV: event id, body, length of the stream, seconds of memory.
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[4]) then
  return 0
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'id', ARGV[1], 'body', ARGV[2])
return 1
