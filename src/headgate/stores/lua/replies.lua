-- Kept answers that processes share. One call does one thing: look, put, claims, invalidation.
--
-- KEYS: entries (hash: field -> "generation at lasting frame"), expiries (sorted set: field -> millisecond),
--       names (hash: "n" + namespace -> generation; "b" -> bytes), claim (string: token)
-- A field is sixteen digits of its namespace, a colon, and the digest of the question.
-- A generation is the microsecond in which a namespace was first seen or last invalidated: one that was
-- lost, with a flush or an eviction, never comes back as it was, so nothing of before is found again.

local COST = 256 -- bytes of bookkeeping of an entry

local op = ARGV[1]
local entries, expiries, names, claim = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2] -- the server's microseconds: exact below 2^53
local function whole(number) return string.format('%.0f', number) end

local function drop(field)
  local size = redis.call('HSTRLEN', entries, field)
  redis.call('HDEL', entries, field)
  redis.call('ZREM', expiries, field)
  if size == 0 then return 0 end
  redis.call('HINCRBY', names, 'b', -(size + COST))
  return size + COST
end

local function last(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then redis.call('PEXPIRE', key, milliseconds) end
end

if op == 'look' then
  -- field, namespace, generation of the copy the caller holds, token, milliseconds of a claim
  local generation = redis.call('HGET', names, ARGV[3])
  if not generation then
    generation = whole(now)
    redis.call('HSET', names, ARGV[3], generation)
    last(names, 86400000)
  end
  if ARGV[4] == generation then return {generation, '0', '', 0} end
  local value = redis.call('HGET', entries, ARGV[2])
  local age, from, fresh = 0, 0, false
  if value then
    local of, at, lasting, start = string.match(value, '^(%d+) (%d+) (%d+) ()')
    if of == generation and start <= #value then
      age, from = now - at, start
      fresh = age < tonumber(lasting)
    else
      drop(ARGV[2])
      value = false
    end
  end
  local right = 0
  if not fresh and ARGV[5] ~= '' then
    -- what was sent twice, because its connection broke, finds its own token
    local mine = redis.call('SET', claim, ARGV[5], 'NX', 'PX', ARGV[6])
    right = (mine or redis.call('GET', claim) == ARGV[5]) and 1 or 2
  end
  return {generation, whole(age), value and string.sub(value, from) or '', right}
end

if op == 'put' then
  -- field, namespace, generation of the look, token, microseconds of being fresh, milliseconds of its
  -- whole life, most bytes, frame
  if ARGV[5] ~= '' and redis.call('GET', claim) == ARGV[5] then redis.call('DEL', claim) end
  if redis.call('HGET', names, ARGV[3]) ~= ARGV[4] then return 0 end
  if redis.call('EXISTS', entries) == 0 then -- new, or it was lost without the rest
    redis.call('DEL', expiries)
    redis.call('HDEL', names, 'b')
  end
  local value = ARGV[4] .. ' ' .. whole(now) .. ' ' .. ARGV[6] .. ' ' .. ARGV[9]
  local life, most, instant = tonumber(ARGV[7]), tonumber(ARGV[8]), math.floor(now / 1000)
  drop(ARGV[2])
  redis.call('HSET', entries, ARGV[2], value)
  redis.call('ZADD', expiries, instant + life, ARGV[2])
  local bytes = redis.call('HINCRBY', names, 'b', #value + COST)
  for _, field in ipairs(redis.call('ZRANGEBYSCORE', expiries, '-inf', instant, 'LIMIT', 0, 8)) do
    bytes = bytes - drop(field)
  end
  for _ = 1, 64 do -- where there is too much, what would leave next goes first
    if bytes <= most then break end
    local field = redis.call('ZRANGE', expiries, 0, 0)[1]
    if not field then break end
    bytes = bytes - drop(field)
  end
  last(entries, life)
  last(expiries, life)
  last(names, life + 60000)
  return redis.call('HEXISTS', entries, ARGV[2])
end

if op == 'renew' then -- token, milliseconds
  if redis.call('GET', claim) ~= ARGV[2] then return 0 end
  return redis.call('PEXPIRE', claim, ARGV[3])
end

if op == 'release' then -- token
  if redis.call('GET', claim) ~= ARGV[2] then return 0 end
  return redis.call('DEL', claim)
end

if op == 'drop' then -- field
  return drop(ARGV[2])
end

if op == 'names' then -- cursor
  return redis.call('HSCAN', names, ARGV[2], 'COUNT', 500)
end

if op == 'bump' then -- namespaces
  for at = 2, #ARGV do
    local before = tonumber(redis.call('HGET', names, ARGV[at]) or 0)
    redis.call('HSET', names, ARGV[at], whole(math.max(now, before + 1)))
  end
  return #ARGV - 1
end

if op == 'sweep' then -- rank to begin at, then the digits of namespaces: drops theirs, tells what it saw
  local wanted = {}
  for at = 3, #ARGV do wanted[ARGV[at]] = true end
  local seen = redis.call('ZRANGE', expiries, ARGV[2], ARGV[2] + 499)
  local gone = 0
  for _, field in ipairs(seen) do
    if wanted[string.sub(field, 1, 16)] then
      drop(field)
      gone = gone + 1
    end
  end
  return {#seen, gone}
end

if op == 'clear' then
  local gone = redis.call('HLEN', entries)
  redis.call('UNLINK', entries, expiries, names)
  return gone
end

-- figures
return {redis.call('HLEN', entries), redis.call('HGET', names, 'b') or '0', redis.call('HLEN', names)}
