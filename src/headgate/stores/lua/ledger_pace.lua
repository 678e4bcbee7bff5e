-- The quota ledger of one group: paced limits. Twin of policy/quota/pacing.py, in the same doubles.
--
-- A pace is {burst, arrival, due, told}; those of a domain stand together in p<handle>. Few domains are
-- paced: all this is made and read when the first of them turns up.

local function make_pacing()

local paces = {} -- by handle: by number of the limit

local function of(domain)
  local handle = domain[HANDLE]
  local known = paces[handle]
  if known then return known end
  known = {}
  local blob = domain[PACED] > 0 and call('HGET', st, format('p%d', handle))
  for at = 1, blob and #blob or 0, 40 do
    local number, burst, arrival, due, told = struct.unpack('<ddddd', blob, at)
    known[number] = {burst, arrival, due, told}
  end
  paces[handle] = known
  return known
end

local function most(amount) return floor(amount * 2 / 3) end

local function horizon(limit) return (limit[WINDOW] + limit[GUARD] + 1) * 1000 end

local function alone(limit) return 2 * horizon(limit) end

local function interval(limit, amount, burst) return horizon(limit) / (amount - burst) end

local function cost(pace, limit, amount, taken)
  local apart = interval(limit, amount, pace[BURST])
  if taken > most(amount) then return alone(limit) + floor(pace[BURST] * apart) + 1 end
  return taken > 0 and floor(taken * apart) + 1 or 0
end

local function opens(pace, limit, amount, need)
  local at
  if need <= pace[BURST] then
    at = pace[ARRIVAL] - floor((pace[BURST] - need) * interval(limit, amount, pace[BURST]))
  elseif need <= most(amount) then
    at = pace[ARRIVAL] + floor((need - pace[BURST]) * interval(limit, amount, need)) + 1
  else
    at = pace[ARRIVAL] + alone(limit)
  end
  return floor(at / 1000)
end

local function amount_of(domain, number) return domain[HEAD + EACH * (number - 1) + AMOUNT] end

-- When the paced limits let an ask go, and the one that does so last; not before `at`. Where `eased`, no
-- later than they are eased.
local function latest(domain, needs, at, name, eased)
  local known = of(domain)
  for number = 1, domain[COUNT] do
    local limit, pace = domain[LIMITS][number], known[number]
    local open = pace and opens(pace, limit, amount_of(domain, number), needs[number])
    if pace and eased then open = min(open, pace[DUE]) end
    if pace and open > at then at, name = open, limit[NAME] end
  end
  return at, name
end

-- Calls were let go, or the paces changed.
local function pace_out(domain)
  local known, before, till = of(domain), domain[PACED], 0
  for number, pace in pairs(known) do
    local open = opens(pace, domain[LIMITS][number], amount_of(domain, number), 1)
    till = max(1, till, open)
  end
  domain[PACED] = till
  if till ~= before and till > now then wheel[format('2:%07d:%d', domain[HANDLE], till)] = till end
  repaced[domain[HANDLE]] = known
  touch(domain)
end

local function take(domain, lease)
  local known, size = of(domain), lease[1]
  for number = 1, size do
    local limit, pace, ends = domain[LIMITS][number], known[number], 0
    if pace then
      local amount, need = amount_of(domain, number), lease[NEEDS + number]
      if pace[BURST] < need and need <= most(amount) and opens(pace, limit, amount, need) <= now then
        pace[BURST] = need
      end
      ends = max(pace[ARRIVAL], now * 1000) + cost(pace, limit, amount, need)
      pace[ARRIVAL] = ends
    end
    lease[NEEDS + 2 * size + number] = ends
  end
  pace_out(domain)
end

-- What has been given back by now cannot be given back again.
local function settle(domain, lease, number, used)
  local pace, ends = of(domain)[number], lease[NEEDS + 2 * lease[1] + number]
  if not pace or ends == 0 then return end
  local limit, amount = domain[LIMITS][number], amount_of(domain, number)
  local change = cost(pace, limit, amount, used) - cost(pace, limit, amount, lease[NEEDS + number])
  if change > 0 then
    pace[ARRIVAL] = max(pace[ARRIVAL], now * 1000) + change
  else
    pace[ARRIVAL] = pace[ARRIVAL] - min(-change, max(0, ends - now * 1000))
  end
