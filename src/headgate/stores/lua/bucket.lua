-- Token buckets: the twin of policy/bucket.py, for many asks in one atomic step.
--
-- KEYS   per ask: the index of the identifier's buckets, then its buckets, all in one slot
-- ARGV   per ask, one text of numbers: cost, number of buckets, then per bucket max_requests,
--        window_ms, unit, per_tick, tick_us, full
-- reply  texts only, because a number would lose its fraction and, beyond 2^53, its digits:
--        now_us; per ask, one text: 1 or 0, then per bucket units, full_in_us, wait_us
--
-- A bucket is a hash: `tokens` for people, `units` to count with, `last_refill` in Unix seconds, and
-- until when (Unix milliseconds) the index is known to name it.
-- Everything was validated before it got here, so no command below can fail halfway.

local time = redis.call('TIME') -- time source: tests replace this line
local now = time[1] * 1000000 + time[2]

local reply = {string.format('%.0f', now)}
local at = 0 -- the last key that was used

local function next_key()
  at = at + 1
  return KEYS[at]
end

-- Whole microseconds out of seconds with six decimals, without a detour over fractions.
local function parse(seconds)
  local whole, fraction = string.match(seconds or '', '^(%d+)%.(%d%d%d%d%d%d)$')
  return whole and whole * 1000000 + fraction
end

local function show(us)
  local fraction = math.fmod(us, 1000000)
  return string.format('%.0f.%06.0f', (us - fraction) / 1000000, fraction)
end

local function wait(bucket, units)
  local missing = units - bucket.units
  if missing <= 0 then return 0 end
  local rest = math.fmod(missing, bucket.per_tick)
  local ticks = (missing - rest) / bucket.per_tick
  if rest > 0 then ticks = ticks + 1 end
  return bucket.last + ticks * bucket.tick - now
end

local function read(number)
  local requests, window = number(), number()
  local bucket = {
    key = next_key(), requests = requests, window = window * 1000,
    unit = tonumber(number()), per_tick = tonumber(number()), tick = tonumber(number()),
    full = tonumber(number()),
  }
  local stored = redis.call('HMGET', bucket.key, 'units', 'last_refill', 'indexed_until')
  local units, last = tonumber(stored[1] or ''), parse(stored[2])
  if not (units and last) then
    bucket.units, bucket.last = bucket.full, now
    return bucket
  end
  bucket.units, bucket.last, bucket.indexed = units, last, tonumber(stored[3] or '')
  local behind = last - now
  if behind > bucket.window then
    bucket.last, bucket.moved = now, true
  elseif behind <= 0 then
    local rest = math.fmod(-behind, bucket.tick)
    units = units + (-behind - rest) / bucket.tick * bucket.per_tick
    if units >= bucket.full then
      bucket.units, bucket.last = bucket.full, now
    else
      bucket.units, bucket.last = units, now - rest
    end
  end
  return bucket
end

-- The index outlives every bucket it names, and is written once in a while instead of each time.
local function name_in_index(index, bucket, lasts)
  redis.call('SADD', index, bucket.requests .. ':' .. string.format('%.0f', bucket.window / 1000))
  if redis.call('PTTL', index) < 2 * lasts then
    redis.call('PEXPIRE', index, string.format('%.0f', 2 * lasts))
  end
  bucket.indexed = math.floor(now / 1000) + 2 * lasts
end

local function write(index, bucket)
  local lasts = 2 * bucket.window / 1000
  if not bucket.indexed or bucket.indexed < now / 1000 + lasts then
    name_in_index(index, bucket, lasts)
  end
  redis.call('HSET', bucket.key, 'tokens', string.format('%.6f', bucket.units / bucket.unit),
    'units', string.format('%.0f', bucket.units), 'last_refill', show(bucket.last),
    'indexed_until', string.format('%.0f', bucket.indexed))
  redis.call('PEXPIRE', bucket.key, string.format('%.0f', lasts))
end

for _, ask in ipairs(ARGV) do
  local number = string.gmatch(ask, '%d+')
  local index, cost, count = next_key(), tonumber(number()), tonumber(number())
  local buckets, waits, allowed = {}, {}, true
  for _ = 1, count do
    local bucket = read(number)
    buckets[#buckets + 1] = bucket
    waits[#buckets] = wait(bucket, cost * bucket.unit)
    allowed = allowed and waits[#buckets] == 0
  end
  local said = {allowed and '1' or '0'}
  for place, bucket in ipairs(buckets) do
    if allowed then bucket.units = bucket.units - cost * bucket.unit end
    if cost > 0 and (allowed or bucket.moved) then write(index, bucket) end
    said[#said + 1] = string.format('%.0f %.0f %.0f', bucket.units, wait(bucket, bucket.full),
      waits[place])
  end
  reply[#reply + 1] = table.concat(said, ' ')
end

return reply
