-- Values that processes share. One call does one thing: get, put, claims, invalidation.
--
-- KEYS: entries (hash: field -> stamp and frame), expiries (sorted set: field -> millisecond),
--       turns (hash: "n" + namespace -> microsecond of its last invalidation; "*" -> of the last of all;
--       "0" -> when this was first asked; "b" -> bytes), claim (string: token)
-- A field is a namespace, a newline, and the readable key: a glob finds it. A stamp is sixteen digits that
-- no other value has: who holds a copy with the same stamp is not sent the value again.

local COST = 256 -- bytes of bookkeeping of an entry
local STAMP = 16

local op = ARGV[1]
local entries, expiries, turns, claim = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2] -- the server's microseconds: exact below 2^53
local instant = math.floor(now / 1000)
local function whole(number) return string.format('%.0f', number) end

local function drop(field)
  local size = redis.call('HSTRLEN', entries, field)
  redis.call('HDEL', entries, field)
  redis.call('ZREM', expiries, field)
  if size == 0 then return 0 end
  redis.call('HINCRBY', turns, 'b', -(size + #field + COST))
  return size + #field + COST
end

local function last(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then redis.call('PEXPIRE', key, milliseconds) end
end

-- What changes with every invalidation that concerns a namespace. After a flush or an eviction it begins
-- later than any before, so that what was asked for before is refused.
local function mark(namespace)
  local begun = redis.call('HGET', turns, '0')
  if not begun then
    begun = whole(now)
    redis.call('HSET', turns, '0', begun)
    last(turns, 86400000)
  end
  local own, all = redis.call('HGET', turns, 'n' .. namespace), redis.call('HGET', turns, '*')
  return begun .. ' ' .. (own or '') .. ' ' .. (all or '')
end

if op == 'get' then
  -- field, namespace, stamp of the copy the caller holds, token, milliseconds of a claim
  local value, left = false, 0
  local ends = redis.call('ZSCORE', expiries, ARGV[2])
  if ends then
    left = tonumber(ends) - instant
    if left > 0 then value = redis.call('HGET', entries, ARGV[2]) end
    if not value or #value <= STAMP then
      drop(ARGV[2])
      value = false
    end
  end
  if value then
    local stamp = string.sub(value, 1, STAMP)
    if stamp == ARGV[4] then return {mark(ARGV[3]), whole(left), stamp, '', 0} end
    return {mark(ARGV[3]), whole(left), stamp, string.sub(value, STAMP + 1), 0}
  end
  local right = 0
  if ARGV[5] ~= '' then
    -- what was sent twice, because its connection broke, finds its own token
    local mine = redis.call('SET', claim, ARGV[5], 'NX', 'PX', ARGV[6])
    right = (mine or redis.call('GET', claim) == ARGV[5]) and 1 or 2
  end
  return {mark(ARGV[3]), '0', '', '', right}
end

if op == 'put' then
  -- field, namespace, mark of the look or nothing, token, milliseconds of its life, most bytes, stamp and
  -- frame
  if ARGV[5] ~= '' and redis.call('GET', claim) == ARGV[5] then redis.call('DEL', claim) end
  if ARGV[4] ~= '' and mark(ARGV[3]) ~= ARGV[4] then return 0 end
  if redis.call('EXISTS', entries, expiries) < 2 or redis.call('HEXISTS', turns, 'b') == 0 then
    redis.call('UNLINK', entries, expiries) -- new, or a part was lost without the rest
    redis.call('HDEL', turns, 'b')
  end
  local life, most = tonumber(ARGV[6]), tonumber(ARGV[7])
  drop(ARGV[2])
  redis.call('HSET', entries, ARGV[2], ARGV[8])
  redis.call('ZADD', expiries, instant + life, ARGV[2])
  local bytes = redis.call('HINCRBY', turns, 'b', #ARGV[8] + #ARGV[2] + COST)
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
  last(turns, life + 86400000)
  return redis.call('HEXISTS', entries, ARGV[2])
end

if op == 'touch' then -- field, milliseconds
  local ends = redis.call('ZSCORE', expiries, ARGV[2])
  if not ends or tonumber(ends) <= instant then return 0 end
  local life = tonumber(ARGV[3])
  redis.call('ZADD', expiries, instant + life, ARGV[2])
  last(entries, life)
  last(expiries, life)
  last(turns, life + 86400000)
  return 1
end

if op == 'renew' then -- token, milliseconds
  if redis.call('GET', claim) ~= ARGV[2] then return 0 end
  return redis.call('PEXPIRE', claim, ARGV[3])
end

if op == 'release' then -- token
  if redis.call('GET', claim) ~= ARGV[2] then return 0 end
  return redis.call('DEL', claim)
end

if op == 'drop' then -- fields
  local gone = 0
  for at = 2, #ARGV do
    if drop(ARGV[at]) > 0 then gone = gone + 1 end
  end
  return gone
end


if op == 'bump' then -- names of turns
  for at = 2, #ARGV do
    local before = tonumber(redis.call('HGET', turns, ARGV[at]) or 0)
    redis.call('HSET', turns, ARGV[at], whole(math.max(now, before + 1)))
  end
  last(turns, 86400000)
  return #ARGV - 1
end

if op == 'scan' then -- cursor, glob as the server reads it: the fields that match
  local found = redis.call('ZSCAN', expiries, ARGV[2], 'MATCH', ARGV[3], 'COUNT', 500)
  local fields = {}
  for at = 1, #found[2], 2 do fields[#fields + 1] = found[2][at] end
  return {found[1], fields}
end

-- figures
return {redis.call('ZCOUNT', expiries, '(' .. instant, '+inf'), redis.call('HGET', turns, 'b') or '0'}
