-- The quota ledger of one group: the books of a domain. Twin of policy/quota/accounts.py, price.py and
-- windows.py.

-- Of whatever a limit counts a call takes at least 1.
local function cost_of(ask, limit) return max(1, ask[COSTS + limit[COUNTS]]) end

local function class_of(tokens)
  local mantissa, exponent = math.frexp(tokens)
  return exponent * 4 + floor((mantissa - 0.5) * 8)
end

-- When a charge is released that the provider counts at `latest` at the latest.
local function expiry(limit, latest)
  if limit[KIND] == CALENDAR then
    for _, reset in ipairs(resets) do
      if reset > latest + RESET_EARLY then return reset + RESET_LATE end
    end
    return latest + 2 * DAY -- no reset to come is known: later than any can be
  end
  local window = limit[WINDOW]
  local width = window >= DAY and DAY_BUCKET or max(1, floor(window / BUCKETS))
  return ceil(latest / width) * width + window
end

local function closed(domain)
  return domain[SHUT] == 1 or domain[RESTING] > now or domain[PACED] > now or domain[TESTING] ~= ''
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
  return domain[PACED] == 0 or pacing().latest(domain, needs, 0) <= now
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

-- The buckets of a limit are a list in the order of their expiry: each knows the next, and the wheel
-- knows the first. A wheel of them all would be larger than the processor's caches.
local function wheeled(domain, number) return format('0:%07d:%03d', domain[HANDLE], number) end

local function add_bucket(domain, number, expires, amount, following)
  local name = format('b%d.%d.%d', domain[HANDLE], number, expires)
  buckets[name], rewritten[name] = {amount, following}, true
end

-- Into the middle of the list: where members restore what they hold, or do not agree on a day's end.
-- What is put in ascending order is put in one pass.
local function insert(domain, number, expires, amount)
  local at, handle = HEAD + EACH * (number - 1), domain[HANDLE]
  local here, id = domain[at + FIRST], handle * 1000 + number
  if expires < here then
    add_bucket(domain, number, expires, amount, here)
    domain[at + FIRST], wheel[wheeled(domain, number)] = expires, expires
    return
  end
  if cursors[id] and cursors[id] <= expires then here = cursors[id] end
  local bucket, name = bucket_of(handle, number, here)
  while bucket[2] <= expires do
    here = bucket[2]
    bucket, name = bucket_of(handle, number, here)
  end
  cursors[id], rewritten[name] = here, true
  if here == expires then
    bucket[1] = bucket[1] + amount
    return
  end
  add_bucket(domain, number, expires, amount, bucket[2])
  bucket[2] = expires
end

local function put(domain, number, expires, amount)
  local at = HEAD + EACH * (number - 1)
  local last = domain[at + LAST]
  if expires == last then
    domain[at + HOLDS] = domain[at + HOLDS] + amount
    return expires
  end
  if expires < last then
    insert(domain, number, expires, amount)
  else
    if last == 0 then
      domain[at + FIRST], wheel[wheeled(domain, number)] = expires, expires
    else
      add_bucket(domain, number, last, domain[at + HOLDS], expires)
    end
    domain[at + LAST], domain[at + HOLDS] = expires, amount
  end
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
    domain[at + USED], domain[at + FIRST] = domain[at + USED] - bucket[1], bucket[2]
    buckets[name], rewritten[name] = false, true
  end
end
