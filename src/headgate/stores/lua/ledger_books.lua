-- The quota ledger of one group in one script: the twin of policy/quota/ledger.py, in the same integers.
--
-- KEYS  {group}st  hash     m: counters; s<n>: what the limits of a domain are, its "shape";
--                           d<handle>: a domain; b<handle>.<limit>.<expires>: a bucket that is not its
--                           limit's last (the last stands in the domain); r<rid>: a reservation
--       {group}th  sorted   handle -> class of headroom; domains that can serve nothing are not in it
--       {group}ex  sorted   the wheel: what happens by itself -> when it is due
-- ARGV  JSON, either        [0, nonce, first handle, number of all domains, shapes, domains]
--       or                  [1, nonce, resets, batch, …], batch = [settles, cancels, renews, penalties,
--                           asks, seed]; stores/valkey_wire.py writes and reads both
-- Reply msgpack             {nonce, now, seq, epoch, answers}; nil: the group is unknown
--
-- Everything read is kept for the length of the call and written back once, at its end. Numbers are
-- doubles, exact below 2^53. Whatever may fail for want of sense is decoded before the first write.

local st, th, ex = KEYS[1], KEYS[2], KEYS[3]
local call, floor, ceil, max, min = redis.call, math.floor, math.ceil, math.max, math.min
local format, sub = string.format, string.sub

-- Constants are written as in Lua 5.4. Lua 5.1 has none: stores/valkey_wire.py puts their values in place.
local TTL <const>, SKEW <const> = 90000, 100
local SAMPLES <const>, REDRAWS <const>, LONGEST_WALK <const>, EXACT <const> = 4, 8, 64, 64
local DRAIN <const>, ARGUMENTS <const>, SOME <const> = 256, 1000, 8
local BUCKETS <const>, DAY <const>, DAY_BUCKET <const> = 600, 86400000, 300000
local RESET_EARLY <const>, RESET_LATE <const> = 5000, 60000
local HOUR <const>, KEEP <const> = 3600000, 172800000
local CLOSED <const>, OPEN <const>, STEPS <const> = -1, 4096, 64
-- A limit within a shape: its fields. What it counts is 1 … 5: requests, input, output, total, slots.
local NAME <const>, COUNTS <const>, KIND <const> = 1, 2, 3
local WINDOW <const>, MODE <const>, GUARD <const> = 4, 5, 6
local CALENDAR <const>, CONCURRENT <const>, EARLY <const> = 1, 2, 0
-- A domain is an array: four that are not stored, these, then for each limit AMOUNT, USED and its
-- buckets' FIRST, LAST and what the last one HOLDS.
local HANDLE <const>, LIMITS <const>, TESTING <const>, MOVED <const> = 1, 2, 3, 4
local COUNT <const>, SHAPE <const>, RESTING <const>, SHUT <const> = 5, 6, 7, 8
local CANARY <const>, ORDER <const>, PLACE <const>, HEAD <const> = 9, 10, 11, 11
local AMOUNT <const>, USED <const>, FIRST <const>, LAST <const> = 1, 2, 3, 4
local HOLDS <const>, EACH <const> = 5, 5
-- A reservation is an array: how many limits, whether it is a test, these, the needs, the expiries.
local ORPHAN <const>, DOMAIN <const>, LAPSES <const>, NEEDS <const> = 3, 4, 5, 5
-- What is asked or settled is an array: the reservation's id, one more, then costs by what is counted.
local PREFER <const>, SERVED <const>, COSTS <const>, EXCLUDED <const> = 2, 2, 2, 7

local EXPONENTIAL = {
  1000, 1064, 1133, 1206, 1284, 1367, 1455, 1549, 1649, 1755, 1868, 1989, 2117, 2254, 2399, 2554,
  2718, 2894, 3080, 3279, 3490, 3715, 3955, 4210, 4482, 4771, 5078, 5406, 5755, 6126, 6521, 6941,
  7389, 7866, 8373, 8913, 9488, 10100, 10751, 11444, 12182, 12968, 13805, 14695, 15643, 16651, 17725,
  18869, 20086, 21381, 22760, 24228, 25790, 27454, 29224, 31109, 33115, 35251, 37525, 39945, 42521,
  45263, 48183, 51290, 54598,
}

