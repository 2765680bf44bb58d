-- The same as slots.py and slot_shares.py. The memory: `seen` is a hash, member -> when it asked last; `pools` a set of names;
-- `pool:NAME` one pool, packed; `look:MEMBER` a set of names.
--
-- A pool is { claims, counters }; claims are { member -> { batch, aim, leases, flows } }, leases { address -> lease }. Leases and
-- flows are lists, which are packed faster.

local GRANTED, RETURNED, LIMIT, MOVING, IN_USE, USABLE = 1, 2, 3, 4, 5, 6
local KEY, PRIORITY, LEVEL, WEIGHT, WAITING, RUNNING = 1, 2, 3, 4, 5, 6
local FRESH_SECONDS, NO_CAP = 0.5, -1
local MAX_COUNTERS, SLACK, QUIET_SLACK, WINDOW_SECONDS, KEPT, ROUNDS = 128, 0.05, 0.3, 1.0, 0.8, 40

local function keys_of(map)
  local found = {}
  for key in pairs(map) do
    found[#found + 1] = key
  end
  table.sort(found)
  return found
end

-- The name with the least (or, with sign -1, the greatest) value; of equal ones the least (the greatest) name.
local function extreme(names, value, sign)
  local best, at = nil, nil
  for _, name in ipairs(names) do
    local this = value(name)
    if best == nil or sign * this < sign * at or (this == at and ((sign > 0 and name < best) or (sign < 0 and name > best))) then
      best, at = name, this
    end
  end
  return best
end

local function held_by(lease)
  return math.max(0, lease[GRANTED] - lease[RETURNED])
end

local function occupied_by(lease)
  return math.max(held_by(lease), lease[IN_USE])
end

local function all_held(claim)
  local sum = 0
  for _, lease in pairs(claim.leases) do
    sum = sum + held_by(lease)
  end
  return sum
end

local function all_waiting(claim)
  local sum = 0
  for _, flow in ipairs(claim.flows) do
    sum = sum + flow[WAITING]
  end
  return sum
end

-- Counters

local function counter_of(counters, key)
  local flow = counters.flows[key]
  return flow and math.max(counters.floor, flow[1]) or counters.floor
end

local function served_of(counters, key)
  local flow = counters.flows[key]
  return flow and flow[2] or 0
end

local function charge(counters, charges, tokens, calls, now)
  for _, row in ipairs(charges) do
    local key, amount = row[1], row[2]
    local counter = math.max(0, counter_of(counters, key) + amount)
    counters.flows[key] = { counter, math.max(0, served_of(counters, key) + amount) }
  end
  local names = keys_of(counters.flows)
  if #names > MAX_COUNTERS then
    table.sort(names, function(one, other)
      local a, b = counters.flows[one][1], counters.flows[other][1]
      if a ~= b then return a > b end
      return one < other
    end)
    local kept = {}
    for at = 1, math.floor(MAX_COUNTERS / 2) do
      kept[names[at]] = counters.flows[names[at]]
    end
    counters.flows = kept
  end
  counters.tokens = counters.tokens + tokens
  counters.calls = counters.calls + calls
  if counters.since < 0 then
    counters.since = now
  end
  local passed = now - counters.since
  if passed >= WINDOW_SECONDS and counters.calls > 0 then
    local per_second, per_call = counters.tokens / (passed + counters.passed), counters.tokens / counters.calls
    counters.step = math.max(1, per_second / math.max(1, counters.busy), 2 * per_call)
    counters.since, counters.passed = now, (passed + counters.passed) * KEPT
    counters.tokens, counters.calls = counters.tokens * KEPT, counters.calls * KEPT
  end
end

-- Targets

local function levels_of(demands)
  local levels, top = {}, -1
  for _, row in ipairs(demands) do
    levels[row.priority] = math.max(levels[row.priority] or 0, row.level)
  end
  for _, row in ipairs(demands) do
    if row.waiting > 0 then
      top = math.max(top, levels[row.priority])
    end
  end
  return levels, top
end

local function fill(amount, names, wants, weights, counters)
  local sum = 0
  for _, name in ipairs(names) do
    sum = sum + wants[name]
  end
  if sum <= amount then
    return wants
  end
  local step, low, high = counters.step, math.huge, -math.huge
  for _, name in ipairs(names) do
    low = math.min(low, counter_of(counters, name))
    high = math.max(high, counter_of(counters, name) + wants[name] * step / weights[name])
  end
  local function filled(level)
    local got, total = {}, 0
    for _, name in ipairs(names) do
      local part = math.max(0, (level - counter_of(counters, name)) * weights[name] / step)
      got[name] = math.min(wants[name], part)
      total = total + got[name]
    end
    return got, total
  end
  for _ = 1, ROUNDS do
    local middle = (low + high) / 2
    local _, total = filled(middle)
    if total < amount then
      low = middle
    else
      high = middle
    end
  end
  return (filled(low))
end

local function shares(total, members, demands, counters)
  local share = {}
  for _, member in ipairs(members) do
    share[member] = 0
  end
  if #members == 0 then
    return share
  end
  local levels, top = levels_of(demands)
  local least = nil
  for _, row in ipairs(demands) do
    if row.waiting > 0 and levels[row.priority] == top then
      local this = counter_of(counters, row.key)
      least = least and math.min(least, this) or this
    end
  end
  if least then
    counters.floor = math.max(counters.floor, least)
  end
  local distinct, left = {}, total
  for _, level in pairs(levels) do
    distinct[level] = true
  end
  local descending = keys_of(distinct)
  for at = #descending, 1, -1 do
    local names, wants, weights = {}, {}, {}
    for _, row in ipairs(demands) do
      if levels[row.priority] == descending[at] then
        if not wants[row.flow] then
          names[#names + 1], wants[row.flow], weights[row.flow] = row.flow, 0, 0
        end
        wants[row.flow] = wants[row.flow] + row.running + row.waiting
        weights[row.flow] = math.max(weights[row.flow], row.weight)
      end
    end
    local got, sum = fill(left, names, wants, weights, counters), 0
    for _, row in ipairs(demands) do
      if levels[row.priority] == descending[at] and wants[row.flow] > 0 then
        share[row.member] = share[row.member] + got[row.flow] * (row.running + row.waiting) / wants[row.flow]
      end
    end
    for _, name in ipairs(names) do
      sum = sum + got[name]
    end
    left = left - math.min(left, sum)
  end
  for _, member in ipairs(members) do
    share[member] = share[member] + left / #members
  end
  return share
end

local function whole(total, members, held, share, slack)
  local target, over, left = {}, {}, total
  for _, member in ipairs(members) do
    local least, most = math.ceil(share[member] - 1), math.floor(share[member] + 1)
    target[member] = math.max(0, math.min(math.max(held[member], least), most))
    over[member] = target[member] - share[member]
    left = left - target[member]
  end
  local function move(member, number)
    target[member] = target[member] + number
    over[member] = over[member] + number
  end
  local function by_over(member)
    return over[member]
  end
  while left ~= 0 and #members > 0 do
    if left > 0 then
      move(extreme(members, by_over, 1), 1)
      left = left - 1
    else
      local some = {}
      for _, member in ipairs(members) do
        if target[member] > 0 then
          some[#some + 1] = member
        end
      end
      move(extreme(some, by_over, -1), -1)
      left = left + 1
    end
  end
  while #members > 0 do
    local most, least = extreme(members, by_over, -1), extreme(members, by_over, 1)
    if over[most] - over[least] <= 1 + slack * (1 + math.abs(share[most])) or target[most] == 0 then
      break
    end
    move(most, -1)
    move(least, 1)
  end
  return target
end

local function hurry(target, members, held, demands)
  local levels, top = levels_of(demands)
  local waits, lower = {}, {}
  for _, member in ipairs(members) do
    waits[member], lower[member] = 0, 0
  end
  for _, row in ipairs(demands) do
    if levels[row.priority] < top then
      lower[row.member] = lower[row.member] + row.running + row.waiting
    elseif levels[row.priority] == top then
      waits[row.member] = waits[row.member] + row.waiting
    end
  end
  for _, member in ipairs(members) do
    local needed = waits[member] - math.max(0, target[member] - held[member])
    while needed > 0 do
      local givers = {}
      for _, each in ipairs(members) do
        if waits[each] == 0 and math.min(lower[each], target[each]) > 0 then
          givers[#givers + 1] = each
        end
      end
      if #givers == 0 then
        break
      end
      local giver = extreme(givers, function(each) return target[each] end, -1)
      local number = math.max(1, math.floor(math.min(needed, lower[giver], target[giver]) / #givers))
      target[giver] = target[giver] - number
      lower[giver] = lower[giver] - number
      target[member] = target[member] + number
      needed = needed - number
    end
  end
  return target
end

local function targets(total, members, held, demands, counters)
  local running, slack = 0, QUIET_SLACK
  for _, row in ipairs(demands) do
    running = running + row.running
    if row.waiting > 0 then
      slack = SLACK
    end
  end
  counters.busy = math.max(1, running)
  local share = shares(total, members, demands, counters)
  return hurry(whole(total, members, held, share, slack), members, held, demands)
end

-- Pools

local function hear(pool, member, claimed, now)
  local claim = pool.claims[member] or { batch = 0, aim = 0, leases = {}, flows = {} }
  pool.claims[member] = claim
  local leases = {}
  for _, each in ipairs(claimed[2]) do
    local lease = claim.leases[each[1]] or { each[4], 0, 0, false, 0, false }
    lease[LIMIT], lease[MOVING], lease[RETURNED] = each[2], each[3], math.max(lease[RETURNED], each[5])
    lease[IN_USE], lease[USABLE] = each[6], each[7]
    leases[each[1]] = lease
  end
  claim.leases, claim.flows = leases, claimed[3]
  if claimed[4] > claim.batch then
    claim.batch = claimed[4]
    charge(pool.counters, claimed[5], claimed[6], claimed[7], now)
  end
end

local function limits_of(pool, members)
  local addresses, limits = {}, {}
  for _, member in ipairs(members) do
    for address in pairs(pool.claims[member].leases) do
      addresses[address] = true
    end
  end
  for address in pairs(addresses) do
    local least, weight, sum = nil, 0, 0
    for _, member in ipairs(members) do
      local lease = pool.claims[member].leases[address]
      if lease and lease[LIMIT] ~= 0 then
        least = least and math.min(least, lease[LIMIT]) or lease[LIMIT]
        if lease[MOVING] and lease[IN_USE] > 0 then
          weight = weight + lease[IN_USE]
          sum = sum + lease[LIMIT] * lease[IN_USE]
        end
      end
    end
    if weight > 0 then
      limits[address] = math.max(1, math.floor(sum / weight))
    else
      limits[address] = least
    end
  end
  return limits
end

local function take(claim, usable, free, wanted)
  local given = 0
  while wanted > 0 do
    local open_to = {}
    for _, address in ipairs(usable) do
      if free[address] > 0 and claim.leases[address] and claim.leases[address][USABLE] then
        open_to[#open_to + 1] = address
      end
    end
    if #open_to == 0 then
      break
    end
    table.sort(open_to, function(one, other)
      local a, b = held_by(claim.leases[one]), held_by(claim.leases[other])
      if a ~= b then return a < b end
      if free[one] ~= free[other] then return free[one] > free[other] end
      return one < other
    end)
    local each = math.max(1, math.floor(wanted / #open_to))
    for _, address in ipairs(open_to) do
      local number = math.min(each, free[address], wanted)
      claim.leases[address][GRANTED] = claim.leases[address][GRANTED] + number
      free[address] = free[address] - number
      wanted = wanted - number
      given = given + number
    end
  end
  return given
end

local function row_for(pool, members, member, address, limit)
  local lease, held, elsewhere = pool.claims[member].leases[address], 0, 0
  for _, each in ipairs(members) do
    local other = pool.claims[each].leases[address]
    if other then
      held = held + held_by(other)
      elsewhere = elsewhere + (each == member and 0 or other[IN_USE])
    end
  end
  local cap = NO_CAP
  if limit and held > limit then
    cap = math.floor(held_by(lease) * limit / held)
  end
  return { address, lease[GRANTED], cap, elsewhere }
end

local function grant(pool, member, claimed, fresh)
  local all = keys_of(pool.claims)
  local claim, limits = pool.claims[member], limits_of(pool, all)
  local occupied, frozen, live, held = {}, 0, {}, {}
  for _, each in ipairs(all) do
    for address, lease in pairs(pool.claims[each].leases) do
      if limits[address] then
        occupied[address] = (occupied[address] or 0) + occupied_by(lease)
        frozen = frozen + (fresh[each] and 0 or occupied_by(lease))
      end
    end
    if fresh[each] then
      live[#live + 1], held[each] = each, all_held(pool.claims[each])
    end
  end
  local usable, free, total, spare = {}, {}, -frozen, 0
  for _, address in ipairs(keys_of(limits)) do
    for _, each in ipairs(live) do
      local lease = pool.claims[each].leases[address]
      if lease and lease[USABLE] then
        usable[#usable + 1] = address
        free[address] = math.max(0, limits[address] - occupied[address])
        total = total + limits[address]
        spare = spare + free[address]
        break
      end
    end
  end
  local demands = {}
  for _, each in ipairs(live) do
    for _, flow in ipairs(pool.claims[each].flows) do
      demands[#demands + 1] = {
        member = each, key = flow[KEY], flow = flow[KEY] ~= '' and flow[KEY] or '/' .. each, priority = flow[PRIORITY],
        level = flow[LEVEL], weight = flow[WEIGHT], waiting = flow[WAITING], running = flow[RUNNING],
      }
    end
  end
  local target = targets(math.max(0, total), live, held, demands, pool.counters)
  local lacking, rest = {}, spare
  for _, each in ipairs(live) do
    lacking[each] = math.max(0, target[each] - held[each])
    rest = rest - (each == member and 0 or lacking[each])
  end
  local given = take(claim, usable, free, math.max(lacking[member], math.min(all_waiting(claim), rest)))
  held[member] = held[member] + given
  lacking[member] = math.max(0, target[member] - held[member])
  spare = spare - given
  local short = -spare
  for _, each in ipairs(live) do
    short = short + lacking[each]
  end
  local others, wanted = {}, false
  for _, each in ipairs(live) do
    local other = pool.claims[each]
    local aim = math.max(target[each], held[each] - math.max(0, short - lacking[each]))
    if each ~= member then
      wanted = wanted or all_waiting(other) > 0
      if (spare > 0 and lacking[each] > 0) or (aim < other.aim and held[each] > aim) then
        others[#others + 1] = each
      end
    end
    other.aim = aim
  end
  local rows, served = {}, {}
  for _, each in ipairs(claimed[2]) do
    rows[#rows + 1] = row_for(pool, all, member, each[1], limits[each[1]])
  end
  for _, flow in ipairs(claim.flows) do
    if flow[KEY] ~= '' then
      served[#served + 1] = { flow[KEY], served_of(pool.counters, flow[KEY]) }
    end
  end
  return { claimed[1], claim.aim, wanted, rows, served }, others
end

return function(request, turn)
  local call, key, member = turn.call, turn.key, turn.member

  local function load_pool(name)
    local packed = call('GET', key('pool:' .. name))
    if packed then
      return cmsgpack.unpack(packed)
    end
    return {
      claims = {},
      counters = { floor = 0, step = 1, flows = {}, since = -1, tokens = 0, calls = 0, passed = 0, busy = 1 },
    }
  end

  local function save_pool(name, pool)
    if next(pool.claims) then
      call('SET', key('pool:' .. name), cmsgpack.pack(pool), 'EX', turn.keep)
      call('SADD', key('pools'), name)
      call('EXPIRE', key('pools'), turn.keep)
    else
      call('DEL', key('pool:' .. name))
      call('SREM', key('pools'), name)
    end
  end

  local function look(who, name)
    call('SADD', key('look:' .. who), name)
    call('EXPIRE', key('look:' .. who), turn.keep)
  end

  local seen, gone, fresh = call('HGETALL', key('seen')), {}, { [member] = true }
  for at = 1, #seen, 2 do
    if not turn.members[seen[at]] then
      gone[#gone + 1] = seen[at]
    elseif turn.now - tonumber(seen[at + 1]) <= FRESH_SECONDS then
      fresh[seen[at]] = true
    end
  end
  if #gone > 0 then
    for _, name in ipairs(call('SMEMBERS', key('pools'))) do
      local pool, changed = load_pool(name), false
      for _, each in ipairs(gone) do
        changed = changed or pool.claims[each] ~= nil
        pool.claims[each] = nil
      end
      if changed then
        for other in pairs(pool.claims) do
          look(other, name)
        end
        save_pool(name, pool)
      end
    end
    for _, each in ipairs(gone) do
      call('HDEL', key('seen'), each)
      call('DEL', key('look:' .. each))
    end
  end
  call('HSET', key('seen'), member, string.format('%.6f', turn.now))
  call('EXPIRE', key('seen'), turn.keep)

  local grants, claimed_names = {}, {}
  for _, claimed in ipairs(request[1]) do
    local name = claimed[1]
    claimed_names[name] = true
    local pool = load_pool(name)
    if #claimed[2] == 0 then
      pool.claims[member] = nil
    else
      hear(pool, member, claimed, turn.now)
      local given, others = grant(pool, member, claimed, fresh)
      grants[#grants + 1] = given
      for _, other in ipairs(others) do
        look(other, name)
      end
      if #others > 0 then
        for _, claim in pairs(pool.claims) do
          turn.news = turn.news or all_waiting(claim) > 0
        end
      end
    end
    save_pool(name, pool)
  end
  local names = {}
  for _, name in ipairs(call('SMEMBERS', key('look:' .. member))) do
    if not claimed_names[name] then
      names[#names + 1] = name
    end
  end
  call('DEL', key('look:' .. member))
  table.sort(names)
  local living, rank = keys_of(turn.members), 0
  for at, each in ipairs(living) do
    if each == member then
      rank = at - 1
    end
  end
  return { rank, #living, grants, names }
end
