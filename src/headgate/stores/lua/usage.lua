-- Adds one process's batch of usage to a day, once: a batch that is sent again changes nothing.
--
-- KEYS   the day's hash; the hash of batches seen, in the same slot
-- ARGV   the process, its batch number, milliseconds to keep; then pairs of field and amount
-- reply  1 if it was added, 0 if it had been

local last = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if last >= tonumber(ARGV[2]) then return '0' end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
for at = 4, #ARGV, 2 do
  redis.call('HINCRBYFLOAT', KEYS[1], ARGV[at], ARGV[at + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return '1'
