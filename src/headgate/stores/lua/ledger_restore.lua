-- The quota ledger of one group: what members know to be charged in books that were lost.

local function restored_name(handle, number, expires) return format('x%d.%d.%d', handle, number, expires) end

local function read_members(_, blob) return cmsgpack.unpack(blob) end

local function number_named(domain, name)
  for number, limit in ipairs(domain[LIMITS]) do
    if limit[NAME] == name and limit[KIND] ~= CONCURRENT then return number end
  end
end

-- told: member, domain, name of the limit, expires, all that the member holds there.
local function restore(told)
  local domain, expires = domain_of(told[2]), told[4]
  local number = domain and expires > now and number_named(domain, told[3])
  if not number then return end
  local name = restored_name(domain[HANDLE], number, expires)
  if restored[name] == nil then
    restored[name] = false
    fetch(restored, {name}, {name}, read_members)
  end
  local members = restored[name] or {}
  local change = told[5] - (members[told[1]] or 0)
  if change == 0 then return end
  if not restored[name] then
    wheel[format('4:%07d:%03d:%d', domain[HANDLE], number, expires)] = expires
  end
  members[told[1]] = told[5]
  restored[name], retold[name] = members, true
  local at = HEAD + EACH * (number - 1) + USED
  domain[at] = domain[at] + change
  put(domain, number, expires, change)
  touch(domain)
end
