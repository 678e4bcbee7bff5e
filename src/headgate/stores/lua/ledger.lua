-- The quota ledger of one group, second part: what is asked of it, and the call as a whole.

-- ── before the call: QuotaLedger.acquire ─────────────────────────────────────────────────────────

local function able(domain, ask)
  return domain and not ask.excluded[domain[HANDLE]] and fits(domain, ask)
end

local function by_rank(from, stop)
  local handles = call('ZRANGE', th, from, stop)
  for step, member in ipairs(handles) do handles[step] = tonumber(member) end
  return handles
end

-- The first domain that has room, from a turning offset; ranks count from the top, -1 is the last.
local function walk(ask, from, size)
  if size <= 0 then return {} end
  turn = turn + 1
  local offset, length = turn % size, min(size, LONGEST_WALK)
  local handles = by_rank(from + offset, from + min(offset + length, size) - 1)
  if offset + length > size then
    for _, handle in ipairs(by_rank(from, from + offset + length - size - 1)) do
      handles[#handles + 1] = handle
    end
  end
  for step, handle in ipairs(handles) do
    if step % SOME == 1 then load({unpack(handles, step, min(step + SOME - 1, #handles))}) end
    if able(domains[handle], ask) then return {domains[handle]} end
  end
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
  local dearest, cheapest
  for counts = 2, 4 do
    local cost = ask[COSTS + counts]
    if cost >= 0 then
      dearest, cheapest = max(dearest or 1, cost), min(cheapest or cost, cost)
    end
  end
  local sure = call('ZCOUNT', th, class_of(dearest or 1) + 1, '+inf')
  local found = sample(ask, sure, seed)
  if #found == 0 then
    local perhaps = call('ZCOUNT', th, class_of(max(1, cheapest or 1)), '+inf')
    found = walk(ask, -perhaps, perhaps - sure)
  end
  local chosen, least
  for _, domain in ipairs(found) do
    local asked = price(domain, ask)
    if not chosen or asked < least or asked == least and (domain[ORDER] < chosen[ORDER]
        or domain[ORDER] == chosen[ORDER] and domain[HANDLE] < chosen[HANDLE]) then
      chosen, least = domain, asked
    end
  end
  local wish = chosen and ask[PREFER] >= 0 and domain_of(ask[PREFER])
  if wish and able(wish, ask) and price(wish, ask) <= 2 * least then return wish end
  return chosen
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
      early and put(domain, number, expiry(limit, limit[GUARD]), needs[number]) or 0
  end
  if domain[CANARY] == 1 then domain[CANARY], domain[TESTING] = 0, rid end
  order = order + 1
  domain[ORDER] = order
  keep_held(rid, lease)
  touch(domain)
  refused = {}
  return domain[HANDLE], lease[2], 0, ''
end

-- When a limit has room again: its buckets go in the order of their expiry.
local function free_at(domain, number, missing, lapses, best)
  local at = HEAD + EACH * (number - 1)
  local expires = domain[at + FIRST]
  while expires ~= 0 and not (best and expires >= best and lapses >= best) do
    local last = expires == domain[at + LAST]
    local bucket = last and {domain[at + HOLDS], 0} or bucket_of(domain[HANDLE], number, expires)
    missing = missing - bucket[1]
    if missing <= 0 then return expires end
    expires = bucket[2]
  end
  return expires ~= 0 and expires or lapses
end

-- Refusals are rare and their functions many: they are made when first needed.
local function refusals()

local function exceeds(domain, ask)
  for number, limit in ipairs(domain[LIMITS]) do
    if cost_of(ask, limit) > domain[HEAD + EACH * (number - 1) + AMOUNT] then return true end
  end
  return false
end

-- When a call fits if nobody else comes; nil: never. From `best` on, the exact instant is of no use.
local function room_at(domain, ask, best)
  if exceeds(domain, ask) then return nil end
  local at, name, lapses = now, '', now + TTL
  if domain[RESTING] > now then at, name = domain[RESTING], 'rest' end
  if domain[TESTING] ~= '' then
    local lease = held_of(domain[TESTING])
    lapses = lease and lease[LAPSES] or lapses
    at, name = max(at, lapses), 'rest'
  end
  for number, limit in ipairs(domain[LIMITS]) do
    local books = HEAD + EACH * (number - 1)
    local missing = domain[books + USED] + cost_of(ask, limit) - domain[books + AMOUNT]
    local free = missing > 0 and free_at(domain, number, missing, lapses, best) or now
    if free > at then at, name = free, limit[NAME] end
  end
  return at, name
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

local function refuse(ask)
  if count > EXACT then
    if too_large(ask) then return -1, -1, 1, '' end
    turn_wheel()
    local event = call('ZRANGE', ex, 0, 0, 'WITHSCORES')
    return -1, max(now + 1, tonumber(event[2]) or 0), 0, ''
  end
  local handles, best, name, large = {}, nil, '', count > 0
  for handle = 0, count - 1 do handles[handle + 1] = handle end
  load(handles)
  for handle = 0, count - 1 do
    local domain = domains[handle]
    local at, binding = room_at(domain, ask, best)
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
  if lease then return lease[DOMAIN], lease[2], 0, '' end
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

-- ── after the call: settle, cancel, renew; penalties ─────────────────────────────────────────────

local function settle_one(domain, lease, number, limit, used)
  local need, expires = lease[NEEDS + number], lease[NEEDS + lease[1] + number]
  local at = HEAD + EACH * (number - 1) + USED
  if limit[KIND] == CONCURRENT then
    if lease[ORPHAN] == 0 then domain[at] = domain[at] - need end
  elseif limit[MODE] == EARLY then
    -- The charge stands in its own bucket; what came on top after that expired is charged now.
    if used ~= need and not take(domain, number, expires, need - used) and used > need then
      domain[at] = domain[at] + used - need
      put(domain, number, expiry(limit, limit[GUARD]), used - need)
    end
  else
    if lease[ORPHAN] == 1 then
      take(domain, number, expires, need)
    else
      domain[at] = domain[at] - need
    end
    domain[at] = domain[at] + used
    put(domain, number, expiry(limit, SKEW), used)
  end
end

local function settle(told)
  local lease = held_of(told[1])
  if not lease then return end
  local domain = domain_of(lease[DOMAIN])
  for number = 1, lease[1] do
    local limit = domain[LIMITS][number]
    local used = told[COSTS + limit[COUNTS]]
    settle_one(domain, lease, number, limit, used < 0 and lease[NEEDS + number] or used)
  end
  if domain[TESTING] == told[1] then domain[TESTING], domain[CANARY] = '', 1 - told[SERVED] end
  keep_held(told[1], false)
  touch(domain)
end

-- Give everything back: of this call no byte was sent.
local function cancel(rid)
  local lease = held_of(rid)
  if not lease then return end
  local domain = domain_of(lease[DOMAIN])
  for number = 1, lease[1] do
    local limit, need = domain[LIMITS][number], lease[NEEDS + number]
    local at = HEAD + EACH * (number - 1) + USED
    if limit[KIND] ~= CONCURRENT and (limit[MODE] == EARLY or lease[ORPHAN] == 1) then
      take(domain, number, lease[NEEDS + lease[1] + number], need)
    elseif lease[ORPHAN] == 0 then
      domain[at] = domain[at] - need
    end
  end
  if domain[TESTING] == rid then domain[TESTING], domain[CANARY] = '', 1 end
  keep_held(rid, false)
  touch(domain)
end

local function renew(rid)
  local lease = held_of(rid)
  if lease and lease[ORPHAN] == 0 then
    lease[LAPSES] = now + TTL
    keep_held(rid, lease)
  end
end

-- The number of a shape, which is stored if it is new; and how long the group must be kept for it.
local function number_of(shape)
  local packed = cmsgpack.pack(shape)
  for _, limit in ipairs(shape) do keep = max(keep, KEEP + limit[WINDOW]) end
  for number = 1, known do
    if call('HGET', st, format('s%d', number)) == packed then return number end
  end
  known = known + 1
  shapes[known] = shape
  call('HSET', st, format('s%d', known), packed)
  return known
end

-- The provider has told a limit. What is held counts against the new amount at once.
local function learn(domain, limit, amount)
  for number, old in ipairs(domain[LIMITS]) do
    if old[NAME] == limit[NAME] then
      domain[HEAD + EACH * (number - 1) + AMOUNT] = amount
      return
    end
  end
  local shape = {unpack(domain[LIMITS])}
  shape[#shape + 1] = limit
  domain[SHAPE], domain[COUNT], domain[LIMITS] = number_of(shape), #shape, shape
  local at = HEAD + EACH * (#shape - 1)
  domain[at + AMOUNT], domain[at + USED], domain[at + FIRST] = amount, 0, 0
  domain[at + LAST], domain[at + HOLDS] = 0, 0
end

-- told: domain, until or −1, canary, shut or −1, and perhaps a limit and its amount.
local function penalize(told)
  local domain, till = domain_of(told[1]), told[2]
  if not domain then return end
  if told[5] then learn(domain, told[5], told[6]) end
  if told[4] >= 0 then domain[SHUT] = told[4] end
  if till == 0 then
    domain[RESTING], domain[CANARY], domain[TESTING] = 0, 0, ''
  elseif till > 0 then
    domain[TESTING], domain[CANARY] = '', max(domain[CANARY], told[3])
    if till > domain[RESTING] then
      domain[RESTING] = till
      if till > now then wheel[format('2:%07d:%d', domain[HANDLE], till)] = till end
    end
  end
  touch(domain)
end

-- ── the call ─────────────────────────────────────────────────────────────────────────────────────

local function declare(first, all, kinds, list)
  if not meta then
    call('DEL', st, th, ex)
    epoch, total = now, all
  end
  if all ~= total or first > count then return end -- the group is there, made by someone else
  local numbers = {}
  for step, shape in ipairs(kinds) do numbers[step] = number_of(shape) end
  for step, told in ipairs(list) do
    if first + step - 1 == count then
      local limits = kinds[told[1]]
      local domain = {count, limits, '', false, #limits, numbers[told[1]], 0, 0, 0, 0, CLOSED}
      for number = 1, #limits do
        for _, value in ipairs({told[1 + number], 0, 0, 0, 0}) do domain[#domain + 1] = value end
      end
      domains[count] = domain
      touch(domain)
      count = count + 1
    end
  end
end

local function read_ahead(batch)
  local rids, handles = {}, {}
  for _, told in ipairs(batch[1]) do rids[#rids + 1] = told[1] end
  for part = 2, 3 do
    for _, rid in ipairs(batch[part]) do rids[#rids + 1] = rid end
  end
  for _, ask in ipairs(batch[5]) do rids[#rids + 1] = ask[1] end
  load_held(rids)
  for _, rid in ipairs(rids) do
    if held[rid] then handles[#handles + 1] = held[rid][DOMAIN] end
  end
  load(handles)
end

local function transact(batch, answers)
  read_ahead(batch)
  refused = {}
  for _, told in ipairs(batch[1]) do settle(told) end
  for _, rid in ipairs(batch[2]) do cancel(rid) end
  for _, rid in ipairs(batch[3]) do renew(rid) end
  for _, told in ipairs(batch[4]) do penalize(told) end
  local seed = batch[6]
  for _, ask in ipairs(batch[5]) do
    answers[#answers + 1] = {acquire(ask, seed)}
    seed = seed % 2147483646 + 1
  end
end

local function write_back()
  local sets, drops = {'m', ''}, {}
  local function write(name, value)
    if value then
      sets[#sets + 1], sets[#sets + 2] = name, value
    else
      drops[#drops + 1] = name
    end
  end
  for handle, domain in pairs(dirty) do
    local size = HEAD + EACH * domain[COUNT]
    local blob = struct.pack(layout(domain[COUNT]), unpack(domain, COUNT, size))
    write(format('d%d', handle), blob .. domain[TESTING])
  end
  for name in pairs(rewritten) do
    write(name, buckets[name] and struct.pack('<dd', unpack(buckets[name], 1, 2)))
  end
  for rid in pairs(recharged) do
    local lease = held[rid]
    write('r' .. rid, lease and struct.pack('<BBBdd' .. string.rep('d', 2 * lease[1]),
      unpack(lease, 1, NEEDS + 2 * lease[1])))
  end
  sets[2] = struct.pack('<ddddddddd', now, seq, epoch, count, total, order, turn, known, keep)
  for from = 1, #sets, ARGUMENTS do call('HSET', st, unpack(sets, from, min(from + 999, #sets))) end
  for from = 1, #drops, ARGUMENTS do call('HDEL', st, unpack(drops, from, min(from + 999, #drops))) end
  if not meta or floor(before / HOUR) ~= floor(now / HOUR) then
    for _, key in ipairs(KEYS) do call('PEXPIRE', key, format('%d', keep)) end
  end
end

seq = seq + 1
local answers = {}
if said[1] == 0 then
  declare(said[3], said[4], said[5], said[6])
else
  drain()
  for step = 4, #said do transact(said[step], answers) end
end
place()
turn_wheel()
write_back()
return cmsgpack.pack({said[2], now, seq, epoch, answers})

end
return run()
