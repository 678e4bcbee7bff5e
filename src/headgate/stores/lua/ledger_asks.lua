-- The quota ledger of one group: what is asked of it. Twin of policy/quota/choice.py and refusals.py.

local function able(domain, ask)
  if not domain or ask.excluded[domain[HANDLE]] then return false end
  if fits(domain, ask) then return true end
  if domain[PACED] > 0 then
    local at = pacing().latest(domain, needs_of(ask, domain[LIMITS]), now, '', true)
    if at > now then soonest = min(soonest or at, at) end
  end
  return false
end

local function by_rank(from, stop)
  local handles = call('ZRANGE', th, from, stop)
  for step, member in ipairs(handles) do handles[step] = tonumber(member) end
  return handles
end

-- The first domain that has room, from where the last walk ended; ranks count from the top, -1 is the
-- last. `cut` says whether some were left out that perhaps have room.
local function walk(ask, from, size)
  if size <= 0 then return {} end
  local offset, length = turn % size, min(size, LONGEST_WALK)
  local handles = by_rank(from + offset, from + min(offset + length, size) - 1)
  if offset + length > size then
    for _, handle in ipairs(by_rank(from, from + offset + length - size - 1)) do
      handles[#handles + 1] = handle
    end
  end
  for step, handle in ipairs(handles) do
    if step % SOME == 1 then load({unpack(handles, step, min(step + SOME - 1, #handles))}) end
    turn = turn + 1
    if able(domains[handle], ask) then return {domains[handle]} end
  end
  cut = cut or size > LONGEST_WALK
  return {}
end

-- Up to four domains drawn from those that surely have room.
local function sample(ask, sure, seed)
  local found, seen, drawn = {}, {}, 0
  local all = sure <= SAMPLES
  while #found < SAMPLES and drawn < SAMPLES + REDRAWS do
    local handles, missing = {}, min(SAMPLES - #found, SAMPLES + REDRAWS - drawn)
    if all then
      handles, drawn = sure > 0 and by_rank(-sure, -1) or {}, SAMPLES + REDRAWS
    else
      for draw = 1, missing do
        seed = seed * 16807 % 2147483647
        handles[draw] = by_rank(seed % sure - sure, seed % sure - sure)[1]
      end
      drawn = drawn + missing
    end
    load(handles)
    for _, handle in ipairs(handles) do
      if not seen[handle] and able(domains[handle], ask) then
        seen[handle], found[#found + 1] = true, domains[handle]
      end
    end
  end
  if #found == 0 and not all then return walk(ask, -sure, sure) end
  return found
end

local function choose(ask, seed)
  local dearest, least
  for counts = 2, 4 do
    if floor(counted / 2 ^ counts) % 2 == 1 then
      local cost = max(1, ask[COSTS + counts])
      dearest, least = max(dearest or 1, cost), min(least or cost, cost)
    end
  end
  cut, soonest = false, nil
  local sure = call('ZCOUNT', th, class_of(dearest or 1) + 1, '+inf')
  local found = sample(ask, sure, seed)
  if #found == 0 then
    local perhaps = call('ZCOUNT', th, class_of(least or 1), '+inf')
    found = walk(ask, -perhaps, perhaps - sure)
  end
  local chosen, cheapest
  for _, domain in ipairs(found) do
    local asked = price(domain, ask)
    if not chosen or asked < cheapest or asked == cheapest and (domain[ORDER] < chosen[ORDER]
        or domain[ORDER] == chosen[ORDER] and domain[HANDLE] < chosen[HANDLE]) then
      chosen, cheapest = domain, asked
    end
  end
  local wish = chosen and ask[PREFER] >= 0 and domain_of(ask[PREFER])
  if wish and able(wish, ask) and price(wish, ask) <= 2 * cheapest then return wish end
  return chosen
end

-- What is left of each calendar limit; nil where there is none.
local function left_of(domain)
  local left
  for number, limit in ipairs(domain[LIMITS]) do
    if limit[KIND] == CALENDAR then
      local at = HEAD + EACH * (number - 1)
      left = left or {}
      left[#left + 1] = max(0, domain[at + AMOUNT] - domain[at + USED])
    end
  end
  return left
end

local function charge(ask, domain)
  local rid, size = ask[1], domain[COUNT]
  local lease = {size, domain[CANARY], 0, domain[HANDLE], now + TTL}
  local needs = needs_of(ask, domain[LIMITS])
  for number = 1, size do
    local need, at = needs[number], HEAD + EACH * (number - 1) + USED
    domain[at], lease[NEEDS + number] = domain[at] + need, need
  end
  for number, limit in ipairs(domain[LIMITS]) do
    local early = limit[KIND] ~= CONCURRENT and limit[MODE] == EARLY
    lease[NEEDS + size + number] =
      early and put(domain, number, expiry(limit, now + limit[GUARD]), needs[number]) or 0
  end
  if domain[PACED] > 0 then pacing().take(domain, lease) end
  if domain[CANARY] == 1 then domain[CANARY], domain[TESTING] = 0, rid end
  order = order + 1
  domain[ORDER] = order
  keep_held(rid, lease)
  touch(domain)
  refused = {}
  return domain[HANDLE], lease[2], 0, '', left_of(domain)
end

-- The reply was lost and the call not sent yet: the guard runs anew. Whether it can be sent; see
-- QuotaLedger._ask_again.
local function ask_again(rid, lease)
  local size, ended = lease[1], lease[ORPHAN] == 1
  for at = NEEDS + size + 1, NEEDS + 2 * size do
    ended = ended or 0 < lease[at] and lease[at] <= now
  end
  if ended then
    settle({rid, 0, -1, -1, -1, -1, -1})
    return false
  end
  local domain = domain_of(lease[DOMAIN])
  for number = 1, size do
    local limit, need = domain[LIMITS][number], lease[NEEDS + number]
    local expires = lease[NEEDS + size + number]
    local later = expires > 0 and expiry(limit, now + limit[GUARD]) or 0
    if later > expires and take(domain, number, expires, need) then
      local at = HEAD + EACH * (number - 1) + USED
      domain[at] = domain[at] + need
      lease[NEEDS + size + number] = put(domain, number, later, need)
    end
  end
  if lease[NEEDS + 2 * size + 1] then pacing().again(domain, lease) end
  lease[LAPSES] = now + TTL
  keep_held(rid, lease)
  touch(domain)
  return true
end

-- Refusals are rare and their functions many: they are made when first needed.
local function refusals()

local function exceeds(domain, ask)
  for number, limit in ipairs(domain[LIMITS]) do
    if cost_of(ask, limit) > domain[HEAD + EACH * (number - 1) + AMOUNT] then return true end
  end
  return false
end

-- When the first reservation of the group lapses; false: there is none.
local function first_lapse()
  turn_wheel()
  local found = call('ZRANGEBYSCORE', ex, format('%d', LAPSES_FROM), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return #found > 0 and found[2] - LAPSES_FROM
end

-- When a limit gets anything back that is in flight; false: nothing of it can be.
local function flight_of(limit, flights)
  if limit[KIND] ~= CONCURRENT and limit[MODE] == EARLY then return false end
  if flights.lapse == nil then flights.lapse = first_lapse() end
  if limit[KIND] == CONCURRENT or not flights.lapse then return flights.lapse end
  return expiry(limit, flights.lapse + SKEW)
end

-- When so much of a limit is released: its buckets go in the order of their expiry. From `best` on, the
-- exact instant is of no use.
local function free_at(domain, number, missing, flights, best)
  local at, flight = HEAD + EACH * (number - 1), flight_of(domain[LIMITS][number], flights)
  local expires = domain[at + FIRST]
  while expires ~= 0 and not (best and expires >= best) and not (flight and expires >= flight) do
    local last = expires == domain[at + LAST]
    local bucket = last and {domain[at + HOLDS], 0} or bucket_of(domain[HANDLE], number, expires)
    missing = missing - bucket[1]
    if missing <= 0 then return expires end
    expires = bucket[2]
  end
  if expires ~= 0 and not (flight and expires >= flight) then return expires end
  return flight or now
end

-- When a call fits if nobody does anything; nil: never.
local function room_at(domain, ask, flights, best)
  if exceeds(domain, ask) then return nil end
  local at, name = now, ''
  if domain[RESTING] > now then at, name = domain[RESTING], 'rest' end
  if domain[TESTING] ~= '' then
    local lease = held_of(domain[TESTING])
    at, name = max(at, lease and lease[LAPSES] or now + TTL), 'rest'
  end
  for number, limit in ipairs(domain[LIMITS]) do
    local books = HEAD + EACH * (number - 1)
    local missing = domain[books + USED] + cost_of(ask, limit) - domain[books + AMOUNT]
    local free = missing > 0 and free_at(domain, number, missing, flights, best) or now
    if free > at then at, name = free, limit[NAME] end
  end
  if domain[PACED] == 0 then return at, name end
  return pacing().latest(domain, needs_of(ask, domain[LIMITS]), at, name, true)
end

-- Whether the ask exceeds a limit of every domain: no waiting helps.
local function too_large(ask)
  for from = 0, count - 1, SOME do
    local handles = {}
    for handle = from, min(from + SOME, count) - 1 do handles[#handles + 1] = handle end
    load(handles)
    for _, handle in ipairs(handles) do
      if not exceeds(domains[handle], ask) then return false end
    end
  end
  return count > 0
end

-- In a large group: no later than the first instant at which the ask may be granted.
local function bound(ask)
  if too_large(ask) then return -1, -1, 1, '' end
  if cut then return -1, now + 1, 0, '' end -- another ask looks at others
  local lapse, event = first_lapse(), call('ZRANGEBYSCORE', ex, '-inf',
    format('(%d', LAPSES_FROM), 'WITHSCORES', 'LIMIT', 0, 1)
  local due = math.huge
  for _, at in ipairs({tonumber(event[2]) or due, lapse or due, soonest}) do due = min(due, at) end
  if due == math.huge then return -1, -1, 0, '' end
  return -1, max(now + 1, due), 0, ''
end

local function refuse(ask)
  if count > EXACT then return bound(ask) end
  local handles, best, name, large, flights = {}, nil, '', count > 0, {}
  for handle = 0, count - 1 do handles[handle + 1] = handle end
  load(handles)
  for handle = 0, count - 1 do
    local domain = domains[handle]
    local at, binding = room_at(domain, ask, flights, best)
    large = large and not at
    if at and domain[SHUT] == 0 and not ask.excluded[handle] and (not best or at < best) then
      best, name = at, binding
    end
  end
  if not best then return -1, -1, large and 1 or 0, '' end
  return -1, max(now + 1, best), 0, name
end

return refuse
end

local refuse

-- Asks that are alike are refused alike as long as nothing is granted in between.
local function acquire(ask, seed)
  local domain, lease = nil, held_of(ask[1])
  if lease and ask_again(ask[1], lease) then
    return lease[DOMAIN], lease[2], 0, '', left_of(domain_of(lease[DOMAIN]))
  end
  ask.excluded, ask.needs = {}, {}
  for step = EXCLUDED + 1, #ask do ask.excluded[ask[step]] = true end
  place()
  domain = choose(ask, seed)
  if domain then return charge(ask, domain) end
  local like = table.concat(ask, ' ', 2)
  refuse = refuse or refusals()
  refused[like] = refused[like] or {refuse(ask)}
  return unpack(refused[like])
end
