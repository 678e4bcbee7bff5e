-- The quota ledger of one group: what happens by itself, and the index.

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
      lease[NEEDS + count_of + number] = put(domain, number, expiry(limit, now + SKEW), need)
    end
    latest = max(latest, lease[NEEDS + count_of + number])
  end
  lease[ORPHAN], lease[LAPSES] = 1, latest
  if domain[TESTING] == rid then domain[TESTING], domain[CANARY] = '', 1 end
  keep_held(rid, lease)
  touch(domain)
end

-- Of each list of buckets the wheel knows the first. What is due is released in rounds, because a bucket
-- knows the next; what is beyond the budget stands in the wheel and is due again at once.
local function release_due(lists)
  local budget = DRAIN
  while #lists > 0 do
    local names, more = {}, {}
    for _, list in ipairs(lists) do
      local first = list[1][list[2] + FIRST]
      if first ~= list[1][list[2] + LAST] then
        names[#names + 1] = format('b%d.%d.%d', list[1][HANDLE], list[3], first)
      end
    end
    load_buckets(names)
    for _, list in ipairs(lists) do
      local domain, at, number = list[1], list[2], list[3]
      local first = domain[at + FIRST]
      if first ~= 0 and first <= now and budget > 0 then
        release(domain, number, first)
        first, budget = domain[at + FIRST], budget - 1
      end
      if first ~= 0 and first <= now and budget > 0 then
        more[#more + 1] = list
      elseif first ~= 0 then
        wheel[wheeled(domain, number)] = first
      end
    end
    lists = more
  end
end

local function drain()
  local last = format('%d', now)
  local events = call('ZRANGEBYSCORE', ex, '-inf', last, 'LIMIT', 0, DRAIN)
  local from, till = format('%d', LAPSES_FROM), format('%d', LAPSES_FROM + now)
  local lapses = call('ZRANGEBYSCORE', ex, from, till, 'LIMIT', 0, DRAIN)
  if #events + #lapses == 0 then return end
  if #events > 0 then call('ZREMRANGEBYRANK', ex, 0, #events - 1) end
  local handles, rids, lists = {}, {}, {}
  for step, event in ipairs(events) do handles[step] = tonumber(sub(event, 3, 9)) end
  for step, event in ipairs(lapses) do rids[step] = sub(event, 3) end
  load_held(rids)
  for _, rid in ipairs(rids) do
    if held[rid] then handles[#handles + 1] = held[rid][DOMAIN] end
  end
  load(handles)
  for _, event in ipairs(events) do
    if sub(event, 1, 1) == '0' then
      local number = tonumber(sub(event, 11, 13))
      lists[#lists + 1] = {domains[tonumber(sub(event, 3, 9))], HEAD + EACH * (number - 1), number}
    end
  end
  release_due(lists)
  for _, event in ipairs(events) do
    local domain, kind = domains[tonumber(sub(event, 3, 9))], sub(event, 1, 1)
    if kind == '3' then
      pacing().ease(domain, tonumber(sub(event, 11, 13)))
    elseif kind == '4' then
      local name = format('x%d.%d.%d', domain[HANDLE], tonumber(sub(event, 11, 13)),
        tonumber(sub(event, 15)))
      restored[name], retold[name] = false, true
    end
    touch(domain)
  end
  for _, rid in ipairs(rids) do
    if held[rid] then lapse(rid, held[rid]) else wheel['1:' .. rid] = false end
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
