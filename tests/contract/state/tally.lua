-- The same as tally.py. The memory is a hash: member -> what it has reported.

return function(request, turn)
  local key = turn.key('members')
  if request.add then
    local before = tonumber(turn.call('HGET', key, turn.member) or '0')
    if request.add ~= before then
      turn.call('HSET', key, turn.member, request.add)
      turn.news = true
    end
  end
  local total, by = 0, {}
  local flat = turn.call('HGETALL', key)
  for at = 1, #flat, 2 do
    if turn.members[flat[at]] then
      by[flat[at]] = tonumber(flat[at + 1])
      total = total + by[flat[at]]
    else
      turn.call('HDEL', key, flat[at])
    end
  end
  turn.call('EXPIRE', key, turn.keep)
  local sum = 0
  for _, part in ipairs(request.parts) do
    sum = sum + part
  end
  return { total = total, by = next(by) and by or nil, sum = sum, note = request.note, now = turn.now, parts = request.parts }
end
