-- The store in Valkey, as memory.Store has it; program.py says what a program is.
--
-- run({KEY of the members}, {"exchange", member, ttl, number, join, epoch, program, request, program, request ...})
--   gives {1, members, answer, answer ...}; {0, members} where the member is not known; {-1, members} for one that comes late.
-- run({KEY of the members}, {"try"}) does what an exchange needs the right to do.
-- run({KEY of the members}, {"leave", member, program, program ...})
--
-- The members are a hash: each with the time until which it lives and the number of its last exchange; beside them `@clock`, the
-- store's time and the server's own at the last exchange, and `@epoch`, which names the programs' memory: it is a new one where
-- this hash has been lost; then the one in the exchange is taken.

local KEEP_SECONDS = 86400
local MAX_MEMBERS = 10000

local function read_members(call, key)
  local t = call('TIME')
  local server = tonumber(t[1]) + tonumber(t[2]) / 1000000
  local flat = call('HGETALL', key)
  local lives, numbers, clock, epoch = {}, {}, server, nil
  for at = 1, #flat, 2 do
    local name, value = flat[at], flat[at + 1]
    if name == '@epoch' then
      epoch = value
    else
      local first, second = struct.unpack('>dd', value)
      if name == '@clock' then
        clock = first + math.max(0, server - second)  -- the server's own may go back
      else
        lives[name], numbers[name] = first, second
      end
    end
  end
  local count, gone = 0, {}
  for name, till in pairs(lives) do
    if till <= clock then
      gone[#gone + 1] = name
    else
      count = count + 1
    end
  end
  for _, name in ipairs(gone) do
    lives[name], numbers[name] = nil, nil
  end
  return { lives = lives, numbers = numbers, count = count, gone = gone, now = clock, server = server, epoch = epoch }
end

local function exchange(call, key, base, args)
  local member, ttl, number, join = args[2], tonumber(args[3]), tonumber(args[4]), args[5] == '1'
  local found = read_members(call, key)
  for _, name in ipairs(found.gone) do
    call('HDEL', key, name)
  end
  local known = found.lives[member] ~= nil
  if not known and not join then
    return { 0, found.count }
  end
  if known and number <= found.numbers[member] then
    return { -1, found.count }
  end
  for at = 7, #args, 2 do
    if not programs[args[at]] then
      return redis.error_reply('ERR the store has no program ' .. args[at])
    end
  end
  if not known then
    if found.count >= MAX_MEMBERS then
      return redis.error_reply('ERR there are ' .. MAX_MEMBERS .. ' replicas already')
    end
    found.count = found.count + 1
  end
  local epoch = found.epoch or args[6]
  found.lives[member] = found.now + ttl
  call('HSET', key, member, struct.pack('>dd', found.now + ttl, number),
    '@clock', struct.pack('>dd', found.now, found.server), '@epoch', epoch)
  call('EXPIRE', key, KEEP_SECONDS)
  local gives, news = { 1, found.count }, {}
  for at = 7, #args, 2 do
    local name = args[at]
    local turn = { member = member, now = found.now, members = found.lives, news = false, call = call, keep = KEEP_SECONDS }
    turn.key = function(suffix)
      return base .. epoch .. ':' .. name .. ':' .. suffix
    end
    turn.lasting = function(suffix)
      return base .. 'lasting:' .. name .. ':' .. suffix
    end
    gives[#gives + 1] = cmsgpack.pack(programs[name](cmsgpack.unpack(args[at + 1]), turn))
    if turn.news then
      news[#news + 1] = name
    end
  end
  if #news > 0 then
    call('PUBLISH', base .. 'news', member .. ' ' .. table.concat(news, ' '))
  end
  return gives
end

local function leave(call, key, base, args)
  call('HDEL', key, args[2])
  call('PUBLISH', base .. 'news', table.concat(args, ' ', 2))
  return { 1 }
end

local function try(call, base)
  call('TIME')
  call('HSET', base .. 'try', 'field', 1)
  call('HGETALL', base .. 'try')
  call('EXPIRE', base .. 'try', 1)
  call('PUBLISH', base .. 'try', '')
  return { 1 }
end

local function run(keys, args, call)
  local key = keys[1]
  local base = string.sub(key, 1, -#'members' - 1)
  if args[1] == 'exchange' then
    return exchange(call, key, base, args)
  elseif args[1] == 'leave' then
    return leave(call, key, base, args)
  end
  return try(call, base)
end
