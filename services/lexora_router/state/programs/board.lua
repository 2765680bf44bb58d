-- The same as board.py. The memory: `posted` is a list of packed { place, at, member, fact }, `numbers` a hash of the members'
-- last ones, `place` a counter.

local MAX_FACTS, FACT_SECONDS = 256, 10.0

return function(request, turn)
  local call, key, keep = turn.call, turn.key, turn.keep
  local last = tonumber(call('HGET', key('numbers'), turn.member) or '0')
  for _, fact in ipairs(request[1]) do
    if fact[1] > last then
      last = fact[1]
      local place = call('INCR', key('place'))
      call('RPUSH', key('posted'), cmsgpack.pack({ place, turn.now, turn.member, fact }))
      turn.news = true
    end
  end
  if turn.news then
    call('HSET', key('numbers'), turn.member, last)
    call('LTRIM', key('posted'), -MAX_FACTS, -1)
    for _, member in ipairs(call('HKEYS', key('numbers'))) do
      if not turn.members[member] then
        call('HDEL', key('numbers'), member)
      end
    end
    for _, name in ipairs({ 'place', 'posted', 'numbers' }) do
      call('EXPIRE', key(name), keep)
    end
  end
  local facts, gone = {}, 0
  for _, packed in ipairs(call('LRANGE', key('posted'), 0, -1)) do
    local each = cmsgpack.unpack(packed)
    if turn.now - each[2] > FACT_SECONDS then
      gone = gone + 1
    elseif each[1] > request[2] and each[3] ~= turn.member then
      facts[#facts + 1] = each[4]
    end
  end
  if gone > 0 then
    call('LTRIM', key('posted'), gone, -1)
  end
  return { tonumber(call('GET', key('place')) or '0'), facts }
end