local said = cjson.decode(ARGV[1])
local meta = call('HGET', st, 'm')
local before, seq, epoch, count, total, order, turn, known, keep = 0, 0, 0, 0, 0, 0, 0, 0, KEEP
if meta then
  before, seq, epoch, count, total, order, turn, known, keep = struct.unpack('<ddddddddd', meta)
elseif said[1] == 1 then
  return false
end
local server = call('TIME'); server = server[1] * 1000 + floor(server[2] / 1000) -- the time source
local now = max(before, server)

-- ── what is read, and what will be written ───────────────────────────────────────────────────────

local domains, buckets, held, shapes, wheel = {}, {}, {}, {}, {}
local dirty, rewritten, recharged, moved = {}, {}, {}, {}
local resets, refused, layouts = said[3], {}, {}

-- All that follows stands in one function: what is above then costs its functions nothing to reach.
local function run()

local function shape_of(number)
  local shape = shapes[number]
  if not shape then
    shape = cmsgpack.unpack(call('HGET', st, format('s%d', number)))
    shapes[number] = shape
  end
  return shape
end

local function layout(limits)
  layouts[limits] = layouts[limits] or '<B' .. string.rep('d', HEAD - COUNT + EACH * limits)
  return layouts[limits]
end

local function read_domain(handle, blob)
  local limits = string.byte(blob)
  local domain = {handle, false, '', false, struct.unpack(layout(limits), blob)}
  local stop = domain[HEAD + EACH * limits + 1]
  if stop <= #blob then domain[TESTING] = sub(blob, stop) end
  domain[LIMITS] = shape_of(domain[SHAPE])
  return domain
end

