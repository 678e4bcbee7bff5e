-- The quota ledger of one group in one script: the twin of policy/quota/ledger.py, in the same integers.
--
-- KEYS  {group}st  hash     m: counters; s<n>: what the limits of a domain are, its "shape";
--                           d<handle>: a domain; b<handle>.<limit>.<expires>: a bucket that is not its
--                           limit's last (the last stands in the domain); r<rid>: a reservation;
--                           p<handle>: its paced limits; x<handle>.<limit>.<expires>: what members
--                           told to be charged in a bucket
--       {group}th  sorted   handle -> class of headroom; domains that can serve nothing are not in it
--       {group}ex  sorted   the wheel: what happens by itself -> when it is due; of a limit's buckets the
--                           first; lapses of reservations stand above the rest, at LAPSES_FROM + due
-- ARGV  JSON, either        [0, nonce, first handle, number of all domains, shapes, domains]
--       or                  [1, nonce, resets, batch, …], batch = [settles, cancels, renews, penalties,
--                           asks, seed, perhaps restores]; stores/valkey_wire.py writes and reads both
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
local HOUR <const>, KEEP <const>, LAPSES_FROM <const> = 3600000, 172800000, 1125899906842624
local CLOSED <const>, OPEN <const>, STEPS <const> = -1, 4096, 64
local QUIET <const>, LOOK <const>, PARTS <const> = 3600000, 10000, 64
-- A limit within a shape: its fields. What it counts is 1 … 5: requests, input, output, total, slots.
local NAME <const>, COUNTS <const>, KIND <const> = 1, 2, 3
local WINDOW <const>, MODE <const>, GUARD <const> = 4, 5, 6
local ROLLING <const>, CALENDAR <const>, CONCURRENT <const>, EARLY <const> = 0, 1, 2, 0
-- A domain is an array: four that are not stored, these, then for each limit AMOUNT, USED and its
-- buckets' FIRST, LAST and what the last one HOLDS.
local HANDLE <const>, LIMITS <const>, TESTING <const>, MOVED <const> = 1, 2, 3, 4
local COUNT <const>, SHAPE <const>, RESTING <const>, SHUT <const> = 5, 6, 7, 8
local CANARY <const>, ORDER <const>, PLACE <const>, PACED <const>, HEAD <const> = 9, 10, 11, 12, 12
local AMOUNT <const>, USED <const>, FIRST <const>, LAST <const> = 1, 2, 3, 4
local HOLDS <const>, EACH <const> = 5, 5
-- A reservation is an array: how many limits, whether it is a test, these, the needs, the expiries, and
-- of a domain that is paced the ends.
local ORPHAN <const>, DOMAIN <const>, LAPSES <const>, NEEDS <const> = 3, 4, 5, 5
local BURST <const>, ARRIVAL <const>, DUE <const>, TOLD <const> = 1, 2, 3, 4
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
local counted = 0 -- what any limit counts: a bit each
if meta then
  before, seq, epoch, count, total, order, turn, known, keep, counted =
    struct.unpack('<dddddddddd', meta)
elseif said[1] == 1 then
  return false
end
local server = call('TIME'); server = server[1] * 1000 + floor(server[2] / 1000) -- the time source
local now = max(before, server)

-- ── what is read, and what will be written ───────────────────────────────────────────────────────

local domains, buckets, held, shapes, wheel = {}, {}, {}, {}, {}
local dirty, rewritten, recharged, repaced, moved = {}, {}, {}, {}, {}
local restored, retold, cursors = {}, {}, {}
local resets, refused, layouts, cut, soonest = said[3], {}, {}, false, nil

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
  local lease = {struct.unpack('<BBB' .. string.rep('d', (#blob - 3) / 8), blob)}
  lease[#lease] = nil -- where reading ended
  return lease
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
  wheel['1:' .. rid] = lease and LAPSES_FROM + lease[LAPSES]
end