end

-- It goes now, not when it was let go: what has been given back meanwhile is taken again.
local function again(domain, lease)
  for number = 1, lease[1] do
    local pace, at = of(domain)[number], NEEDS + 2 * lease[1] + number
    if pace and lease[at] > 0 then
      local taken = cost(pace, domain[LIMITS][number], amount_of(domain, number), lease[NEEDS + number])
      local missing = taken - min(taken, max(0, lease[at] - now * 1000))
      if missing > 0 then
        pace[ARRIVAL] = max(pace[ARRIVAL], now * 1000) + missing
        lease[at] = pace[ARRIVAL]
      end
    end
  end
  pace_out(domain)
end

local function schedule(domain, number, pace, limit)
  pace[DUE] = now + max(limit[WINDOW], LOOK)
  wheel[format('3:%07d:%03d', domain[HANDLE], number)] = pace[DUE]
end

-- Another burst. `spare` is what the limit was above the old one.
local function change(pace, limit, amount, spare, burst)
  local begin = max(now * 1000, pace[ARRIVAL] - floor(pace[BURST] * (horizon(limit) / spare)))
  local grown, backlog = burst - pace[BURST], pace[ARRIVAL] - begin
  pace[BURST] = burst
  if backlog > 0 then pace[ARRIVAL] = begin + floor(backlog * (spare / (amount - burst))) + 1 end
  if grown > 0 then pace[ARRIVAL] = pace[ARRIVAL] + cost(pace, limit, amount, grown) end
end

-- A refusal nobody can explain.
local function refused(domain, name)
  local known = of(domain)
  for number, limit in ipairs(domain[LIMITS]) do
    local amount, pace = amount_of(domain, number), known[number]
    if (name == '' or name == limit[NAME]) and limit[KIND] == ROLLING and amount > 1 then
      if not pace then
        pace = {floor(amount / 2), 0, 0, now}
        pace[ARRIVAL] = now * 1000 + cost(pace, limit, amount, pace[BURST])
        known[number] = pace
        schedule(domain, number, pace, limit)
      elseif now > pace[TOLD] + limit[GUARD] then
        pace[TOLD] = now
        change(pace, limit, amount, amount - pace[BURST], max(1, floor(pace[BURST] / 2)))
        schedule(domain, number, pace, limit)
      end
    end
  end
  pace_out(domain)
end

-- It has been quiet.
local function ease(domain, number)
  local known, limit, amount = of(domain), domain[LIMITS][number], amount_of(domain, number)
  local pace, half = known[number], floor(amount / 2)
  local burst = pace[BURST]
  if burst >= half and now >= pace[TOLD] + QUIET then
    known[number] = nil
    return pace_out(domain)
  end
  local backlog = pace[ARRIVAL] - now * 1000
  if 2 * backlog >= cost(pace, limit, amount, burst) then
    burst = max(1, floor(burst / 2))
  elseif backlog <= 0 and burst < half then
    local tokens = limit[COUNTS] > 1 and limit[COUNTS] < 5
    local step = tokens and max(1, floor(amount / PARTS)) or 1
    burst = min(half, burst + step * (1 + floor((now - pace[DUE]) / limit[WINDOW])))
  end
  if burst ~= pace[BURST] then change(pace, limit, amount, amount - pace[BURST], burst) end
  schedule(domain, number, pace, limit)
  pace_out(domain)
end

-- The limit had another amount.
local function resize(domain, number, old)
  local known, amount = of(domain), amount_of(domain, number)
  local pace = known[number]
  if pace and amount > 1 then
    local burst = min(pace[BURST], most(amount))
    change(pace, domain[LIMITS][number], amount, old - pace[BURST], burst)
  elseif pace then
    known[number] = nil
    wheel[format('3:%07d:%03d', domain[HANDLE], number)] = false
  end
  pace_out(domain)
end

return {
  latest = latest, take = take, settle = settle, again = again, pace_out = pace_out,
  refused = refused, ease = ease, resize = resize,
}
end

local paced_books
local function pacing()
  paced_books = paced_books or make_pacing()
  return paced_books
end