-- Reads what is not known yet: `names` of fields, to be kept in `into` under `ids`, made by `make`.
local function fetch(into, ids, names, make)
  for from = 1, #names, ARGUMENTS do
    local stop = min(from + ARGUMENTS - 1, #names)
    local found = call('HMGET', st, unpack(names, from, stop))
    for step = 1, stop - from + 1 do
      local id = ids[from + step - 1]
      into[id] = found[step] and make(id, found[step])
    end
  end
end

local function load(handles)
  local ids, names = {}, {}
  for _, handle in ipairs(handles) do
    if domains[handle] == nil then
      domains[handle] = false
      ids[#ids + 1], names[#names + 1] = handle, format('d%d', handle)
    end
  end
  if #ids > 0 then fetch(domains, ids, names, read_domain) end
end

local function domain_of(handle)
  if domains[handle] == nil then load({handle}) end
  return domains[handle]
end

local function read_bucket(_, blob) return {struct.unpack('<dd', blob)} end

local function load_buckets(names)
  local ids = {}
  for _, name in ipairs(names) do
    if buckets[name] == nil then buckets[name], ids[#ids + 1] = false, name end
  end
  if #ids > 0 then fetch(buckets, ids, ids, read_bucket) end
end

local function bucket_of(handle, number, expires)
  local name = format('b%d.%d.%d', handle, number, expires)
  if buckets[name] == nil then load_buckets({name}) end
  return buckets[name], name
end

local function read_held(_, blob)
  return {struct.unpack('<BBBdd' .. string.rep('d', 2 * string.byte(blob)), blob)}
end

local function load_held(rids)
  local ids, names = {}, {}
  for _, rid in ipairs(rids) do
    if held[rid] == nil then held[rid], ids[#ids + 1], names[#names + 1] = false, rid, 'r' .. rid end
  end
  if #ids > 0 then fetch(held, ids, names, read_held) end
end

local function held_of(rid)
  if held[rid] == nil then load_held({rid}) end
  return held[rid]
end

local function touch(domain)
  dirty[domain[HANDLE]] = domain
  if not domain[MOVED] then domain[MOVED], moved[#moved + 1] = true, domain end
end

local function keep_held(rid, lease)
  held[rid], recharged[rid] = lease, true
  wheel['1:' .. rid] = lease and lease[LAPSES]
end

-- ── the books of a domain: policy/quota/accounts.py, price.py, windows.py ────────────────────────

local function cost_of(costs, limit) return max(0, costs[COSTS + limit[COUNTS]]) end

local function class_of(tokens)
  local mantissa, exponent = math.frexp(tokens)
  return exponent * 4 + floor((mantissa - 0.5) * 8)
end

local function expiry(limit, counted_by)
  local latest = now + counted_by
  if limit[KIND] == CALENDAR then
    for _, reset in ipairs(resets) do
      if reset > latest + RESET_EARLY then return reset + RESET_LATE end
    end
    return latest + 2 * DAY -- a client that knows no reset to come: later than any can be
  end
  local window = limit[WINDOW]
  local width = window >= DAY and DAY_BUCKET or max(1, floor(window / BUCKETS))
  return ceil(latest / width) * width + window
end

local function closed(domain)
  return domain[SHUT] == 1 or domain[RESTING] > now or domain[TESTING] ~= ''
end

-- What an ask needs of each limit of a shape.
local function needs_of(ask, limits)
  local needs = ask.needs[limits]
  if not needs then
    needs = {}
    for number, limit in ipairs(limits) do needs[number] = cost_of(ask, limit) end
    ask.needs[limits] = needs
  end
  return needs
end

local function fits(domain, ask)
  if closed(domain) then return false end
  local needs, at = needs_of(ask, domain[LIMITS]), HEAD
  for number = 1, domain[COUNT] do
    if domain[at + USED] + needs[number] > domain[at + AMOUNT] then return false end
    at = at + EACH
  end
  return true
end

local function price(domain, ask)
  local needs, sum, at = needs_of(ask, domain[LIMITS]), 0, HEAD
  for number = 1, domain[COUNT] do
    local need, amount = needs[number], domain[at + AMOUNT]
    local step = min(STEPS, floor(max(0, domain[at + USED]) * STEPS / amount))
    sum = sum + floor(min(need, amount) * EXPONENTIAL[step + 1] * 1000 / amount)
    at = at + EACH
  end
  return sum
end

local function room(domain)
  if closed(domain) then return CLOSED end
  local tightest, at = nil, HEAD
  for _, limit in ipairs(domain[LIMITS]) do
    local left = domain[at + AMOUNT] - domain[at + USED]
    if left < 1 then return CLOSED end
    if limit[COUNTS] > 1 and limit[COUNTS] < 5 and (not tightest or left < tightest) then
      tightest = left
    end
    at = at + EACH
  end
  return tightest and class_of(tightest) or OPEN
end

-- Expiries of one limit never step back, so its buckets are a list: each knows the next.
local function put(domain, number, expires, amount)
  local at = HEAD + EACH * (number - 1)
  local last = domain[at + LAST]
  if expires <= last then -- or would step back, where two clients do not agree on a day's end
    domain[at + HOLDS] = domain[at + HOLDS] + amount
    return last
  end
  if last == 0 then
    domain[at + FIRST] = expires
  else
    local name = format('b%d.%d.%d', domain[HANDLE], number, last)
    buckets[name], rewritten[name] = {domain[at + HOLDS], expires}, true
  end
  domain[at + LAST], domain[at + HOLDS] = expires, amount
  wheel[format('0:%07d:%03d:%d', domain[HANDLE], number, expires)] = expires
  return expires
end

-- What is due counts as gone, also where the wheel has not got to it: nothing may be charged to it.
local function take(domain, number, expires, amount)
  if expires <= now then return false end
  local at = HEAD + EACH * (number - 1)
  if domain[at + LAST] == expires then
    domain[at + HOLDS] = domain[at + HOLDS] - amount
  else
    local bucket, name = bucket_of(domain[HANDLE], number, expires)
    if not bucket then return false end
    bucket[1], rewritten[name] = bucket[1] - amount, true
  end
  domain[at + USED] = domain[at + USED] - amount
  return true
end

local function release(domain, number, expires)
  local at = HEAD + EACH * (number - 1)
  if domain[at + LAST] == expires then
    domain[at + USED] = domain[at + USED] - domain[at + HOLDS]
    domain[at + FIRST], domain[at + LAST], domain[at + HOLDS] = 0, 0, 0
  else
    local bucket, name = bucket_of(domain[HANDLE], number, expires)
    if bucket then
      domain[at + USED], domain[at + FIRST] = domain[at + USED] - bucket[1], bucket[2]
      buckets[name], rewritten[name] = false, true
    end
  end
end

-- ── time ─────────────────────────────────────────────────────────────────────────────────────────

-- The owner is presumed dead: what it held is charged in full, from now on.
local function lapse(rid, lease)
  if lease[ORPHAN] == 1 then return keep_held(rid, false) end
  local domain, count_of, latest = domains[lease[DOMAIN]], lease[1], now + TTL
  for number = 1, count_of do
    local limit, need = domain[LIMITS][number], lease[NEEDS + number]
    if limit[KIND] == CONCURRENT then
      local at = HEAD + EACH * (number - 1) + USED
      domain[at] = domain[at] - need
    elseif limit[MODE] ~= EARLY then
      lease[NEEDS + count_of + number] = put(domain, number, expiry(limit, SKEW), need)
    end
    latest = max(latest, lease[NEEDS + count_of + number])
  end
  lease[ORPHAN], lease[LAPSES] = 1, latest
  if domain[TESTING] == rid then domain[TESTING], domain[CANARY] = '', 1 end
  keep_held(rid, lease)
  touch(domain)
end

local function drain()
  local events = call('ZRANGEBYSCORE', ex, '-inf', format('%d', now), 'LIMIT', 0, DRAIN)
  if #events == 0 then return end
  call('ZREMRANGEBYRANK', ex, 0, #events - 1)
  local handles, rids, names = {}, {}, {}
  for _, event in ipairs(events) do
    if sub(event, 1, 1) == '1' then
      rids[#rids + 1] = sub(event, 3)
    else
      handles[#handles + 1] = tonumber(sub(event, 3, 9))
    end
  end
  load_held(rids)
  for _, rid in ipairs(rids) do
    if held[rid] then handles[#handles + 1] = held[rid][DOMAIN] end
  end
  load(handles)
  for _, event in ipairs(events) do
    if sub(event, 1, 1) == '0' then
      local handle, number = tonumber(sub(event, 3, 9)), tonumber(sub(event, 11, 13))
      local expires = tonumber(sub(event, 15))
      if domains[handle][HEAD + EACH * (number - 1) + LAST] ~= expires then
        names[#names + 1] = format('b%d.%d.%d', handle, number, expires)
      end
    end
  end
  load_buckets(names)
  for _, event in ipairs(events) do
    local kind, domain = sub(event, 1, 1), domains[tonumber(sub(event, 3, 9))]
    if kind == '1' then
      local rid = sub(event, 3)
      if held[rid] then lapse(rid, held[rid]) end
    else
      if kind == '0' then release(domain, tonumber(sub(event, 11, 13)), tonumber(sub(event, 15))) end
      touch(domain)
    end
  end
end

-- Domains whose headroom changed class change their place in the index.
local function place()
  local adds, drops = {}, {}
  for _, domain in ipairs(moved) do
    local found, member = room(domain), format('%07d', domain[HANDLE])
    if found ~= domain[PLACE] then
      if found == CLOSED then
        drops[#drops + 1] = member
      else
        adds[#adds + 1], adds[#adds + 2] = found, member
      end
      domain[PLACE] = found
    end
    domain[MOVED] = false
  end
  moved = {}
  for from = 1, #adds, ARGUMENTS do call('ZADD', th, unpack(adds, from, min(from + 999, #adds))) end
  for from = 1, #drops, ARGUMENTS do call('ZREM', th, unpack(drops, from, min(from + 999, #drops))) end
end

local function turn_wheel()
  local adds, drops = {}, {}
  for member, due in pairs(wheel) do
    if due then
      adds[#adds + 1], adds[#adds + 2] = format('%d', due), member
    else
      drops[#drops + 1] = member
    end
  end
  wheel = {}
  for from = 1, #adds, ARGUMENTS do call('ZADD', ex, unpack(adds, from, min(from + 999, #adds))) end
  for from = 1, #drops, ARGUMENTS do call('ZREM', ex, unpack(drops, from, min(from + 999, #drops))) end
end
