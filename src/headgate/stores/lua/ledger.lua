-- The quota ledger of one group: what is told of domains, and the call as a whole.

-- The number of a shape, which is stored if it is new; and how long the group must be kept for it.
local function number_of(shape)
  local packed = cmsgpack.pack(shape)
  for _, limit in ipairs(shape) do keep = max(keep, KEEP + limit[WINDOW]) end
  for number = 1, known do
    if call('HGET', st, format('s%d', number)) == packed then return number end
  end
  for _, limit in ipairs(shape) do
    local bit = 2 ^ limit[COUNTS]
    if floor(counted / bit) % 2 == 0 then counted = counted + bit end
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
      local at = HEAD + EACH * (number - 1) + AMOUNT
      local before = domain[at]
      domain[at] = amount
      if domain[PACED] > 0 then pacing().resize(domain, number, before) end
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

-- told: domain, until or −1, canary, shut or −1, and perhaps a limit (or false) and its amount, and the
-- name of a limit to pace.
local function penalize(told)
  local domain, till = domain_of(told[1]), told[2]
  if not domain then return end
  if told[5] then learn(domain, told[5], told[6]) end
  if told[4] >= 0 then domain[SHUT] = told[4] end
  if till == 0 then
    domain[RESTING], domain[CANARY], domain[TESTING] = 0, 0, ''
  elseif till > domain[RESTING] then
    domain[CANARY] = max(domain[CANARY], told[3], domain[TESTING] ~= '' and 1 or 0)
    domain[RESTING], domain[TESTING] = till, ''
    if till > now then wheel[format('2:%07d:%d', domain[HANDLE], till)] = till end
  elseif till > 0 and domain[RESTING] > now then
    domain[CANARY] = max(domain[CANARY], told[3])
  end
  touch(domain)
  if told[7] then pacing().refused(domain, told[7]) end
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
      local domain = {count, limits, '', false, #limits, numbers[told[1]], 0, 0, 0, 0, CLOSED, 0}
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
  for _, told in ipairs(batch[7] or {}) do restore(told) end
  local seed = batch[6]
  for _, ask in ipairs(batch[5]) do
    answers[#answers + 1] = {acquire(ask, seed)}
    seed = seed * 48271 % 2147483647
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
    write('r' .. rid, lease and struct.pack('<BBB' .. string.rep('d', #lease - 3), unpack(lease)))
  end
  for name in pairs(retold) do
    write(name, restored[name] and cmsgpack.pack(restored[name]))
  end
  for handle, known in pairs(repaced) do
    local parts = {}
    for number, pace in pairs(known) do
      parts[#parts + 1] = struct.pack('<ddddd', number, unpack(pace))
    end
    write(format('p%d', handle), #parts > 0 and table.concat(parts))
  end
  sets[2] = struct.pack('<dddddddddd', now, seq, epoch, count, total, order, turn, known, keep,
    counted)
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
