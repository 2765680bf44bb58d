-- The same as keys.py. The memory, which outlives all members:
--   'texts': a hash, id -> record; 'log': a sorted set of ids by their revisions; 'head': the highest revision.

local MAX_KEYS, MAX_READ, MAX_READ_CHARS = 200000, 256, 65536

return function(request, turn)
  local texts, log, head_key = turn.lasting('texts'), turn.lasting('log'), turn.lasting('head')
  if turn.call('EXISTS', texts) == 0 then
    turn.call('DEL', log)  -- the server has evicted the texts; replicas put them back
  end
  local head = tonumber(turn.call('GET', head_key) or '0')

  local function revision_of(id)
    return tonumber(turn.call('ZSCORE', log, id) or '0')
  end

  local function set(id, revision, text)
    turn.call('HSET', texts, id, text)
    turn.call('ZADD', log, revision, id)
    head = math.max(head, revision)
    turn.news = true
  end

  local function put()
    local wanted, new = {}, 0
    for _, key in ipairs(request.put) do
      local id, revision, text = key[1], key[2], key[3]
      local now = turn.call('HGET', texts, id)
      if now ~= text then
        if revision_of(id) ~= revision then
          return 'conflict'
        end
        wanted[#wanted + 1] = key
        if not now then
          new = new + 1
        end
      end
    end
    if turn.call('ZCARD', log) + new > MAX_KEYS then
      return 'full'
    end
    if #wanted > 0 then
      head = math.max(head, request.since)
    end
    for _, key in ipairs(wanted) do
      set(key[1], head + 1, key[3])
    end
    return ''
  end

  for _, key in ipairs(request.restore) do
    if key[2] > revision_of(key[1]) and turn.call('ZCARD', log) < MAX_KEYS then
      set(key[1], key[2], key[3])
    end
  end
  local refused = put()
  if turn.news then
    turn.call('SET', head_key, head)
  end
  local read, chars = {}, 0
  local found = turn.call('ZRANGEBYSCORE', log, '(' .. string.format('%d', request.since), '+inf', 'WITHSCORES', 'LIMIT', 0, MAX_READ)
  for at = 1, #found, 2 do
    local text = turn.call('HGET', texts, found[at])
    chars = chars + #text
    if #read > 0 and chars > MAX_READ_CHARS then
      break
    end
    read[#read + 1] = { found[at], tonumber(found[at + 1]), text }
  end
  return { head = head, count = turn.call('ZCARD', log), read = read, refused = refused }
end
