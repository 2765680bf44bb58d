-- The same as responses.py. The memory, which outlives all members:
--   'responses': a hash, id -> {tenant, text, until}, packed; 'order': a sorted set of all ids in the order in which they came;
--   'of:TENANT': the same of one tenant; 'number': how many came.

local TTL_SECONDS, MAX_OF_TENANT, MAX_RESPONSES, MAX_CLEARED = 86400, 10000, 200000, 64

return function(request, turn)
  local all, order, number = turn.lasting('responses'), turn.lasting('order'), turn.lasting('number')

  local function known(id)
    local packed = turn.call('HGET', all, id)
    return packed and cmsgpack.unpack(packed) or nil
  end

  local function forget(id)
    local found = known(id)
    turn.call('ZREM', order, id)
    if found then
      turn.call('HDEL', all, id)
      turn.call('ZREM', turn.lasting('of:' .. found[1]), id)
    end
  end

  for _ = 1, MAX_CLEARED do
    local oldest = turn.call('ZRANGE', order, 0, 0)[1]
    local found = oldest and known(oldest)  -- not there: the server has evicted it
    if not oldest or (found and found[3] > turn.now) then
      break
    end
    forget(oldest)
  end
  for _, put in ipairs(request.put) do
    local id, tenant, text = put[1], put[2], put[3]
    local before = known(id)
    if not before or before[1] == tenant or before[3] <= turn.now then
      forget(id)
      local of = turn.lasting('of:' .. tenant)
      local place = turn.call('INCR', number)
      turn.call('HSET', all, id, cmsgpack.pack({ tenant, text, turn.now + TTL_SECONDS }))
      turn.call('ZADD', order, place, id)
      turn.call('ZADD', of, place, id)
      if turn.call('ZCARD', of) > MAX_OF_TENANT then
        forget(turn.call('ZRANGE', of, 0, 0)[1])
      end
      if turn.call('ZCARD', order) > MAX_RESPONSES then
        forget(turn.call('ZRANGE', order, 0, 0)[1])
      end
      turn.call('EXPIRE', of, turn.keep)
    end
  end
  for _, key in ipairs({ all, order, number }) do
    turn.call('EXPIRE', key, turn.keep)
  end
  local found = {}
  for _, id in ipairs(request.get) do
    local response = known(id)
    if response and response[3] > turn.now then
      found[#found + 1] = { id, response[1], response[2] }
    end
  end
  return { found = found }
end
