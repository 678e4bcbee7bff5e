-- The quota ledger of one group: what is told of reservations, QuotaLedger.settle, cancel and renew.

local function settle_one(domain, lease, number, limit, used)
  local need, expires = lease[NEEDS + number], lease[NEEDS + lease[1] + number]
  local at = HEAD + EACH * (number - 1) + USED
  if limit[KIND] == CONCURRENT then
    if lease[ORPHAN] == 0 then domain[at] = domain[at] - need end
  elseif limit[MODE] == EARLY then
    -- The charge stands in its own bucket; what came on top after that expired is charged now.
    if used ~= need and not take(domain, number, expires, need - used) and used > need then
      domain[at] = domain[at] + used - need
      put(domain, number, expiry(limit, now + limit[GUARD]), used - need)
    end
  else
    if lease[ORPHAN] == 1 then
      take(domain, number, expires, need)
    else
      domain[at] = domain[at] - need
    end
    domain[at] = domain[at] + used
    put(domain, number, expiry(limit, now + SKEW), used)
  end
end

local function settle(told)
  local lease = held_of(told[1])
  if not lease then return end
  local domain = domain_of(lease[DOMAIN])
  for number = 1, lease[1] do
    local limit = domain[LIMITS][number]
    local used = told[COSTS + limit[COUNTS]]
    used = used < 0 and lease[NEEDS + number] or used
    settle_one(domain, lease, number, limit, used)
    if lease[NEEDS + 2 * lease[1] + 1] then pacing().settle(domain, lease, number, used) end
  end
  if lease[NEEDS + 2 * lease[1] + 1] then pacing().pace_out(domain) end
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
    if lease[NEEDS + 2 * lease[1] + 1] then pacing().settle(domain, lease, number, 0) end
  end
  if lease[NEEDS + 2 * lease[1] + 1] then pacing().pace_out(domain) end
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
